"""What gangs need and whether there is room for more."""

from cluster.scheduling.placement import Gang, Node
from pipelines.room import at_once, holds, roomy


def test_a_new_gang_starts_beside_the_old_one_only_where_there_is_room() -> None:
    gangs = [Gang("a", {"CPU": 2.0}, 1), Gang("b", {"CPU": 1.0}, 4)]
    assert roomy(gangs, [Node("x", {"CPU": 3.0})])
    assert roomy(gangs, [Node("x", {"CPU": 2.0}), Node("y", {"CPU": 1.0})])
    assert not roomy(gangs, [Node("x", {"CPU": 2.0})])
    assert not roomy(gangs, [Node("x", {})])


def test_all_gangs_of_what_is_new_have_room_or_none_of_it_has() -> None:
    gangs = [Gang("a", {"CPU": 2.0}, 2), Gang("b", {"CPU": 1.0}, 0)]
    assert holds([], [])
    assert holds(gangs, [Node("x", {"CPU": 2.0}), Node("y", {"CPU": 3.0})])
    assert not holds(gangs, [Node("x", {"CPU": 3.0})])


def test_where_there_is_no_room_some_of_the_old_ones_end_however_many_are_to_come() -> None:
    for before in range(1, 40):
        for wanted in range(before, 80):
            replaced = max(1, int(at_once(before, wanted) * wanted))  # as Serve counts, of which these wait for room:
            ending = replaced - (wanted - before)
            assert 1 <= ending <= max(1, wanted // 5)
    assert at_once(0, 2) == 1.0
    assert at_once(0, 0) == 1.0
