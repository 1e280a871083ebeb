"""What makes a deployment another one, and what does not."""

import os
from pathlib import Path
from typing import Any

import pytest

from actors.settings import ModelSettings
from cluster.settings import ClusterSettings
from pipelines import revision
from pipelines.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (made / name).write_text("{}")
    return made


def of_model(folder: Path, cluster: ClusterSettings | None = None, device: str = "cpu", **more: Any) -> str:
    model = ModelSettings.model_validate({"name": "a", "path": str(folder), **more})
    return revision.of_model(model, device, cluster or ClusterSettings())


def of_gateway(folder: Path, **more: Any) -> str:
    model = {"name": "a", "path": str(folder), **more.pop("model", {})}
    return revision.of_gateway(Settings.of({"models": [model, *more.pop("models", [])], **more}))


def test_the_same_is_the_same(folder: Path) -> None:
    assert of_model(folder) == of_model(folder)
    assert of_gateway(folder) == of_gateway(folder)
    (folder / "README.md").write_text("other words")
    assert of_model(folder) == of_model(folder, replicas=3)
    assert of_model(folder, ClusterSettings(ready_seconds=5)) == of_model(folder)


@pytest.mark.parametrize(
    "change", [{"tensor_parallel_size": 2}, {"quantization": "int8"}, {"limits": {"step_tokens": 99}}]
)
def test_a_changed_setting_is_another_gang_but_no_other_gateway(folder: Path, change: dict[str, Any]) -> None:
    assert of_model(folder) != of_model(folder, **change)
    assert of_gateway(folder) == of_gateway(folder, model=change)


def test_other_bounds_are_the_same_gang_and_gateway() -> None:
    """More or fewer of the same; but whether a gang has to say how it fares, and whether there may be none, counts."""
    folder = Path("nowhere")
    fixed, one, other, none = ({}, {"max": 3}, {"min": 2, "max": 9, "kv_used": 0.5}, {"min": 0, "max": 3})
    gangs = [of_model(folder, scaling=scaling or None) for scaling in (fixed, one, other, none)]
    assert gangs[0] != gangs[1] == gangs[2] == gangs[3]
    gateways = [of_gateway(folder, model={"scaling": scaling or None}) for scaling in (fixed, one, other, none)]
    assert gateways[1] == gateways[2]
    assert len(set(gateways)) == 3


def test_a_spare_gang_is_one_more_of_the_same_but_another_gateway(folder: Path) -> None:
    """Which has to know how many serve."""
    assert of_model(folder, spares=1) == of_model(folder)
    gateways = [of_gateway(folder, model=model) for model in ({}, {"spares": 1}, {"spares": 1, "replicas": 2})]
    assert len(set(gateways)) == 3
    assert gateways[0] == of_gateway(folder, model={"replicas": 2})


def test_another_device_or_patience_is_another_gang(folder: Path) -> None:
    assert (
        len({of_model(folder), of_model(folder, device="cuda"), of_model(folder, ClusterSettings(drain_seconds=1))})
        == 3
    )


def test_a_model_more_or_another_limit_is_another_gateway(folder: Path) -> None:
    others = {
        of_gateway(folder),
        of_gateway(folder, models=[{"name": "b", "path": str(folder)}]),
        of_gateway(folder, gateway={"messages": 9}),
        of_gateway(folder, cluster={"state_dir": str(folder)}),
    }
    assert len(others) == 4


@pytest.mark.parametrize(("file", "gateway_too"), [("model.safetensors", False), ("tokenizer.json", True)])
def test_files_that_were_exchanged_in_place_are_noticed(folder: Path, file: str, gateway_too: bool) -> None:
    gang, gateway = of_model(folder), of_gateway(folder)
    os.utime(folder / file, ns=(1, 1))
    assert of_model(folder) != gang
    assert (of_gateway(folder) != gateway) == gateway_too


def test_new_code_is_another_version_but_the_command_line_s_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "HOME", tmp_path)
    seen = []
    for file in ("actors/engine/loop.py", "pipelines/cli/up.py", "actors/engine/loop.py.orig", "actors/a.cpp"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
        revision.code.cache_clear()
        seen.append(revision.code("actors", "pipelines"))
    revision.code.cache_clear()
    assert seen[0] == seen[1] == seen[2] != seen[3]
