import json
import os

import pytest

from actors.quantization import landing
from actors.quantization.landing import refuse_foreign
from cluster.errors import InvalidRequest

REPORT = json.dumps({"float32_bytes": 1, "sensitivities": [], "leave_alone": []})
DEAD = 2**22 + 1  # above the largest pid of Linux


def ours(folder, text="old"):
    folder.mkdir()
    (folder / "quantization.json").write_text(REPORT)
    (folder / "a.txt").write_text(text)
    return folder


@pytest.mark.parametrize("exchange", [True, False])
def test_the_new_folder_replaces_the_old_whole(tmp_path, monkeypatch, exchange):
    out = ours(tmp_path / "out")
    if not exchange:
        monkeypatch.setattr(landing, "_exchanged", lambda one, other: False)
    with landing.landing(out) as part:
        (part / "b.txt").write_text("new")
        assert (out / "a.txt").read_text() == "old"
    assert [file.name for file in out.iterdir()] == ["b.txt"]
    assert list(tmp_path.iterdir()) == [out]


def test_what_fails_leaves_no_trace(tmp_path):
    out = ours(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), landing.landing(out) as part:
        (part / "b.txt").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "a.txt").read_text() == "old"


def test_an_empty_or_missing_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "far" / "away"):
        with landing.landing(out) as part:
            (part / "b.txt").write_text("new")
        assert (out / "b.txt").read_text() == "new"


def test_what_the_dead_left_is_swept_and_the_living_keep_theirs(tmp_path):
    ours(tmp_path / f".out.old-{DEAD}")
    (tmp_path / f".out.part-{DEAD}").mkdir()
    theirs = tmp_path / f".out.part-{os.getppid()}"
    theirs.mkdir()
    with pytest.raises(RuntimeError), landing.landing(tmp_path / "out"):
        raise RuntimeError
    assert set(tmp_path.iterdir()) == {tmp_path / "out", theirs}
    assert (tmp_path / "out" / "a.txt").read_text() == "old", "put aside by a process that died then"


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"quantization_config": {}}')
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\xff" * 20)
    (ours(tmp_path / "mixed") / "thesis.tex").write_text("x")
    for name, says in (("file", "name a folder"), ("model", "remove this one"), ("mixed", r"thesis\.tex in it")):
        with pytest.raises(InvalidRequest, match=says):
            refuse_foreign(tmp_path / name)


def test_where_no_folder_can_be_is_said_before_anything_runs():
    with pytest.raises(InvalidRequest, match="--out: /proc/foo"), landing.landing(landing.Path("/proc/foo")):
        pytest.fail("the block ran")
