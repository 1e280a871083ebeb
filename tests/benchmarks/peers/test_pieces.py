from pathlib import Path

import pytest

from benchmarks.peers import pieces
from benchmarks.peers.catalogue import PEERS, PRECISIONS
from benchmarks.peers.table import notes, table


def piece(peer: str, ours: float, theirs: float, commit: str = "a", **more: object) -> dict:
    return {
        "peer": peer, "weights": "bf16", "commit": commit, "ratio": {"b1": ours / theirs}, "limits": {"b1": 200.0},
        "ours": {"samples": {"b1": [ours]}, "load_seconds": 1.0, "peak_mb": 9.0, "first_equal": 16},
        "theirs": {"samples": {"b1": [theirs]}, "load_seconds": 2.0, "peak_mb": 8.0, "first_equal": 15},
        **more,
    }  # fmt: skip


def added(path: Path, *many: dict) -> list[dict]:
    for one in many:
        pieces.add(path, one, "M", "none", "?")
    return pieces.read(path)


def test_pieces_of_one_commit_add_up_and_older_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    found = added(path, piece("vllm", 100, 50), piece("vllm", 100, 80), piece("llama_cpp", 100, 100))
    assert len(found) == 3
    assert pieces.ratio([one for one in found if one["peer"] == "vllm"], "b1") == pytest.approx((2 + 1.25) / 2)
    found = added(path, piece("vllm", 90, 90, commit="b"))
    assert [(one["peer"], one["commit"]) for one in found] == [("llama_cpp", "a"), ("vllm", "b")]


def test_a_failure_is_kept_until_the_peer_runs(tmp_path: Path) -> None:
    path, failure = tmp_path / "x.json", {"peer": "vllm", "weights": "bf16", "commit": "a", "failed": "no wheel"}
    assert added(path, failure, failure) == [failure]
    (found,) = added(path, piece("vllm", 2, 1))
    assert "failed" not in found


def test_a_disturbed_piece_gives_way_to_a_quiet_one(tmp_path: Path) -> None:
    path, busy = tmp_path / "x.json", {"others": 0.3, "steal": 0.0}
    assert len(added(path, piece("vllm", 9, 9, meanwhile=busy))) == 1
    assert any("30% of the machine" in line for line in notes({"none": pieces.read(path)}))
    (found,) = added(path, piece("vllm", 2, 1, meanwhile={"others": 0.01, "steal": 0.2}))
    assert found["ratio"] == {"b1": 2.0}
    assert added(path, piece("vllm", 9, 9, meanwhile=busy)) == [found]


def test_the_best_peer_is_who_comes_nearest_in_its_own_piece(tmp_path: Path) -> None:
    found = pieces.grouped([piece("vllm", 100, 90), piece("llama_cpp", 150, 100)])
    assert pieces.best(found, "b1") == ("vllm", pytest.approx(100 / 90))
    assert pieces.best(found, "b32") is None
    assert pieces.of_limit(found["llama_cpp"], "b1") == pytest.approx(0.75)


def test_an_older_file_has_no_pieces(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"engines": {}}')
    assert pieces.read(tmp_path / "x.json") == []


def test_the_table_marks_what_is_short_and_names_who_failed() -> None:
    failure = {"peer": "openvino", "weights": "bf16", "commit": "a", "failed": "no wheel"}
    found = {"none": [piece("vllm", 100, 90), failure]}
    lines = table("M", found).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert any("1.11 vLLM CPU (!)" in line for line in lines)
    assert any("failed" in line and "OpenVINO" in line for line in lines)
    assert "OpenVINO GenAI, bf16: no wheel" in notes(found)
    near = {"none": [piece("vllm", 180, 170)]}
    assert "(!)" not in table("M", near), "85 % of the limit is as good"
    assert any("Hugging Face generate has no int8" in line for line in notes({"int8": [piece("vllm", 1, 1)]}))


def test_every_precision_has_peers_and_every_peer_its_list() -> None:
    lists = Path(pieces.__file__).parent
    for precision in PRECISIONS:
        assert sum(precision in peer.weights for peer in PEERS.values()) >= 3
    for peer in PEERS.values():
        if peer.environment is not None:
            lines = (lists / f"{peer.environment}.txt").read_text().splitlines()
            assert all("==" in line for line in lines)
            assert not [line for line in lines if line.startswith(("torchvision", "nvidia"))]
