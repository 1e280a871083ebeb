"""What is due to be released, and what becomes of stages and of the alias."""

import pytest
import torch

from actors.registry.aliases import Aliases
from actors.registry.candidates import AUTHOR, Candidate, Candidates
from actors.registry.desk import Desk
from actors.registry.registry import Registry
from actors.registry.requests import Requirements
from actors.registry.stages import Stage, Stages
from cluster.errors import Conflict, NotFound
from tests.actors.registry.conftest import write_model


class World:
    """A registry with a model, and ways to make more of it."""

    def __init__(self, registry: Registry, folder, model: str = "chat") -> None:
        self.registry, self.folder, self.model, self.made = registry, folder, model, 0
        self.desk, self.aliases = Desk(registry, Requirements(0)), Aliases(registry)
        self.stages, self.candidates = Stages(registry), Candidates(registry)

    def push(self, branch: str = "main") -> str:
        self.made += 1
        write_model(self.folder / "model", {"a": torch.full((8,), float(self.made))})
        return self.registry.push(self.model, self.folder / "model", author="ada", branch=branch).version

    def merge(self) -> tuple[str, int]:
        """One more version in main, by a merge request."""
        branch = f"b{self.made}"
        self.push(branch)
        number = self.desk.open(self.model, branch, "Better", author="ada")
        return self.desk.merge(self.model, number, principal="bob").version, number

    def next(self, on: str = "main") -> Candidate | None:
        return self.candidates.next(self.model, "prod", on)


@pytest.fixture
def world(registry: Registry, tmp_path) -> World:
    made = World(registry, tmp_path)
    made.push()
    made.aliases.move("chat", "prod", "v1", author="ada")
    return made


def test_what_was_merged_is_due_and_what_was_pushed_is_not(world):
    assert world.next() is None
    world.push()
    assert world.next() is None, "who may push may not release"
    version, number = world.merge()
    assert world.candidates.served("chat", "prod", "main") == ("v1", version)
    assert world.next() == Candidate(version, world.registry.show("chat", version).entry.id, number)
    assert world.next().cause == f"!{number}"


def test_what_an_alias_is_moved_to_is_due(world):
    world.push()
    world.aliases.move("chat", "next", "v1", author="ada")
    assert world.next("next") is None
    world.aliases.move("chat", "next", "v2", "v1", author="ada")
    assert world.next("next").cause == "an alias at v2"


def test_a_model_without_the_alias_is_told_so(world):
    with pytest.raises(NotFound, match="no alias chat@beta; there is prod"):
        world.candidates.next("chat", "beta", "main")
    world.registry.remove("chat", "prod")
    remedy = "no alias chat@prod; there is none: `strata models alias chat@VERSION prod` makes it"
    with pytest.raises(NotFound, match=remedy):
        world.candidates.live("chat", "prod")


def test_a_release_that_goes_well(world):
    version, number = world.merge()
    world.stages.move("chat", "v1", Stage.CANDIDATE, author="ada")
    world.stages.move("chat", "v1", Stage.CANARY, author="ada")
    world.stages.move("chat", "v1", Stage.LIVE, author="ada")
    for _ in range(2):
        world.candidates.begin("chat", version, f"!{number}")
        assert world.stages.of("chat", version) is Stage.CANARY
        assert world.next().version == version, "it goes on"
    for _ in range(2):
        world.candidates.release("chat", "prod", "v1", version, f"!{number}")
        assert world.candidates.live("chat", "prod") == version
        assert world.stages.all("chat") == {"v1": Stage.RETIRED, version: Stage.LIVE}
        assert world.next() is None
    (entry, move), *_ = world.aliases.log("chat", "prod")
    assert (entry.author, entry.message, move.back) == (AUTHOR, f"Release !{number}", False)


def test_one_that_is_taken_back_is_not_released_again_and_the_next_is(world):
    version, number = world.merge()
    world.candidates.begin("chat", version, f"!{number}")
    for _ in range(2):
        world.candidates.take_back("chat", version, f"!{number}", "error_rate > 0.01")
        assert world.stages.of("chat", version) is Stage.CANDIDATE
        assert world.candidates.live("chat", "prod") == "v1"
        assert world.next() is None
    assert world.stages.log("chat", version) == [Stage.CANDIDATE, Stage.CANARY, Stage.CANDIDATE]
    after, _ = world.merge()
    assert world.next().version == after


def test_an_alias_that_somebody_has_moved_stays(world):
    version, number = world.merge()
    other = world.push()
    world.aliases.move("chat", "prod", other, "v1", author="ada")
    with pytest.raises(Conflict):
        world.candidates.release("chat", "prod", "v1", version, f"!{number}")
    assert world.candidates.live("chat", "prod") == other


def test_what_the_live_one_comes_from_is_never_due(world):
    world.merge()
    latest, _ = world.merge()
    world.aliases.move("chat", "prod", latest, "v1", author="ada")
    world.aliases.move("chat", "next", "v1", author="ada")
    assert world.next("next") is None
    assert world.next() is None


def test_stages_follow_an_alias_that_people_move(world):
    settle, stages = world.candidates.settle, world.stages
    settle("chat", "prod")
    assert stages.all("chat") == {"v1": Stage.LIVE}
    version, number = world.merge()
    world.candidates.begin("chat", version, f"!{number}")
    world.candidates.release("chat", "prod", "v1", version, f"!{number}")
    assert stages.all("chat") == {"v1": Stage.RETIRED, version: Stage.LIVE}
    world.aliases.rollback("chat", "prod", None, author="ada")
    for _ in range(2):
        settle("chat", "prod")
        assert stages.all("chat") == {"v1": Stage.LIVE, version: Stage.RETIRED}
    assert world.next() is None, "what was released once is not due again"
    count = len(stages.log("chat", "v1"))
    settle("chat", "prod")
    assert len(stages.log("chat", "v1")) == count, "nothing is written where nothing changes"


def test_a_stage_that_somebody_has_set_stays(world):
    world.stages.move("chat", "v1", Stage.RETIRED, author="ada")
    world.candidates.settle("chat", "prod")
    assert world.stages.all("chat") == {"v1": Stage.RETIRED}


def test_what_another_alias_is_at_stays_live(world):
    world.candidates.settle("chat", "prod")
    other = world.push()
    world.aliases.move("chat", "beta", other, author="ada")
    world.candidates.settle("chat", "beta")
    world.candidates.settle("chat", "prod")
    assert world.stages.all("chat") == {"v1": Stage.LIVE, other: Stage.LIVE}


def test_a_branch_holds_again_what_is_live_unless_more_came(world):
    version, number = world.merge()
    pushed = world.push("other")
    assert not world.candidates.restore("chat", pushed, "prod", "main", "by ann"), "main is elsewhere"
    made = world.candidates.restore("chat", version, "prod", "main", f"!{number}")
    entry = world.registry.show("chat", "main").entry
    assert (world.registry.number("chat", "main"), entry.author) == (made, AUTHOR)
    assert entry.message == f"Take !{number} back: main holds what v1 does again"
    difference = world.registry.diff("chat", "v1", made)
    assert not (difference.added or difference.removed or difference.changed)
    assert not world.candidates.restore("chat", version, "prod", "main", f"!{number}"), "once"
    assert world.next() is None
    world.merge()
    late, _ = world.merge()
    assert world.next().version == late
    assert not world.candidates.restore("chat", made, "prod", "next", f"!{number}"), "of an alias there is no branch"


def test_a_branch_that_somebody_pushed_to_is_theirs(world):
    pushed = world.push()
    assert not world.candidates.restore("chat", pushed, "prod", "main", "by ann")
