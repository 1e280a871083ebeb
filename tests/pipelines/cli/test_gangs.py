"""What `strata up` says of gangs that come and go."""

from collections.abc import Collection

from actors.directory import Entry
from pipelines.cli.gangs import Watch


def entry(replica: str, *pids: int) -> Entry:
    return Entry("m", replica, "127.0.0.1", 1, "node", 128, 1024, pids[0], pids[1:], ((),), 0.0)


class World:
    """What is known and who is alive; `told` is what was said since it was last asked."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)
        self.dead: set[int] = set()
        self.asked = 0
        self.said: list[str] = []
        self.watch = Watch(self.known, lambda pid: pid not in self.dead, self.said.append)

    def known(self) -> Collection[Entry]:
        self.asked += 1
        return tuple(self.entries)

    def told(self) -> list[str]:
        self.said.clear()
        self.watch.look()
        return list(self.said)


def test_nothing_is_said_and_nobody_is_asked_while_all_is_well() -> None:
    world = World(entry("a", 1, 2, 3))
    assert world.told() == world.told() == []
    assert world.asked == 1


def test_a_loss_and_its_end_are_said_once_each() -> None:
    world = World(entry("a", 1, 2, 3), entry("b", 4, 5, 6))
    world.dead = {3}
    assert world.told() == ["m: a gang was lost (process 3 ended), a new one starts"]
    world.dead = {1, 2, 3}
    assert world.told() == []  # the directory names it until its silence is noticed
    world.entries = [entry("b", 4, 5, 6)]
    assert world.told() == []
    world.entries.append(entry("c", 7, 8, 9))
    assert world.told() == ["m: the new gang answers"]
    assert world.told() == []


def test_one_that_took_its_leave_is_no_loss() -> None:
    world = World(entry("a", 1, 2))
    world.dead, world.entries = {1, 2}, [entry("b", 3, 4)]
    assert world.told() == []
    world.dead = {3}
    assert world.told() == ["m: a gang was lost (process 3 ended), a new one starts"]


def test_whoever_went_along_is_named_too() -> None:
    world = World(entry("a", 1, 2, 3))
    world.dead = {1, 2}
    assert world.told() == ["m: a gang was lost (processes 2, 1 ended), a new one starts"]


def test_two_losses_are_two() -> None:
    world = World(entry("a", 1, 2), entry("b", 3, 4))
    world.dead = {2, 4}
    assert len(world.told()) == 2
    world.entries = [entry("c", 5, 6)]
    assert world.told() == ["m: the new gang answers"]
    world.entries.append(entry("d", 7, 8))
    assert world.told() == ["m: the new gang answers"]
