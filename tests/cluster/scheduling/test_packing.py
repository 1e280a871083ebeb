import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scheduling.inventory import GB, Accelerators, Node
from cluster.scheduling.needs import Need
from cluster.scheduling.packing import plan
from cluster.scheduling.replan import replan
from cluster.scheduling.simulate import fleet, models
from tests.cluster.scheduling import fleets

EIGHT = Accelerators("GPU", "H100", 8, 80 * GB)


def machines(count: int, zones: str = "a", **given: object) -> list[Node]:
    return [
        Node(f"n{number}", 64, 1000 * GB, EIGHT, zones[number % len(zones)], **given)  # type: ignore[arg-type]
        for number in range(count)
    ]


def model(name: str = "m", gigabytes: float = 10, **given: object) -> Need:
    return Need(name, {"bfloat16": int(gigabytes * GB)}, "bfloat16", **given)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(fleets.nodes(), fleets.needs())
def test_every_plan_keeps_to_the_machines_and_refuses_only_what_cannot_be(nodes, needs):
    found = plan(nodes, needs)
    fleets.check(found, nodes, needs)
    assert bool(found.refused) is not fleets.possible(nodes, needs)
    for refused in found.refused:
        assert refused.proven
        assert refused.remedies


@settings(max_examples=60, deadline=None)
@given(fleets.nodes(5), fleets.needs(4), st.integers(0, 2), st.randoms())
def test_the_order_of_the_arguments_decides_nothing(nodes, needs, spare, chance: random.Random):
    found = plan(nodes, needs, spare)
    fleets.check(found, nodes, needs)
    again = plan(chance.sample(nodes, len(nodes)), chance.sample(needs, len(needs)), spare)
    assert (again.placed, again.refused, again.spare) == (found.placed, found.refused, found.spare)


@pytest.mark.parametrize("seed", range(3))
def test_a_large_fleet_keeps_to_its_machines_too(seed):
    nodes, needs = fleet(40), models(95, seed)
    found = plan(nodes, needs, 1)
    fleets.check(found, nodes, needs)
    assert len(found.placed) > 100


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 8), st.sampled_from(("a", "ab", "abc")))
def test_replicas_of_a_model_spread_over_nodes_and_zones(count, replicas, degree, zones):
    nodes = machines(count, zones)
    found = plan(nodes, [model(degree=degree, replicas=replicas)])
    placed = len(found.placed)
    assert placed == min(replicas, count * (8 // degree))
    zone = {node.name: node.zone for node in nodes}
    assert len(found.used) == min(placed, count)
    assert len({zone[name] for name in found.used}) == min(placed, count, len(zones))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_gang_stands_beside_its_sibling_while_another_node_has_room(data):
    needs = [
        model(f"m{number}", degree=data.draw(st.integers(1, 8)), replicas=data.draw(st.integers(1, 4)), cores=0)
        for number in range(data.draw(st.integers(1, 5)))
    ]
    found = plan(machines(6, "ab"), needs)
    free = {f"n{number}": 8 for number in range(6)}
    for gang in found.placed.values():
        free[gang.seats[0].node] -= gang.ask.shards
    for need in needs:
        homes = [gang.seats[0].node for gang in found.placed.values() if gang.model == need.model]
        if len(set(homes)) < len(homes) and not {gang.why.way for gang in found.placed.values()} - {"fits"}:
            assert not [name for name, left in free.items() if left >= need.degree and name not in homes]


def test_small_gangs_leave_a_whole_node_to_a_large_one():
    needs = [model(f"s{number}", degree=1) for number in range(8)] + [model("large", degree=8)]
    found = plan(machines(2), needs)
    assert not found.refused
    assert len(found.placed["large", 0].seats) == 1


def test_small_models_share_a_device_where_they_may():
    shared = [model(f"s{number}", 20, shares=True) for number in range(4)]
    found = plan(machines(1), shared)
    assert {gang.seats[0].devices for gang in found.placed.values()} == {(0,)}
    alone = plan(machines(1), [model(f"s{number}", 20) for number in range(4)])
    assert len({gang.seats[0].devices for gang in alone.placed.values()}) == 4


def test_a_gang_that_no_node_holds_spans_nodes_of_one_domain_only():
    nodes = [*machines(2, domain="rack-1"), Node("z", 64, 1000 * GB, EIGHT, domain="rack-2")]
    found = plan(nodes, [model(gigabytes=1000, degree=16)])
    assert [(seat.node, seat.shards) for seat in found.placed["m", 0].seats] == [("n0", 8), ("n1", 8)]
    assert plan(machines(2), [model(gigabytes=1000, degree=16)]).refused


def test_a_model_takes_the_first_kind_that_it_prefers_and_the_smallest_devices_that_suffice():
    small = Accelerators("GPU", "L4", 1, 24 * GB)
    nodes = [Node("cpu", 64, 900 * GB), Node("large", 64, 900 * GB, EIGHT), Node("small", 64, 900 * GB, small)]

    def home(gigabytes: float, *kinds: str) -> str:
        return plan(nodes, [model(gigabytes=gigabytes, kinds=kinds)]).placed["m", 0].seats[0].node

    assert home(10, "GPU") == "small"
    assert home(30, "GPU", "CPU") == "large"
    assert home(10, "CPU", "GPU") == "cpu"
    assert home(100, "GPU", "CPU") == "cpu"


def test_a_node_of_each_type_is_kept_for_failover_and_takes_what_a_lost_one_held():
    nodes, needs = machines(4, "ab"), [model(f"m{number}", degree=8) for number in range(3)]
    found = plan(nodes, needs, spare=1)
    assert len(found.spare) == 1
    assert not found.notes
    lost = found.placed["m1", 0].seats[0].node
    after = replan(found, [node for node in nodes if node.name != lost], needs, spare=1)
    assert after.placed["m1", 0].seats[0].node == found.spare[0]
    assert after.placed["m1", 0].why.way == "spare"
    assert after.notes == ("0 of 1 spare nodes are kept of 8 H100 of 80 GB: a lost node's gangs may not fit",)


def test_room_for_failover_is_given_up_before_a_model_is_refused():
    found = plan(machines(2), [model(f"m{number}", degree=8) for number in range(2)], spare=1)
    assert not found.refused
    assert found.notes


def test_the_important_is_placed_first():
    needs = [model("a", degree=8), model("z", degree=8, priority=1)]
    found = plan(machines(1), needs)
    assert list(found.placed) == [("z", 0)]
    assert found.refused[0].model == "a"
    assert found.refused[0].proven
