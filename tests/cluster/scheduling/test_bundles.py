import pytest
from ray.serve._private.config import ReplicaConfig
from ray.util.placement_group import validate_placement_group

from cluster.scheduling.bundles import bundles, exactly, together
from cluster.scheduling.inventory import GB, Node
from cluster.scheduling.packing import plan
from tests.cluster.scheduling.test_packing import machines, model


def accepted(deployed) -> None:
    """Ray's own checks of what a deployment is given; neither needs a cluster."""
    given = deployed.options()
    given.pop("num_replicas")
    ReplicaConfig.create("model", ray_actor_options={"num_cpus": 0}, **given)
    validate_placement_group(
        given["placement_group_bundles"],
        given["placement_group_strategy"],
        bundle_label_selector=given["placement_group_bundle_label_selector"],
    )


def test_each_node_of_a_model_gets_a_deployment_that_is_held_there():
    found = plan(machines(2), [model(degree=2, replicas=3, host_bytes=GB)])
    deployed = exactly(found.by_model["m"])
    assert [(each.replicas, each.strategy) for each in deployed] == [(2, "STRICT_PACK"), (1, "STRICT_PACK")]
    assert deployed[0].bundles == ({"CPU": 1.0, "GPU": 1.0, "memory": 1e9},) * 2
    assert deployed[0].selectors == ({"ray.io/node-id": "n0"},) * 2
    for each in deployed:
        accepted(each)


def test_one_deployment_is_kept_to_the_nodes_of_the_plan():
    deployed = together(plan(machines(3), [model(degree=8, replicas=2)]).by_model["m"])
    assert deployed.replicas == 2
    assert deployed.selectors == ({"ray.io/node-id": "in(n0, n1)"},) * 8
    accepted(deployed)
    alone = together(plan(machines(1), [model()]).by_model["m"])
    assert alone.selectors == ({"ray.io/node-id": "n0"},)
    accepted(alone)


def test_a_gang_over_nodes_names_the_node_of_each_shard():
    found = plan(machines(2, domain="rack"), [model(gigabytes=900, degree=12)]).by_model["m"]
    (deployed,) = exactly(found)
    assert deployed.strategy == "PACK"
    assert [each["ray.io/node-id"] for each in deployed.selectors] == ["n0"] * 8 + ["n1"] * 4
    accepted(deployed)
    with pytest.raises(ValueError, match="a deployment each"):
        together(found)


def test_a_share_of_a_device_and_cores_alone():
    shared = plan(machines(1), [model(gigabytes=20, shares=True, cores=0.5)]).by_model["m"][0]
    assert bundles(shared) == ({"CPU": 0.5, "GPU": 0.25},)
    cores = plan([Node("n0", 8, 64 * GB)], [model(degree=2, cores=3, kinds=("CPU",))]).by_model["m"][0]
    assert bundles(cores) == ({"CPU": 3.0, "memory": 5e9},) * 2


def test_gangs_of_two_kinds_do_not_fit_one_deployment():
    nodes = [*machines(1), Node("z", 8, 64 * GB)]
    found = plan(nodes, [model(degree=8, replicas=2, kinds=("GPU", "CPU"))]).by_model["m"]
    assert len(exactly(found)) == 2
    with pytest.raises(ValueError, match="a deployment each"):
        together(found)
    with pytest.raises(ValueError, match="no gangs"):
        together([])
