from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scheduling.bounds import bins, by_kind
from cluster.scheduling.packing import plan
from tests.cluster.scheduling.test_packing import machines, model


def fewest(sizes: list[int], capacity: int) -> int:
    """The true number of bins: everything is tried."""

    def fits(left: list[int], free: list[int]) -> bool:
        if not left:
            return True
        return any(
            fits(left[1:], [*free[:place], free[place] - left[0], *free[place + 1 :]])
            for place in {room: place for place, room in enumerate(free) if room >= left[0]}.values()
        )

    return next(count for count in range(len(sizes) + 1) if fits(sorted(sizes, reverse=True), [capacity] * count))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 10), max_size=7))
def test_the_bound_is_never_above_the_truth_nor_below_the_volume(sizes):
    assert -(-sum(sizes) // 10) <= bins(sizes, 10) <= fewest(sizes, 10)


def test_it_sees_more_than_the_volume():
    assert bins([6] * 5, 10) == 5
    assert bins([7, 7, 7, 4, 4, 4], 10) == 5  # 33 in all; no four fits beside a seven, and two of them fill a bin
    assert bins([], 10) == 0


def test_the_plan_is_compared_by_type_of_machine():
    nodes = machines(4)
    found = plan(nodes, [model(f"m{number}", degree=5) for number in range(3)])
    assert by_kind(found, nodes) == {"8 x H100 80 GB": (3, 3)}
