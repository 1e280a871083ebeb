"""What transformers finds in its own sources is found once, and is the same the second time."""

import subprocess
import sys

import pytest

from actors.models import catalogue

SOME = {"llama": {frozenset({"torch"}): {"modeling_llama": {"LlamaModel"}}}}
IMPORTS = """
import sys
from pathlib import Path
from actors.models import catalogue
catalogue.CACHE = Path(sys.argv[1])
import transformers.models.auto.modeling_auto as auto
import transformers
print(len(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), transformers.LlamaConfig.model_type, len(transformers._objects))
print(sorted(sys.modules["transformers"]._class_to_module.items()))
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "CACHE", tmp_path / "cache")
    folder = tmp_path / "transformers" / "models"
    (folder / "llama").mkdir(parents=True)
    return folder


def test_models_are_read_once(models):
    asked = []
    read = catalogue.remembered(lambda where: asked.append(where) or SOME)
    assert [read(models), read(models / "__init__.py")] == [SOME, SOME]
    assert asked == [models]
    read(models / "llama")
    assert asked == [models, models / "llama"], "a part is read as ever"


def test_another_release_is_read_anew(models, monkeypatch):
    asked = []
    read = catalogue.remembered(lambda where: asked.append(where) or SOME)
    read(models)
    monkeypatch.setattr(catalogue.importlib.metadata, "version", lambda name: "0.0")
    read(models)
    assert len(asked) == 2


@pytest.mark.parametrize("spoilt", [b"", b"half", b"\xff" * 9])
def test_a_spoilt_file_is_replaced(models, spoilt):
    file = catalogue.place(models)
    file.parent.mkdir()
    file.write_bytes(spoilt)
    assert catalogue.remembered(lambda where: SOME)(models) == SOME
    assert catalogue.remembered(never)(models) == SOME


def test_a_cache_that_cannot_be_written_is_done_without(models, monkeypatch):
    monkeypatch.setattr(catalogue, "CACHE", models / "file" / "in the way")
    (models / "file").touch()
    assert catalogue.remembered(lambda where: SOME)(models) == SOME


def never(where):
    raise AssertionError("it is in the cache")


def test_transformers_itself_keeps_it_and_knows_the_same(tmp_path):
    said = [
        subprocess.run([sys.executable, "-c", IMPORTS, tmp_path], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert len(list(tmp_path.iterdir())) == 1
    assert "LlamaConfig" in said[0]
