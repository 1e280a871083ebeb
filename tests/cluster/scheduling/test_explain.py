import pytest

from cluster.scheduling import explain
from cluster.scheduling.inventory import GB, Node
from cluster.scheduling.needs import Need
from cluster.scheduling.packing import plan
from cluster.scheduling.plan import Refused
from cluster.scheduling.simulate import fleet
from tests.cluster.scheduling.test_packing import EIGHT, machines, model


def refused(nodes, *needs: Need) -> Refused:
    (only,) = plan(nodes, needs).refused
    return only


def test_a_refusal_says_what_it_needs_what_is_free_and_what_would_make_it_fit():
    said = str(refused(machines(2), model("a", 400, degree=6, replicas=2), model("b", 400, degree=4)))
    assert said == (
        "b: 1 gang cannot be placed: each needs 4 GPU with 100 GB each on one node; there is "
        "n0 and n1 (8 H100 of 80 GB): 100 GB are too much for one; add a node that has "
        "4 GPU with 100 GB each"
    )


def test_what_is_free_is_told_node_by_node_where_they_are_few():
    only = refused(machines(2), model("a", degree=6, replicas=2), model("b", 200, degree=4))
    assert only.there == "n0 and n1 (8 H100 of 80 GB): 2 and 2 GPU free"
    assert only.remedies == ("add 1 node like n0 (8 H100 of 80 GB)",)
    assert only.proven  # every arrangement of three gangs was tried


def test_the_remedies_that_help_are_told_and_only_those():
    a = model("a", degree=6, replicas=2)
    assert refused(machines(2), a, model("b", 100, degree=4)).remedies[0] == "set tensor_parallel_size: 2"
    big = Need("b", {"bfloat16": 300 * GB, "int8": 150 * GB, "int4": 75 * GB}, "bfloat16", degree=2)
    assert refused(machines(2), a, big).remedies == (
        "use int8 weights",
        "add a node that has 2 GPU with 150 GB each",
    )
    assert refused(machines(1), model("c", degree=8, replicas=3)).remedies == (
        "set tensor_parallel_size: 2",
        "set replicas: 1",
        "add 2 nodes like n0 (8 H100 of 80 GB)",
    )


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (model(kinds=("NPU",)), "not of a kind that it can use"),
        (model(accelerators=("H200",)), "not of a type that it can use"),
        (model(labels={"disk": "ssd"}), "without its labels"),
        (model(gigabytes=90), "90 GB are too much for one"),
        (model(degree=9), "too few for 9 and no fast interconnect between nodes"),
    ],
)
def test_a_type_that_can_never_hold_it_says_why(need, reason):
    assert refused(machines(1), need).there == f"n0 (8 H100 of 80 GB): {reason}"


def test_a_gang_that_needs_cores_says_that_they_are_short():
    node = Node("n0", 4, 900 * GB, EIGHT)
    only = refused([node], model(degree=8))
    assert only.there == "n0 (8 H100 of 80 GB): 8 GPU free, but not what it needs beside GPU"
    assert only.remedies[0] == "set tensor_parallel_size: 4"


def test_a_gang_that_would_span_nodes_asks_for_nodes_of_one_domain():
    only = refused(machines(1, domain="rack"), model(gigabytes=1000, degree=16))
    assert only.remedies[-1] == "add 2 nodes in a domain of 2 (8 H100 of 80 GB)"


def test_a_cpu_model_is_told_in_cores():
    only = refused([Node("n0", 4, 64 * GB)], model("a", 10, degree=2, cores=4, kinds=("CPU",)))
    assert only.needs == "8 CPU and 10 GB of memory on one node"
    assert only.there == "n0 (CPU alone): 4 CPU free"


def test_no_node_at_all_is_said():
    assert refused([], model()).there == "no node"


def test_a_thousand_nodes_take_a_line():
    only = plan(fleet(1000), [model(degree=9)]).refused[0]
    assert len(str(only)) < 400
    assert "700 nodes like n00000 (8 H100 of 80 GB): too few for 9" in only.there


def test_what_is_kept_spare_is_told():
    nodes = machines(5)
    only = plan(nodes, [model("a", degree=8, replicas=5), model("b", 1000, degree=16)], spare=1)
    assert only.refused[0].model == "b"
    assert only.notes


def test_a_decision_says_why_the_gang_stands_there():
    found = plan(machines(2, "ab"), [model("a", degree=6, replicas=2), model("s", 20, shares=True)])
    assert explain.decision(found.placed["a", 1]) == (
        "a/1 on n1: the fullest that has room; none of the model on it, none in its zone before; 2 GPU stay free there"
    )
    assert explain.decision(found.placed["s", 0]).startswith("s/0 on n0, 25% of GPU 6: ")
    wide = plan(machines(2, domain="rack"), [model("w", 1000, degree=16)])
    assert explain.decision(wide.placed["w", 0]).startswith("w/0 on 8 GPU of n0 and 8 GPU of n1: ")
