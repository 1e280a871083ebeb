"""What `build` does before anything is deployed; the application at work is in tests/system."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import ray
from ray import serve

from actors.replica import Replica
from actors.settings import ModelSettings
from cluster import runtime
from cluster.errors import Barred, ModelInvalid, PlacementImpossible, SettingsInvalid, Unavailable
from cluster.scheduling.placement import Node
from cluster.settings import ClusterSettings
from pipelines import app, placing, versions
from pipelines.cli import serving
from pipelines.settings import Settings
from pipelines.standing import Standing

FILE = "cluster: {http_port: 9001}\nmodels: [{name: mine, path: m, tensor_parallel_size: 2, device: cpu}]\n"


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What was asked of the cluster, which is not there: Ray says that it has one node of two cores."""
    calls: list[tuple[str, Any]] = []
    node = {"Alive": True, "NodeID": "0", "NodeManagerAddress": "127.0.0.1", "Resources": {"CPU": 2.0}, "Labels": {}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(runtime, "join", lambda cluster, python="": calls.append(("join", cluster.http_port)))
    monkeypatch.setattr(serve, "start", lambda **options: calls.append(("start", options["http_options"]["port"])))
    monkeypatch.setattr(app, "directory", lambda: calls.append(("directory", None)))
    monkeypatch.setattr(app, "demand", lambda: calls.append(("demand", None)))
    monkeypatch.setattr(app, "inspect", lambda models: None)
    monkeypatch.setattr(app, "free", lambda: [Node("127.0.0.1", node["Resources"])])
    monkeypatch.setattr(app, "_get_global_client", lambda **_: None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    return calls


@pytest.mark.parametrize("given", [None, {}])
def test_without_settings_the_file_and_the_environment_count(
    called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch, given: dict[str, Any] | None
) -> None:
    Path("strata.yaml").write_text(FILE)
    monkeypatch.setenv("STRATA_CLUSTER__HTTP_PORT", "9002")
    assert isinstance(app.build(given), serve.Application)
    assert called == [("join", 9002), ("start", 9002), ("directory", None)]
    assert [model.name for model in app.settle(given).models] == ["mine"]


def test_what_is_given_counts_alone(called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("strata.yaml").write_text("this: is not read")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    app.build({"models": [{"name": "a", "path": "m", "device": "cpu"}]})
    assert called == [("directory", None)]  # whoever is a driver already has joined and says where to answer
    settings = Settings(cluster=ClusterSettings(http_port=7))
    assert app.settle(settings) is settings
    with pytest.raises(SettingsInvalid):
        app.settle(None)


def test_a_gang_that_no_node_holds_is_refused_before_anything_is_deployed(
    called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    wide = {"models": [{"name": "wide", "path": "m", "tensor_parallel_size": 2, "shard_cpus": 2, "device": "cpu"}]}
    with pytest.raises(PlacementImpossible, match="wide needs 4 CPU on one node and there is"):
        app.build(wide)
    assert called == []
    monkeypatch.setattr(ray, "nodes", lambda: [
        {"Alive": True, "NodeManagerAddress": "h", "Resources": {}, "Labels": {"ray.io/node-group": "head"}}
    ])  # fmt: skip
    app.build(wide)  # an autoscaler may start a node that holds it
    assert called == [("directory", None)]


def test_replicas_that_would_gather_on_one_node_are_warned_of(
    called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    sizes = {"big": 16.0, "small": 2.0}
    monkeypatch.setattr(ray, "nodes", lambda: [
        {"Alive": True, "NodeID": "0", "NodeManagerAddress": name, "Resources": {"CPU": cores}, "Labels": {}}
        for name, cores in sizes.items()
    ])  # fmt: skip
    pair = {"models": [{"name": "pair", "path": "m", "replicas": 2, "device": "cpu"}]}
    app.build(pair)
    assert "pair: all 2 replicas may stand on one node" in caplog.text
    caplog.clear()
    sizes["small"] = 16.0
    app.build(pair)
    assert not caplog.text
    assert called


def test_what_is_bound_is_what_the_constructors_take(
    called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    gateway = app.build({"models": [{"name": "a", "path": "m", "device": "cpu"}]})._bound_deployment
    (model,) = gateway.init_args[1:]
    inspect.signature(app.Gateway.__init__).bind(None, *gateway.init_args)
    inspect.signature(Replica.__init__).bind(None, *model._bound_deployment.init_args)
    assert called


def options(application: serve.Application) -> dict[str, Any]:
    """Version and surge of each deployment, by its name."""
    gateway = application._bound_deployment
    deployments = [gateway, *(model._bound_deployment for model in gateway.init_args[1:])]
    return {each.name: (each.version, each._deployment_config.max_surge_percent) for each in deployments}


@pytest.mark.usefixtures("called")
def test_only_what_has_changed_has_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    models = [{"name": name, "path": "m", "device": "cpu"} for name in ("a", "b")]
    before = options(app.build({"models": models}))
    assert options(app.build({"models": models})) == before
    models[1]["quantization"] = "int8"
    after = options(app.build({"models": models}))
    assert {name for name in before if before[name] != after[name]} == {"model-b"}
    more = options(app.build({"models": [*models, {"name": "c", "path": "m", "device": "cpu", "shard_cpus": 1}][1:]}))
    assert more["model-b"] == after["model-b"]
    assert more["gateway"][0] != after["gateway"][0]


def test_a_model_that_scales_has_a_policy_and_somebody_to_ask(
    called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    one = {"name": "a", "path": "m", "device": "cpu"}
    gateway = app.build({"models": [{**one, "scaling": {"min": 0, "max": 2}}, {**one, "name": "b"}]})._bound_deployment
    assert called == [("directory", None), ("demand", None)]
    scaled, fixed = (model._bound_deployment._deployment_config for model in gateway.init_args[1:])
    bounds = scaled.autoscaling_config
    assert (bounds.min_replicas, bounds.max_replicas, bounds.initial_replicas) == (0, 2, 1)
    assert bounds.policy.policy_function == "pipelines.scaler.Scaler"
    assert (fixed.autoscaling_config, fixed.num_replicas) == (None, 1)


@pytest.mark.usefixtures("called")
def test_a_spare_gang_is_one_more_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    gateway = app.build({"models": [{"name": "a", "path": "m", "device": "cpu", "spares": 1}]})._bound_deployment
    (model,) = gateway.init_args[1:]
    assert model._bound_deployment._deployment_config.num_replicas == 2


@pytest.mark.usefixtures("called")
def test_spare_gangs_that_have_no_room_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(PlacementImpossible) as refused:  # two cores are there
        app.build({"models": [{"name": "a", "path": "m", "device": "cpu", "replicas": 2, "spares": 2}]})
    assert "set replicas and spares to 2 together" in str(refused.value)


@pytest.mark.usefixtures("called")
def test_serve_run_without_a_cluster_shows_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: object, python: str) -> None:
        raise Unavailable("the local cluster", "it is not up; run `strata up --detach`")

    monkeypatch.setattr(runtime, "join", nowhere)
    with pytest.raises(Unavailable):
        app.build({})
    with click.Context(click.Command("run")), pytest.raises(click.ClickException, match="strata up --detach"):
        app.build({})


def test_another_port_than_serve_answers_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(http_config=SimpleNamespace(port=8000))
    monkeypatch.setattr(app, "_get_global_client", lambda **_: there)
    started: list[object] = []
    monkeypatch.setattr(serve, "start", lambda **options: started.append(options))
    with pytest.raises(SettingsInvalid, match="answers on 8000"):
        app.answer(ClusterSettings(http_port=9000))
    assert started == []
    app.answer(ClusterSettings())
    assert len(started) == 1


@pytest.mark.usefixtures("called")
def test_models_are_looked_at_beforehand_where_something_could_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(app, "inspect", lambda models: looked.extend(model.name for model in models))
    app.build({"models": [{"name": "a", "path": "m", "device": "cpu"}]})
    assert looked == []
    there = {"applications": {"strata": {"deployments": {"gateway": {"deployment_config": {}, "status": "HEALTHY"}}}}}
    monkeypatch.setattr(app, "_details", lambda: there)
    app.build({"models": [{"name": "a", "path": "m", "device": "cpu"}]})
    assert looked == ["a"]


def test_models_with_versions_have_somebody_who_decides(
    called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [
        {"Alive": True, "NodeManagerAddress": "h", "Resources": {}, "Labels": {"ray.io/node-group": "head"}}
    ])  # fmt: skip
    models = [{"name": name, "path": "m", "device": "cpu"} for name in ("chat@v6", "chat@v7")]
    built = app.build({"models": models})
    assert built._bound_deployment.init_kwargs["control"]._bound_deployment.name == app.CONTROL
    bare = app.build({"models": [{**models[0], "name": "chat"}]})
    assert "control" not in bare._bound_deployment.init_kwargs


RELEASED = {"models": [{"name": "talk", "registry": "chat@prod"}], "routes": {"talk": {"release": {}}}}


@pytest.mark.usefixtures("called")
def test_a_release_replaces_only_the_settings_that_it_began_from(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, given, meanwhile = Settings.of(RELEASED), list[Any](), list[dict[str, Any]]()
    control = app._control(settings, Standing())._bound_deployment
    publish, runtime_env = control.init_kwargs["releaser"].deploy, control.ray_actor_options["runtime_env"]
    assert publish.args == (settings, control.version)

    def deployed(runtime_env: dict[str, Any]) -> dict[str, Any]:
        there = {"deployment_config": {"ray_actor_options": {"runtime_env": runtime_env}}, "status": "HEALTHY"}
        return {"applications": {"strata": {"deployments": {app.CONTROL: there}}}}

    def build(_: Settings) -> serve.Application:
        """Copies for minutes, in which somebody may deploy."""
        details.extend(meanwhile)
        return control.bind()

    details = [deployed(runtime_env)]
    monkeypatch.setattr(app, "_details", lambda: details[-1])
    for name in ("settle", "overlapping"):
        monkeypatch.setattr(app, name, lambda settings: settings)
    monkeypatch.setattr(app, "compose", build)
    monkeypatch.setattr(app, "answer", lambda _: None)
    monkeypatch.setattr(serving, "_controlled", lambda _: None)
    monkeypatch.setattr(serve, "run_many", lambda targets, **_: given.extend(targets))
    app._publish(*publish.args)
    assert len(given) == 1
    other = app._control(Settings.of({**RELEASED, "gateway": {"body_bytes": 1_000_000}}), Standing())
    meanwhile.append(deployed(other._bound_deployment.ray_actor_options["runtime_env"]))
    with pytest.raises(Barred, match="began from settings that another deploy has replaced meanwhile"):
        app._publish(*publish.args)
    meanwhile.append({})  # nothing is deployed any more
    with pytest.raises(Barred):
        app._publish(*publish.args)
    assert len(given) == 1


@pytest.mark.usefixtures("called")
def test_what_users_have_stays_beside_what_a_deploy_brings_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    origin = ModelSettings(name="talk", registry="chat@prod", device="cpu")
    pinned = [
        origin.model_copy(update={"name": f"talk@{version}"}).pinned(
            "chat@0", "d", "", "/cache", "m", None, origin, version
        )
        for version in ("v1", "v2")
    ]
    settings = Settings.of(RELEASED).model_copy(update={"models": (pinned[0],)})
    there = {"deployment_config": {"ray_actor_options": {}}, "status": "HEALTHY"}
    standing = {app.CONTROL: there, "model-talk-v2": there}
    monkeypatch.setattr(app, "_details", lambda: {"applications": {"strata": {"deployments": standing}}})
    monkeypatch.setattr(app, "_used", lambda models: [(model, version) for model in models for version in ("v1", "v2")])
    kept = settings.model_copy(update={"models": tuple(pinned)})
    asked: list[tuple[str, str]] = []

    def beside(_: Settings, model: str, version: str) -> Settings:
        asked.append((model, version))
        return kept

    monkeypatch.setattr(versions, "beside", beside)
    assert app.overlapping(settings) is kept
    assert asked == [("talk", "v2")]
    assert app.overlapping(kept) is kept, "what is served anyway is no more"
    assert not caplog.text
    monkeypatch.setattr(app, "free", lambda: [Node("127.0.0.1", {"CPU": 0.0})])
    assert app.overlapping(settings) is settings
    assert "talk: v2 ends before what replaces it answers: no room for both" in caplog.text
    standing[placing.deployment_name("talk@v1")] = there
    assert app.overlapping(settings) is kept, "what stands already needs no room"

    def altered(*_: object) -> Settings:
        raise ModelInvalid("chat@v2", "is signed by nobody who may", "sign it")

    monkeypatch.setattr(versions, "beside", altered)
    assert app.overlapping(settings) is settings
    assert "signed by nobody" in caplog.text
    del standing[app.CONTROL]
    assert app.overlapping(settings) is settings
