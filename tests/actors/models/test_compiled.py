"""DeepSpeed's op is compiled once for an installation, by one process at a time, and then only loaded."""

import os
import sys
from types import SimpleNamespace

import pytest

from actors.models import compiled, parallel

MODULE = f"{compiled.OPERATOR}.so"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setattr(compiled, "CACHE", tmp_path)
    return compiled.place() / compiled.OPERATOR


def test_it_is_built_in_turn_where_torch_is_told_to(folder, monkeypatch):
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    built = []
    backend = SimpleNamespace(
        build_shm_op=lambda: built.append(((folder / "lock").exists(), os.environ["TORCH_EXTENSIONS_DIR"]))
    )
    monkeypatch.setattr(parallel, "_deepspeed_comm", lambda device: None)
    monkeypatch.setattr(parallel, "_backend_module", lambda: backend)
    parallel.build_collectives()
    assert built == [(False, str(folder.parent))], "torch's lock of a dead process is gone before torch looks for it"
    assert "TORCH_EXTENSIONS_DIR" not in os.environ


def test_what_is_whole_is_loaded_and_not_built_again(folder, monkeypatch):
    asked, loaded = [], []

    def build():
        asked.append(folder)
        (folder / MODULE).touch()
        return "built"

    monkeypatch.setattr(compiled, "_load", lambda file: loaded.append(file) or "loaded")
    assert [compiled.shm_operator(build) for _ in range(3)] == ["built", "loaded", "loaded"]
    assert asked == [folder]
    assert loaded == [folder / MODULE] * 2


def test_half_a_file_is_not_loaded(folder, monkeypatch):
    def killed():
        (folder / MODULE).touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiled.shm_operator(killed)
    assert compiled.shm_operator(lambda: "built") == "built"


def test_installations_do_not_share_a_folder(folder, monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/another/.venv")
    assert compiled.place() != folder.parent
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/given")
    assert str(compiled.place()).startswith("/given/")
