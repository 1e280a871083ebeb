from collections import Counter

import pytest

from cluster.errors import InvalidRequest
from pipelines.chaos.faults import CONTROLLER, HARMLESS, KINDS, NODE, Gang, Sight, Target, aim, named, order

A = Gang("m", "m#a", "one", 10, (11, 12))
B = Gang("m", "m#b", "two", 20, (21, 22))
C = Gang("other", "other#c", "two", 30, (31,))
SHARD, LEADER, STORE = KINDS["kill-shard"], KINDS["freeze-leader"], KINDS["kill-store"]


def test_a_seed_gives_the_same_order_in_which_every_kind_has_its_share() -> None:
    kinds = named(HARMLESS)
    assert order(kinds, 50, 3) == order(kinds, 50, 3) != order(kinds, 50, 4)
    shares = Counter({kind: kind.share for kind in kinds})
    whole = sum(shares.values())
    assert Counter(order(kinds, 5 * whole, 1)) == Counter({kind: 5 * share for kind, share in shares.items()})


def test_a_kind_that_there_is_not_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"kinds: kill-cat is not accepted; one of kill-shard"):
        named(["kill-cat"])


@pytest.mark.parametrize("roll", range(8))
def test_a_process_of_a_gang_is_struck_and_the_gang_known_as_lost(roll: int) -> None:
    shard, leader = aim(SHARD, Sight((A, B)), 1, roll), aim(LEADER, Sight((A, B)), 1, roll)
    assert shard is not None
    assert (shard.pid, shard.gangs) in [(pid, (gang.replica,)) for gang in (A, B) for pid in gang.shards]
    assert leader is not None
    assert (leader.pid, leader.node, leader.gangs) in [(10, "one", ("m#a",)), (20, "two", ("m#b",))]


def test_whoever_is_the_last_of_its_model_is_spared() -> None:
    assert aim(SHARD, Sight((A,)), 1, 0) is None
    assert aim(SHARD, Sight((A,)), 0, 0) is not None
    assert {aim(SHARD, Sight((A, B, C)), 1, roll).gangs for roll in range(9)} == {("m#a",), ("m#b",)}  # type: ignore[union-attr]


def test_a_node_takes_all_its_gangs_along_and_one_without_is_left_alone() -> None:
    node = KINDS["kill-node"]
    one, two = Target(NODE, 0, "one", ("m#a",)), Target(NODE, 0, "two", ("m#b", "other#c"))
    assert aim(node, Sight((A, B, C), (one, two, Target(NODE, 0, "three"))), 1, 5) == one
    assert aim(node, Sight((A, B, C), (one, two)), 0, 1) == two


def test_a_controller_is_there_or_it_is_not() -> None:
    controller = Target(CONTROLLER, 5, "one")
    assert aim(KINDS["kill-controller"], Sight((), (controller,)), 1, 9) == controller
    assert aim(STORE, Sight((A, B), (controller,)), 1, 0) is None
