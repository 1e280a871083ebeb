"""From a version's name in the settings to the version that is served."""

from pathlib import Path
from typing import Any

import pytest
import torch

from actors import copied
from actors.registry.aliases import Aliases
from actors.registry.desk import Desk
from actors.registry.merging import Strategy
from actors.registry.registry import Registry
from actors.registry.requests import Requirements
from actors.settings import Pinned
from cluster.errors import InvalidRequest, NotFound, SettingsInvalid, Unavailable
from cluster.settings import ClusterSettings
from pipelines import revision, versions
from pipelines.settings import Settings
from tests.actors.registry.conftest import write_model


def settings(tmp_path: Path, **model: Any) -> Settings:
    cluster = {"state_dir": str(tmp_path / "state")}
    return Settings.of({"cluster": cluster, "models": [{"name": "chat", **(model or {"registry": "chat@prod"})}]})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two versions, of which v1 is prod."""
    made = Registry(tmp_path / "state" / "registry")
    for value in (1.0, 2.0):
        write_model(tmp_path / "model", {"a": torch.full((8,), value)})
        made.push("chat", tmp_path / "model", author="ada")
    Aliases(made).move("chat", "prod", "v1", author="ada")
    return made


def digests(found: Settings) -> tuple[str, str]:
    return revision.of_model(found.models[0], "cpu", ClusterSettings()), revision.of_gateway(found)


def test_a_deploy_serves_what_the_alias_is_at_then(tmp_path: Path, registry: Registry) -> None:
    asked = settings(tmp_path)
    found = versions.pinned(asked)
    (model,) = found.models
    assert isinstance(model, Pinned)
    commit = registry.show("chat", "v1").entry.id
    assert model.registry == f"chat@{commit}"
    assert model.told == {"registry": "chat@prod", "version": "v1", "commit": commit, "digest": model.manifest}
    assert Path(model.path, "model.safetensors").is_file()
    Aliases(registry).move("chat", "prod", "v2", "v1", author="ada")
    assert versions.pinned(found) is found
    copied.ensure(model)
    assert digests(versions.pinned(found)) == digests(found)
    rolled = versions.pinned(asked)
    assert rolled.models[0].path != model.path
    gang, gateway = digests(found)
    assert digests(rolled)[0] != gang
    assert digests(rolled)[1] == gateway, "with the tokenizer as it was the gateway need not start anew"


def test_a_version_that_users_have_is_served_as_it_was_beside_the_one_that_the_alias_is_at(
    tmp_path: Path, registry: Registry
) -> None:
    asked = settings(tmp_path, registry="chat@prod").model_dump(mode="json")
    asked["routes"] = {"chat": {"release": {}}}
    declared = Settings.of({name: asked[name] for name in ("cluster", "routes")} | {"models": [
        {"name": "chat", "registry": "chat@prod"}
    ]})  # fmt: skip
    before = versions.pinned(declared)
    Aliases(registry).move("chat", "prod", "v2", "v1", author="ada")
    after = versions.beside(versions.pinned(declared), "chat", "v1")
    assert [model.name for model in after.models] == ["chat@v2", "chat@v1"]
    assert after.routed == {"chat": ("v2", "v1")}
    old = [revision.of_model(each.models[-1], "cpu", ClusterSettings()) for each in (before, after)]
    assert old[0] == old[1], "its gangs stay"
    assert versions.declared(after) == declared
    with pytest.raises(NotFound, match="v9"):
        versions.beside(after, "chat", "v9")


def test_a_deploy_of_the_same_version_is_no_change(tmp_path: Path, registry: Registry) -> None:
    found = versions.pinned(settings(tmp_path))
    assert digests(versions.pinned(settings(tmp_path))) == digests(found)
    assert digests(versions.pinned(settings(tmp_path, registry="chat@v1"))) == digests(found)


def test_a_copy_that_is_gone_is_made_where_it_is_needed(tmp_path: Path, registry: Registry) -> None:
    (model,) = versions.pinned(settings(tmp_path)).models
    folder = Path(model.path)
    folder.rename(tmp_path / "away")
    copied.ensure(model)
    assert folder.is_dir()


@pytest.mark.parametrize("model", [{"path": "a", "registry": "b"}, {}, {"path": ""}, {"registry": ""}])
def test_a_model_is_a_folder_or_a_version(model: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid, match=r"models\.0.*(one of the two|registry)"):
        Settings.of({"models": [{"name": "chat", **model}]})


@pytest.mark.parametrize(
    ("version", "error", "said"),
    [
        ("chat@canary", NotFound, "no version, alias or branch chat@canary; there is v1-v2, main, prod"),
        ("talk@prod", NotFound, "no model talk; there is chat"),
        ("../x@prod", InvalidRequest, "registry of chat: ../x is not accepted"),
        ("chat@", InvalidRequest, "after the @ stands"),
    ],
)
def test_a_version_that_is_none(
    tmp_path: Path, registry: Registry, version: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said.replace(".", r"\.")):
        versions.pinned(settings(tmp_path, registry=version))


def test_a_folder_needs_no_registry(tmp_path: Path) -> None:
    asked = settings(tmp_path, path="x")
    assert versions.pinned(asked) is asked
    assert not (tmp_path / "state").exists()


def test_a_registry_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    asked = Settings.of({"registry": {"folder": str(tmp_path / "file")}})
    with pytest.raises(Unavailable, match=r"the registry in .*/file is unavailable: .*; set registry\.folder"):
        versions.registry_of(asked)


def released(tmp_path: Path, **more: Any) -> Settings:
    return Settings.of(
        {
            "cluster": {"state_dir": str(tmp_path / "state")},
            "models": [{"name": "talk", "registry": "chat@prod"}],
            "routes": {"talk": {"release": more}},
        }
    )


def test_what_is_released_is_served_beside_who_is_live(tmp_path: Path, registry: Registry) -> None:
    asked = released(tmp_path)
    alone = versions.pinned(asked)
    assert [model.name for model in alone.models] == ["talk@v1"], "v2 was pushed and not merged"
    desk = Desk(registry, Requirements(0))
    registry.branch("chat", "tuned", "v1")
    write_model(tmp_path / "model", {"a": torch.full((8,), 5.0)})
    registry.push("chat", tmp_path / "model", author="ada", branch="tuned")
    number = desk.open("chat", "tuned", "Better", author="ada", strategy=Strategy("theirs"))
    version = desk.merge("chat", number, principal="bob").version
    both = versions.pinned(asked)
    assert both.routed == {"talk": ("v1", version)}
    assert [Path(model.path).is_dir() for model in both.models] == [True, True]
    assert versions.declared(both) == asked
    assert versions.pinned(versions.declared(both)).routed == both.routed
    first, again = (revision.of_model(made.models[0], "cpu", ClusterSettings()) for made in (alone, both))
    assert first == again, "who is live does not start anew"
    assert revision.of_control(alone) != revision.of_control(both)


@pytest.mark.parametrize(
    ("model", "route", "key"),
    [
        ({"name": "talk", "path": "m"}, {"release": {}}, "routes.talk.release"),
        ({"name": "talk", "registry": "chat"}, {"release": {}}, "routes.talk.release"),
        ({"name": "talk@v1", "registry": "chat@prod"}, {"release": {}}, "routes.talk.release"),
        ({}, {"release": {"on": "prod"}}, "routes.talk.release.on"),
        ({}, {"release": {}, "weights": {"base": 100}}, "routes.talk.release"),
        ({}, {"release": {"steps": [5, 1]}}, "routes.talk.release.steps"),
        ({}, {"release": {"steps": []}}, "routes.talk.release.steps"),
        ({}, {"release": {"abort_if": ["speed > 1"]}}, "routes.talk.release.abort_if[0]"),
        ({}, {"release": {"abort_if": ["eval.sums < baseline"]}}, "routes.talk.release.abort_if[0]"),
        ({}, {"release": {"every": "10m"}}, "routes.talk.release.every"),
    ],
)
def test_a_release_that_cannot_be_is_refused(model: dict[str, Any], route: dict[str, Any], key: str) -> None:
    models = [model or {"name": "talk", "registry": "chat@prod"}]
    with pytest.raises(SettingsInvalid) as wrong:
        Settings.of({"models": models, "routes": {"talk": route}})
    assert wrong.value.key == key
