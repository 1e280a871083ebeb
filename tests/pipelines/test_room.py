"""What gangs need and whether there is room for more."""

from cluster.scheduling.placement import Gang, Node
from pipelines.room import roomy


def test_a_new_gang_starts_beside_the_old_one_only_where_there_is_room() -> None:
    gangs = [Gang("a", {"CPU": 2.0}, 1), Gang("b", {"CPU": 1.0}, 4)]
    assert roomy(gangs, [Node("x", {"CPU": 3.0})])
    assert roomy(gangs, [Node("x", {"CPU": 2.0}), Node("y", {"CPU": 1.0})])
    assert not roomy(gangs, [Node("x", {"CPU": 2.0})])
    assert not roomy(gangs, [Node("x", {})])
