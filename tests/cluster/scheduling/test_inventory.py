import pytest

from cluster.scheduling.inventory import GB, Accelerators, of_ray


def row(resources: dict[str, float], labels: dict[str, str] | None = None, alive: bool = True) -> dict[str, object]:
    """As `ray.nodes()` of Ray 2.60 has it, of the fields those that are read."""
    return {"NodeID": "ab12", "Alive": alive, "Resources": resources, "Labels": labels}


def test_a_node_of_ray_is_read_with_its_zone_domain_and_devices():
    labels = {
        "ray.io/node-id": "ab12",
        "ray.io/accelerator-type": "H100",
        "ray.io/availability-zone": "eu-1a",
        "ray.io/gpu-domain": "rack-7",
    }
    (node,) = of_ray([row({"CPU": 64.0, "GPU": 8.0, "memory": 5e11}, labels)])
    assert (node.name, node.cores, node.memory) == ("ab12", 64, 500 * GB)
    assert (node.zone, node.domain) == ("eu-1a", "rack-7")
    assert node.accelerators == Accelerators("GPU", "H100", 8, 80 * GB)
    assert node.labels == labels


@pytest.mark.parametrize(
    ("resources", "labels", "devices"),
    [
        ({"CPU": 4}, None, None),
        ({"GPU": 2, "accelerator_type:L4": 1}, {}, Accelerators("GPU", "L4", 2, 24 * GB)),
        ({"NPU": 8}, {"ray.io/accelerator-type": "Ascend910B"}, Accelerators("NPU", "Ascend910B", 8, 64 * GB)),
        ({"TPU": 4}, {"ray.io/accelerator-type": "TPU-V9"}, Accelerators("TPU", "TPU-V9", 4, 0)),
        ({"GPU": 1}, {"strata/accelerator-memory-gb": "20"}, Accelerators("GPU", "", 1, 20 * GB)),
        ({"GPU": 1}, {"strata/accelerator-memory-gb": "much"}, Accelerators("GPU", "", 1, 0)),
    ],
)
def test_devices_come_from_resources_and_labels(resources, labels, devices):
    assert of_ray([row(resources, labels)])[0].accelerators == devices


def test_a_dead_node_is_none():
    assert of_ray([row({"CPU": 4}, alive=False)]) == ()
