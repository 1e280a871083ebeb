"""What is refused while the old gang still answers."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from actors.settings import ModelSettings
from cluster.errors import ModelInvalid, StrataError
from pipelines import preflight
from pipelines.settings import HOME

STARTER = HOME / "models" / "starter"


def of(path: Path) -> list[ModelSettings]:
    return [ModelSettings(name="a", path=str(path))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The starter by links; a test breaks one file."""
    for file in STARTER.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def test_the_starter_passes(folder: Path) -> None:
    preflight.check(of(folder))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="nope: there is no such folder; set the path of model a"):
        preflight.check(of(tmp_path / "nope"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, "torn {"])
def test_a_file_that_is_missing_or_torn_is_found(folder: Path, name: str, content: str | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(StrataError):
        preflight.check(of(folder))


def test_an_architecture_that_cannot_be_served_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(StrataError):
        preflight.check(of(folder))


def test_a_tensor_that_is_missing_or_of_another_shape_is_found(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    lost = "model.layers.3.mlp.down_proj.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(ModelInvalid, match=f"the weights lack {lost}"):
        preflight.check(of(folder))
    save_file(weights | {lost: weights[lost][:-1].clone()}, folder / "model.safetensors")
    with pytest.raises(ModelInvalid, match=f"{lost} has shape .* config.json asks for"):
        preflight.check(of(folder))
    save_file(weights, folder / "model.safetensors")
    preflight.check(of(folder))
