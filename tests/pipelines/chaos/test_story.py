import xml.etree.ElementTree as ET
from collections import Counter

from pipelines.chaos.asks import CUT
from pipelines.chaos.picture import draw
from pipelines.chaos.story import Record, Story, Struck, lost, pauses, summary

SVG = "{http://www.w3.org/2000/svg}"


def story() -> Story:
    """Two streams, one of them struck twice and cut in the end, beside a short request."""
    first = Record("a", True, 0.0, 9.0, gaps=[(1.0, 0.1), (1.9, 0.8), (6.1, 2.0)])
    second = Record("b", True, 0.5, 6.5, CUT, "gone", gaps=[(6.2, 0.2)])
    told = Story([first, second, Record("c", False, 2.0, 2.5)], seconds=10.0)
    told.faults = [Struck("kill-shard", 2.0, 7, ("m#a",)), Struck("freeze-leader", 6.0, 8, ("m#b",))]
    for at in range(10):
        told.heard(at + 0.5, 100)
    return told


def test_a_pause_belongs_to_the_fault_that_it_follows() -> None:
    assert pauses(story()) == [0.8, 0.0, 2.0, 0.2]
    assert pauses(story(), "freeze-leader") == [2.0, 0.2]


def test_the_figures_say_what_was_bad() -> None:
    found = summary(story())
    assert (found["faults"], found["streams"], found["plain"]) == (2, 2, 1)
    assert (found["failed"], found["cut"], found["wrong"], found["usage"]) == (0, 1, 0, 0)
    assert found["kinds"] == {"freeze-leader": 1, "kill-shard": 1}
    assert found["pause"]["most"] == 2.0
    assert found["pause_by_kind"]["kill-shard"] == {"count": 2, "p50": 0.4, "p99": 0.792, "most": 0.8}
    assert found["plain_answer"]["p50"] == 0.5


def test_what_is_left_behind_is_named() -> None:
    before = Counter({"placement groups": 2, "actor Shard": 4})
    assert lost(before, before) == []
    after = Counter({"placement groups": 3, "actor Shard": 4, "actor Odd": 1})
    assert lost(before, after) == ["actor Odd: 0 before, 1 after", "placement groups: 2 before, 3 after"]


def test_the_picture_has_a_rule_a_fault_and_a_dot_a_bad_answer() -> None:
    root = ET.fromstring(draw(story(), "2 < 3 faults"))
    strokes = [line.attrib["stroke"] for line in root.findall(f"{SVG}line")]
    assert strokes.count("#dc2626") == 1
    assert len(root.findall(f"{SVG}circle")) == 1
    assert ET.fromstring(draw(Story(), "nothing")) is not None
