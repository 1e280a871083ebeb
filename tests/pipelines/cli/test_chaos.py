import sys
from pathlib import Path

import pytest

from pipelines.chaos.story import Record, Story, Struck, summary
from pipelines.cli import main
from pipelines.cli.chaos import tell, told, total

METRICS = """# HELP vllm:num_requests_running sequences
vllm:num_requests_running{engine="a"} 2.0
vllm:num_requests_running{engine="b"} 3.0
vllm:num_requests_running_more 9.0
plain 0.5
"""


def test_a_gauge_is_the_sum_over_its_labels() -> None:
    assert total(METRICS, "vllm:num_requests_running") == 5.0
    assert total(METRICS, "plain") == 0.5
    assert total(METRICS, "none") == 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--out", "/nowhere/chaos"), "out: /nowhere/chaos is not accepted; a name in a folder that exists"),
        (("--kind", "kill-cat"), "kinds: kill-cat is not accepted; one of kill-shard"),
    ],
)
def test_flags_are_looked_at_before_anything_is_struck(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["strata", "chaos", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert says in " ".join(capsys.readouterr().err.split())


def test_the_report_tells_what_was_bad_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    bad = Record("chat", True, 0.0, 3.0, "cut", "it ended")
    story = Story([bad], [Struck("kill-shard", 1.0, 7)], leaks=["actor Shard: 2 before, 3 after"], seconds=4.0)
    assert told(story.bad) == [{"name": "chat", "at": 3.0, "verdict": "cut", "why": "it ended"}]
    tell(summary(story), Path("here/chaos"))
    said = capsys.readouterr().out
    assert "kill-shard" in said
    assert "left behind: actor Shard: 2 before, 3 after" in said
    assert "here/chaos.json, here/chaos.svg" in said
