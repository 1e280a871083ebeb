import json
from xml.etree import ElementTree

from pipelines.lifecycle.curve import draw, write_curve


def test_the_curve_is_drawn_from_left_to_right_and_down():
    svg = ElementTree.fromstring(draw([8.0 / (i + 1) for i in range(1000)]))
    line = svg.find("{http://www.w3.org/2000/svg}polyline").get("points").split()
    points = [tuple(map(float, point.split(","))) for point in line]
    assert len(points) <= 240
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # downwards on the page: falling


def test_a_repeated_step_of_a_resumed_run_counts_once(tmp_path):
    steps = [(0, 4.0), (1, 3.0), (1, 2.0)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in steps))
    write_curve(tmp_path / "p.jsonl", tmp_path / "out" / "c.svg")
    assert (tmp_path / "out" / "c.svg").read_text() == draw([4.0, 2.0])


def test_one_step_is_drawn_too():
    ElementTree.fromstring(draw([1.0]))
