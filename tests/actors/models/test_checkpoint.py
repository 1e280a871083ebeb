"""Safetensors files that are broken or hostile are refused by name, and honest ones are read slice by slice."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from actors.models import checkpoint
from actors.models.checkpoint import Checkpoint
from cluster.errors import ModelInvalid

WEIGHT = torch.arange(48, dtype=torch.float32).view(8, 6)


def written(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header, true or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "header of 2^63 bytes": ({}, b"", 2**63),
    "header of 2^64-1 bytes": ({}, b"", 2**64 - 1),
    "header longer than the file": ({}, b"", 100),
    "not JSON": (b"{]", b"", None),
    "not UTF-8": (b"\xff\xfe{}", b"", None),
    "a list": ([], b"", None),
    "deep JSON": (b"[" * 100_000, b"", None),
    "a name twice": (b'{"a":{},"a":{}}', b"", None),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2, 2]}}, bytes(16), None),
    "an entry of text": ({"a": "F32"}, bytes(16), None),
    "unknown dtype": ({"a": entry(dtype="F33")}, bytes(16), None),
    "dtype a list": ({"a": entry(dtype=["F32"])}, bytes(16), None),
    "negative shape": ({"a": entry(shape=(-2, -2))}, bytes(16), None),
    "huge shape": ({"a": entry(shape=(2**62, 2**62))}, bytes(16), None),
    "a shape of truth": ({"a": entry(shape=(True, 4))}, bytes(16), None),
    "a shape of fractions": ({"a": entry(shape=(2.0, 2.0))}, bytes(16), None),
    "negative offsets": ({"a": entry(offsets=(-16, 0))}, bytes(16), None),
    "offsets turned": ({"a": entry(offsets=(16, 0))}, bytes(16), None),
    "three offsets": ({"a": entry(offsets=(0, 8, 16))}, bytes(16), None),
    "offsets past the end": ({"a": entry(offsets=(0, 16))}, bytes(8), None),
    "size unlike the shape": ({"a": entry(shape=(2, 3))}, bytes(16), None),
    "overlap": ({"a": entry(), "b": entry(offsets=(8, 24))}, bytes(24), None),
    "the same place twice": ({"a": entry(), "b": entry()}, bytes(16), None),
    "a gap": ({"a": entry(), "b": entry(offsets=(24, 40))}, bytes(40), None),
    "trailing data": ({"a": entry()}, bytes(20), None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(tmp_path, name):
    with pytest.raises(ModelInvalid, match=r"model\.safetensors"):
        Checkpoint(written(tmp_path, *HOSTILE[name]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 300), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_any_damage_is_refused_or_harmless(tmp_path, place, value, cut):
    save_file({"a": WEIGHT, "b": WEIGHT.bfloat16()}, tmp_path / "model.safetensors")
    raw = bytearray((tmp_path / "model.safetensors").read_bytes())
    raw[place % len(raw)] = value
    (tmp_path / "model.safetensors").write_bytes(raw[: len(raw) - cut])
    try:
        found = Checkpoint(tmp_path)
        for key in found.tensors:
            found.read(key, torch.empty(found.shape(key)), found.shape(key))
    except ModelInvalid:
        pass


@pytest.mark.parametrize("window", [1, 24, 50, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_slices(tmp_path, monkeypatch, window, dtype):
    monkeypatch.setattr(checkpoint, "WINDOW_BYTES", window)
    save_file({"odd": torch.zeros(3, dtype=torch.uint8), "w": WEIGHT.to(dtype)}, tmp_path / "model.safetensors")
    found = Checkpoint(tmp_path)
    for rows, columns in [(slice(None), slice(None)), (slice(2, 7), slice(None)), (slice(1, 3), slice(2, 5))]:
        into = torch.empty(WEIGHT[rows, columns].shape)
        found.read("w", into, (8, 6), rows, columns)
        assert torch.equal(into, WEIGHT[rows, columns])


def test_scalar_and_empty(tmp_path):
    save_file({"s": torch.tensor(3.5), "e": torch.empty(0, 4)}, tmp_path / "model.safetensors")
    found = Checkpoint(tmp_path)
    scalar = torch.empty(())
    assert found.read("s", scalar, ()) == 4
    assert scalar.item() == 3.5
    assert found.read("e", torch.empty(0, 4), (0, 4)) == 0


def test_unaligned(tmp_path):
    data = struct.pack("<3x4f", 1, 2, 3, 4)
    header = {"pad": entry("U8", (3,), (0, 3)), "a": entry("F32", (4,), (3, 19))}
    into = torch.empty(4)
    Checkpoint(written(tmp_path, header, data)).read("a", into, (4,))
    assert into.tolist() == [1, 2, 3, 4]


def test_says_what_is_missing_misshapen_or_of_the_wrong_type(tmp_path):
    save_file({"w": WEIGHT, "i": WEIGHT.to(torch.int8)}, tmp_path / "model.safetensors")
    found = Checkpoint(tmp_path)
    with pytest.raises(ModelInvalid, match="lack x"):
        found.read("x", torch.empty(8, 6), (8, 6))
    with pytest.raises(ModelInvalid, match=r"w has shape \[8, 6\].*\[8, 7\]"):
        found.read("w", torch.empty(8, 7), (8, 7))
    with pytest.raises(ModelInvalid, match="i is I8"):
        found.read("i", torch.empty(8, 6), (8, 6))


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/w.safetensors", "a/b.safetensors", "w.bin", "", 3, None])
def test_an_index_names_files_beside_it(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelInvalid):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": ["b"]}}', "[" * 100_000])
def test_a_broken_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelInvalid):
        Checkpoint(tmp_path)


def test_an_index_whose_file_is_gone(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "m.safetensors"}}))
    with pytest.raises(ModelInvalid, match=r"m\.safetensors"):
        Checkpoint(tmp_path)


def test_the_same_tensor_in_two_files(tmp_path):
    for name in ("a", "b"):
        save_file({"w": WEIGHT}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelInvalid, match="too"):
        Checkpoint(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelInvalid, match="pickle"):
        Checkpoint(tmp_path)


def test_auto_dtype_is_the_commonest(tmp_path):
    tensors = {"a": WEIGHT, "b": torch.zeros(100, dtype=torch.bfloat16), "c": torch.zeros(500, dtype=torch.int64)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = Checkpoint(tmp_path)
    assert found.dtype(found.tensors) is torch.bfloat16
