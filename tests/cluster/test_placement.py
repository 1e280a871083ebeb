import pytest

from cluster.errors import PlacementImpossible
from cluster.scheduling.placement import Gang, Node, check, gathered, lands

PAIR = Gang("pair", {"CPU": 2}, 1)


def nodes(*cores: float) -> list[Node]:
    return [Node(f"n{index}", {"CPU": count, "memory": 1e9}) for index, count in enumerate(cores)]


@pytest.mark.parametrize(
    ("gangs", "cores"),
    [
        ([PAIR], (2,)),
        ([PAIR], (0, 1, 2)),
        ([Gang("a", {"CPU": 2}, 3)], (2, 5)),
        ([PAIR, Gang("other", {"CPU": 1}, 2)], (4,)),
        ([Gang("free", {"CPU": 0}, 9)], (0,)),
    ],
)
def test_what_fits_is_let_through(gangs: list[Gang], cores: tuple[float, ...]) -> None:
    check(gangs, nodes(*cores))


@pytest.mark.parametrize(
    ("gangs", "cores", "needs"),
    [
        ([PAIR], (1,), "2 CPU on one node"),
        ([PAIR], (1, 1), "2 CPU on one node"),  # two cores, but a gang stays on one node
        ([Gang("a", {"CPU": 2}, 2)], (3,), "2 times 2 CPU on one node"),
        ([Gang("a", {"CPU": 2, "GPU": 2}, 1)], (8,), "2 CPU and 2 GPU on one node"),
        ([PAIR, Gang("other", {"CPU": 1}, 1)], (2,), "3 CPU together"),
        ([PAIR], (), "2 CPU on one node"),
        # Six cores for six, and yet a pair leaves one of three that nobody can use.
        ([Gang("a", {"CPU": 2}, 2), PAIR], (3, 3), "2 CPU on one node beside all others"),
    ],
)
def test_what_can_never_be_placed_is_refused(gangs: list[Gang], cores: tuple[float, ...], needs: str) -> None:
    with pytest.raises(PlacementImpossible) as refused:
        check(gangs, nodes(*cores))
    assert refused.value.needs == needs


def test_the_refusal_names_model_nodes_and_remedy() -> None:
    with pytest.raises(PlacementImpossible) as refused:
        check([PAIR], [Node("10.0.0.1", {"CPU": 1}), Node("10.0.0.2", {"GPU": 4})])
    said = str(refused.value)
    assert said.startswith("pair needs 2 CPU on one node and there is 10.0.0.1: 1 CPU, 10.0.0.2: 4 GPU;")
    for word in ("tensor_parallel_size", "replicas", "shard_cpus", "add a node"):
        assert word in said


def test_a_thousand_nodes_take_a_line() -> None:
    with pytest.raises(PlacementImpossible) as refused:
        check([Gang("a", {"CPU": 64}, 1)], [*nodes(*[8] * 1000), Node("last", {"CPU": 16})])
    assert refused.value.there == "1000 nodes like n0: 8 CPU, last: 16 CPU"


@pytest.mark.parametrize(
    ("free", "name"),
    [
        ((4, 4, 2), "n0"),  # of equals the first
        ((2, 4, 3), "n1"),
        ((2, 2), "n0"),
        ((16, 64), "n1"),
        ((1, 1), None),
        ((), None),
    ],
)
def test_a_gang_lands_where_most_stays_free(free: tuple[float, ...], name: str | None) -> None:
    assert lands(PAIR, nodes(*free)) == name


@pytest.mark.parametrize(
    ("replicas", "free", "together"),
    [
        (2, (4, 4), False),  # both would fit on one
        (2, (8, 8, 8), False),
        (2, (4, 4, 2), False),
        (2, (16, 4), True),  # 14 of 16 free beat 2 of 4
        (9, (16, 16), False),
        (2, (4,), False),  # there is no other
        (1, (16, 4), False),
        (2, (2, 1), False),  # one of them waits
    ],
)
def test_replicas_gather_only_where_a_node_is_far_larger(
    replicas: int, free: tuple[float, ...], together: bool
) -> None:
    assert gathered(Gang("pair", {"CPU": 2}, replicas), nodes(*free)) is together
