"""Lists of pieces: their text, and what they are checked by."""

import json
from pathlib import Path

import pytest
import torch

from actors.registry import pieces
from actors.registry.pieces import PIECE
from cluster.errors import ModelInvalid, Unavailable
from cluster.storage import Blobs
from cluster.storage.blobs import digest_of, quick_of
from tests.actors.registry.conftest import write_model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tensor of three pieces, and one of one."""
    write_model(tmp_path / "model", {"a": torch.arange(PIECE // 2 + 10).float(), "b": torch.ones(8)})
    return tmp_path / "model" / "model.safetensors"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "store"))


def test_each_piece_has_both_digests_and_the_text_says_them(weights: Path, blobs: Blobs) -> None:
    made, _, _ = pieces.cut(weights, blobs, pieces.quietly)
    content = weights.read_bytes()
    for at, count, digest, quick in made.spans():
        part = content[at : at + count]
        assert (digest, quick) == (digest_of(part), quick_of(part))
    read = pieces.parse("model.safetensors", made.text())
    assert list(read.spans()) == list(made.spans())
    assert len(list(made.spans())) == 5


def test_a_list_of_before_is_checked_by_sha256_and_names_the_same_tensors(
    weights: Path, blobs: Blobs, tmp_path: Path
) -> None:
    made, _, _ = pieces.cut(weights, blobs, pieces.quietly)
    lines = [{**json.loads(line)} for line in made.text().splitlines()]
    for line in lines:
        del line["blake3"]
    old = pieces.parse("model.safetensors", "\n".join(map(json.dumps, lines)).encode())
    assert old == made
    assert {quick for *_, quick in old.spans()} == {""}
    for each in (old, made):
        pieces.join(each, blobs.read, tmp_path / "out", pieces.quietly)
        assert (tmp_path / "out").read_bytes() == weights.read_bytes()


def test_a_changed_piece_is_refused_by_either_and_a_wrong_check_refuses_no_whole_one(
    weights: Path, blobs: Blobs, tmp_path: Path
) -> None:
    made, _, _ = pieces.cut(weights, blobs, pieces.quietly)
    (_, count, digest, quick), *_ = made.spans()
    room = bytearray(PIECE)
    assert len(blobs.read(digest, room, quick_of(b"of another"))) == count, "SHA-256 is its name"
    path = tmp_path / "store" / digest[:2] / digest[2:]
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    for check in (quick, "", quick_of(b"of another")):
        with pytest.raises(Unavailable, match="was changed"):
            blobs.read(digest, room, check)


@pytest.mark.parametrize("checks", [["0" * 64], ["0" * 63] * 3, [1, 2, 3], "0" * 64, None, {}])
def test_checks_that_are_none_are_refused(weights: Path, blobs: Blobs, checks: object) -> None:
    made, _, _ = pieces.cut(weights, blobs, pieces.quietly)
    lines = [json.loads(line) for line in made.text().splitlines()]
    lines[1]["blake3"] = checks
    with pytest.raises(ModelInvalid, match="is no list of pieces"):
        pieces.parse("model.safetensors", "\n".join(map(json.dumps, lines)).encode())
