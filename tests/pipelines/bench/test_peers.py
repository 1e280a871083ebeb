import json
from pathlib import Path

import pytest

from cluster.errors import InvalidRequest, StrataError
from pipelines.bench import peers
from pipelines.bench.figures import Load

LINES = [
    {"peer": "a", "title": "A"},
    {
        "peer": "a",
        "streams": 8,
        "requests": 11,
        "load_seconds": 1,
        "answers_ms": [100, 300],
        "tokens": 1600,
        "seconds": 0.4,
    },
    {"peer": "b", "title": "B"},
    {"peer": "b", "failed": "not installed"},
]


def test_rows_and_reasons_are_heard_with_whose_they_are() -> None:
    begun, row, other, reason = peers.heard([json.dumps(line) for line in LINES])
    assert (begun.title, begun.row, begun.failed) == ("A", None, "")
    assert row.title == "A"
    assert row.row is not None
    assert row.row["requests"] == 11
    assert row.row["tokens/s"] == pytest.approx(4000)
    assert row.row["answer p50 ms"] == pytest.approx(200)
    assert (other.title, reason.title, reason.failed) == ("B", "B", "not installed")


def test_a_process_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "benchmarks" / "peers"
    module.mkdir(parents=True)
    for package in (module, module.parent):
        (package / "__init__.py").touch()
    (module / "of_folder.py").write_text(f"print({json.dumps(json.dumps(LINES[0]))}, flush=True)\nraise KeyError('x')")
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    with pytest.raises(StrataError, match="KeyError: 'x'"):
        list(peers.listen(tmp_path, None, Load((1,), 1, 1, 1), 10))


def test_peers_need_a_checkout_and_a_precision_that_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers.check("int8")
    with pytest.raises(InvalidRequest, match="fp8"):
        peers.check("fp8")
    monkeypatch.setattr(peers, "SCRIPT", tmp_path / "none.py")
    with pytest.raises(InvalidRequest, match="checkout"):
        peers.check(None)
