"""From settings and machines to a plan, to what Serve is told, and to why a gang waits."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.settings import ModelSettings
from cluster.errors import PlacementImpossible
from cluster.scheduling.inventory import GB
from pipelines import placing


def model(name: str = "m", **more: Any) -> ModelSettings:
    return ModelSettings.model_validate({"name": name, "path": "p", "device": "cpu", **more})


def row(name: str, cores: float = 4, **more: Any) -> dict[str, Any]:
    """One node as Ray tells of it."""
    labels = more.pop("labels", {})
    resources = {"CPU": cores, "memory": 1e9, **more}
    return {"Alive": True, "NodeID": f"id-{name}", "NodeManagerAddress": name, "Resources": resources, "Labels": labels}


def planned(rows: list[dict[str, Any]], *models: ModelSettings, spare: int = 0) -> list[str]:
    nodes = placing.machines(rows)
    made = placing.plan(nodes, [placing.need(each, each.device) for each in models], spare)
    return placing.notes(nodes, made, {each.name: each for each in models})


def test_nodes_that_shall_be_spare_and_are_not_are_told() -> None:
    rows = [row("a", 2), row("b", 2), row("c", 2)]
    wide = {"tensor_parallel_size": 2}
    assert planned(rows, model(replicas=2, **wide), spare=1) == []
    (said,) = planned(rows, model(replicas=3, **wide), spare=1)
    assert said == "0 of 1 spare nodes are kept of CPU alone: a lost node's gangs may not fit"


def test_nodes_are_called_by_their_addresses_and_by_more_where_those_are_shared() -> None:
    rows = [row("a"), row("b"), {**row("c"), "NodeManagerAddress": "b"}, {**row("d"), "Alive": False}]
    assert [node.name for node in placing.machines(rows)] == ["a", "b#id-b", "b#id-c"]


def test_what_is_free_is_what_counts_for_who_waits() -> None:
    rows = [row("a", 8, GPU=2, **{"accelerator_type:H100": 1}), row("b", 8)]
    nodes = placing.machines(rows, {"id-a": {"CPU": 3.0, "GPU": 1.0}})
    assert [(node.cores, node.accelerators and node.accelerators.count) for node in nodes] == [(3.0, 1), (0, None)]


@pytest.mark.parametrize(
    ("rows", "models", "says"),
    [
        (
            [row("a", 2), row("b", 2)],
            [model(tensor_parallel_size=4)],
            "m needs 4 CPU on one node and there is a and b (CPU alone): 2 and 2 CPU free; set tensor_parallel_size: 2",
        ),
        ([row("a", 2)], [model(replicas=3)], "set replicas: 2 or add 1 node like a (CPU alone)"),
        ([row("a", 2)], [model(placement={"labels": {"zone": "x"}})], "1 CPU on one node labelled zone=x"),
        (
            [row("a", 9, GPU=2, **{"accelerator_type:T4": 1})],
            [model(device="cuda", placement={"accelerators": ["H100"]})],
            "not of a type that it can use",
        ),
        ([], [model()], "there is no node; add a node that has 1 CPU"),
    ],
)
def test_what_can_never_stand_is_refused_with_what_would_help(
    rows: list[dict[str, Any]], models: list[ModelSettings], says: str
) -> None:
    with pytest.raises(PlacementImpossible) as refused:
        planned(rows, *models)
    assert says in str(refused.value)


def test_weights_too_large_for_a_gpu_are_refused_with_the_precision_that_fits(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(20 * GB)  # a hole: it takes no room
    rows = [row("a", 9, GPU=1, **{"accelerator_type:T4": 1})]
    large = model(device="cuda", path=str(tmp_path))
    assert placing.sizes(large) == {"": 20 * GB, "int8": 10 * GB, "int4": 5 * GB}
    with pytest.raises(
        PlacementImpossible, match=r"1 GPU with 20 GB each.*20 GB are too much for one; use int8 weights"
    ):
        planned(rows, large)
    assert planned(rows, large.model_copy(update={"quantization": "int8"})) == []
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"bits": 4}}))
    assert placing.sizes(large) == {"": 20 * GB}


def test_how_far_a_model_can_grow_is_said_before_it_has_to() -> None:
    rows = [row("a", 4), row("b", 4)]
    assert planned(rows, model(scaling={"max": 4}, tensor_parallel_size=2)) == []
    (note,) = planned(rows, model(scaling={"max": 9}, tensor_parallel_size=2), model("other", tensor_parallel_size=2))
    assert note == "m: of 9 gangs at most 3 have room; set scaling.max: 3 or add 3 nodes like a (CPU alone)"


def test_each_decision_is_explained() -> None:
    made = placing.plan(placing.machines([row("a"), row("b")]), [placing.need(model(replicas=2), "cpu")])
    said = placing.decisions(made)
    assert [line.partition(":")[0] for line in said] == ["m/0 on a", "m/1 on b"]


def test_serve_is_told_what_stays_true_when_a_node_is_lost() -> None:
    labels = {"topology.kubernetes.io/zone": "a"}
    assert placing.selector(model(), "cpu") == {}
    assert placing.selector(model(placement={"labels": labels}), "cpu") == labels
    for types, value in ((["H100"], "H100"), (["H100", "A100"], "in(H100, A100)")):
        placed = model(placement={"labels": labels, "accelerators": types})
        assert placing.selector(placed, "cuda") == {**labels, "ray.io/accelerator-type": value}
        assert placing.selector(placed, "cpu") == labels


def test_who_waits_hears_what_is_free_and_what_would_help() -> None:
    nodes = placing.machines([row("a", 4), row("b", 4)], {"id-a": {"CPU": 1.0}, "id-b": {"CPU": 2.0}})
    wide, narrow = placing.need(model("wide", tensor_parallel_size=3), "cpu", 2), placing.need(model("one"), "cpu", 1)
    said = placing.waiting(nodes, [wide, narrow])
    assert said[0].startswith("wide: 2 gangs wait for a place: each needs 3 CPU on one node; there is a ")
    assert "2 CPU" in said[0]
    assert said[0].endswith("or wait until something ends")
    assert said[1] == "one: 1 gang waits and has room by now: Ray places it within seconds"


def group(name: str, state: str = "CREATED") -> dict[str, Any]:
    return {"name": name, "state": state}


def test_ray_s_table_tells_who_waits() -> None:
    groups = [
        group("SERVE_REPLICA::strata#model-a#1", "PENDING"), group("SERVE_REPLICA::strata#model-a#2", "RESCHEDULING"),
        group("SERVE_REPLICA::strata#model-a#3"), group("SERVE_REPLICA::other#model-a#4", "PENDING"),
        group("SERVE_REPLICA::strata#model-b#5", "REMOVED"), group("a person's own", "PENDING"), group("", "PENDING"),
    ]  # fmt: skip
    assert placing.pending(groups) == {"model-a": 2}


def test_a_group_that_no_replica_owns_has_leaked() -> None:
    groups = [
        group("SERVE_REPLICA::strata#model-a#1"), group("SERVE_REPLICA::strata#model-a#2"),
        group("SERVE_REPLICA::strata#model-a#3", "REMOVED"), group("SERVE_REPLICA::other#model-a#4"), group("mine"),
        group("SERVE_REPLICA::strata#gone#1", "PENDING"),
    ]  # fmt: skip
    leaked = ["SERVE_REPLICA::strata#gone#1", "SERVE_REPLICA::strata#model-a#2"]
    assert placing.leaked(groups, {("model-a", "1")}) == leaked


@pytest.mark.parametrize(("device", "gpus", "says"), [("auto", 2, "cuda"), ("auto", 1, "cpu"), ("cuda", 0, "cuda")])
def test_a_model_uses_gpus_where_there_are_enough(device: str, gpus: float, says: str) -> None:
    assert placing.device_of(model(device=device, tensor_parallel_size=2), gpus) == says
