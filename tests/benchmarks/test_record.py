import json
import os
from pathlib import Path

import pytest

from benchmarks import record


@pytest.mark.parametrize(("load", "warned"), [(0.4, False), (1.8, True)])
def test_a_busy_machine_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], load: float, warned: bool
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert record.quiet() == load
    assert ("not to be trusted" in capsys.readouterr().err) is warned


def test_a_result_says_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    found = json.loads(record.write("x", {"answer": 7}, threads=2).read_text())
    assert (found["answer"], found["machine"]["threads"]) == (7, 2)
    assert {"commit", "date", "versions", "load_average"} <= set(found)
    assert {"processor", "features", "cores", "python"} <= set(found["machine"])
