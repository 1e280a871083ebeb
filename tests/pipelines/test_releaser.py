"""From a merge request to who is live, with a real registry and the real controller, killed between any two steps."""

import pytest

from actors.registry.registry import Registry
from actors.registry.service import Place
from actors.registry.stages import Stage
from cluster.errors import PlacementImpossible
from pipelines.releaser import AGAIN_SECONDS, Releaser, Watched
from pipelines.routing.control import Control
from pipelines.routing.evidence import Arm, Sketch
from pipelines.routing.settings import RouteSettings
from tests.actors.registry.test_candidates import World as Versions

RELEASE = {"release": {"steps": [10, 100], "every_seconds": 60, "answers": 5}}
GOOD = Arm(30, ttft=Sketch.of(*[0.1] * 30), itl=Sketch.of(*[0.01] * 30))
BAD = Arm(30, 30)


class World:
    """A controller that is made anew whenever something is deployed, one gateway, and time."""

    def __init__(self, folder) -> None:
        self.folder, self.now, self.number, self.deploys = folder, 1_000.0, 0, 0
        self.registry = Registry(folder / "registry")
        self.versions = Versions(self.registry, folder)
        self.versions.push()
        self.versions.aliases.move("chat", "prod", "v1", author="ada")
        self.served: tuple[str, ...] = ("v1",)
        self.others: dict[str, tuple[str, ...]] = {}  # models that are released, too
        self.fails: Exception | None = None
        self.cold: set[str] = set()  # versions without a gang so far
        self.start()

    def start(self) -> None:
        """As after a kill -9, or a deploy."""
        clock = lambda: self.now  # noqa: E731
        folder = str(self.folder / "releases")
        served = {"chat": self.served, **self.others}
        self.control = Control(dict.fromkeys(served, RELEASE), served, folder, clock, clock)
        self.control._look = lambda: None
        release = RouteSettings.model_validate(RELEASE).release
        watched = tuple(Watched(model, model, "prod", release) for model in served)
        self.releaser = Releaser(Place(str(self.folder / "registry")), watched, self.deploy, clock)

    async def deploy(self) -> None:
        self.deploys += 1
        if self.fails is not None:
            raise self.fails
        due = self.versions.next()
        self.served = (self.versions.candidates.live("chat", "prod"), *([due.version] if due else []))
        self.start()

    def deploy_by_hand(self) -> None:
        """As `strata deploy` does: what users have stays beside what the alias is at, until that answers."""
        used, due = self.control.users("chat"), self.versions.next()
        served = (self.versions.candidates.live("chat", "prod"), *([due.version] if due else []), *used)
        self.served = tuple(dict.fromkeys(served))
        self.start()

    async def turn(self, new: Arm | None = None) -> None:
        """A second of the releaser, and an answer of the gateway's."""
        self.now += 3.0
        try:
            await self.releaser.turn(self.control, self.releaser.watched[0])
        except PlacementImpossible as wrong:
            self.control.waits("chat", str(wrong))
        for _ in range(2):
            table = await self.control.watch("g", -1, 0)
            ramp, arms = table["routes"]["chat"]["ramp"], []
            if ramp and ramp["share"] and new is not None:
                arms = [
                    {"model": "chat", "version": version, "revision": table["revision"], "arm": arm.plain}
                    for version, arm in ((ramp["new"], new), (ramp["old"], GOOD))
                ]
            self.number += 1
            ready = {f"chat@{version}": True for version in self.served if version not in self.cold}
            report = {"number": self.number, "revision": table["revision"], "arms": arms, "ready": ready}
            await self.control.report("g", report)

    async def until_over(self, new: Arm, *, killed: bool) -> None:
        for _ in range(120):
            await self.turn(new)
            if killed:
                self.start()
            found = await self.control.rollouts()
            if found and not found[0]["owes"]:
                return
        raise AssertionError(await self.control.rollouts())


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("killed", [False, True])
async def test_what_is_merged_is_released_once(world, killed):
    for _ in range(3):
        await world.turn(GOOD)
    assert world.deploys == 0
    version, number = world.versions.merge()
    await world.until_over(GOOD, killed=killed)
    (rollout,) = await world.control.rollouts()
    assert (rollout["state"], rollout["by"], rollout["cause"]) == ("promoted", f"merge request !{number}", f"!{number}")
    assert world.versions.candidates.live("chat", "prod") == version
    assert world.versions.stages.of("chat", version) is Stage.LIVE
    for _ in range(5):
        await world.turn(GOOD)
    assert (world.deploys, len(await world.control.rollouts())) == (1, 1)
    audit = (await world.control.rollout(rollout["name"]))["audit"]
    assert (audit[0]["cause"], audit[-1]["event"], audit[-1]["reason"]) == (
        f"!{number}", "registry", f"chat@prod is {version}"
    )  # fmt: skip


@pytest.mark.parametrize("killed", [False, True])
async def test_a_bad_one_goes_back_and_the_next_is_released(world, killed):
    version, _ = world.versions.merge()
    await world.until_over(BAD, killed=killed)
    (rollout,) = await world.control.rollouts()
    assert rollout["state"] == "rolled back"
    assert world.versions.candidates.live("chat", "prod") == "v1"
    assert world.versions.stages.of("chat", version) is Stage.CANDIDATE
    for _ in range(3):
        await world.turn(GOOD)
    assert len(await world.control.rollouts()) == 1
    restored = world.registry.number("chat", "main")
    difference = world.registry.diff("chat", "v1", restored)
    assert restored not in ("v1", version)
    assert not (difference.added or difference.removed or difference.changed)
    audit = (await world.control.rollout(rollout["name"]))["audit"]
    assert killed or audit[-1]["reason"] == f"chat@prod stays v1; main is {restored}, which holds what v1 does"
    after, _ = world.versions.merge()
    await world.turn()
    await world.until_over(GOOD, killed=killed)
    assert world.versions.candidates.live("chat", "prod") == after
    assert world.served == ("v1", after)


async def test_a_version_that_finds_no_place_waits_and_the_reason_is_said(world):
    world.versions.merge()
    world.fails = PlacementImpossible("chat@v3", "two cores", "one core")
    for _ in range(5):
        await world.turn()
    assert world.deploys == 1, "not again at once"
    (route,) = await world.control.routes()
    assert "two cores" in route["waits"]
    world.fails, world.now = None, world.now + AGAIN_SECONDS
    await world.turn()
    await world.turn()
    assert (await world.control.rollouts())[0]["state"] in ("pending", "ramping")
    (route,) = await world.control.routes()
    assert route["waits"] == ""


async def test_a_rollout_by_hand_moves_the_alias_too(world):
    version, _ = world.versions.merge()
    await world.until_over(GOOD, killed=False)
    await world.control.start({"model": "chat", "to": "v1", "steps": [100], "every_seconds": 60, "answers": 5}, "ann")
    await world.turn()
    assert world.versions.stages.of("chat", "v1") is Stage.CANARY
    await world.until_over(GOOD, killed=False)
    assert world.versions.candidates.live("chat", "prod") == "v1"
    assert world.versions.stages.all("chat") == {"v1": Stage.LIVE, version: Stage.RETIRED}


async def test_a_running_experiment_holds_a_release_up(world):
    world.served = ("v1", "v0")
    world.start()
    asked = {"name": "tone", "model": "chat", "arms": {"v1": 50, "v0": 50}, "rate": 0.5, "effect": 0.3, "users": 2000}
    await world.control.experiment(asked, "ann")
    version, number = world.versions.merge()
    for served in (("v1", "v0", version), ("v1", "v0")):
        world.control._versions["chat"] = served
        await world.turn()
        (route,) = await world.control.routes()
        assert route["waits"] == (
            f"{version} (!{number}) waits for the experiment tone; `strata experiment end tone` ends it"
        )
    assert world.deploys == 0
    assert [each["over"] for each in await world.control.experiments()] == [False]
    await world.control.end("tone", None, "ann")
    await world.until_over(GOOD, killed=False)
    assert world.versions.candidates.live("chat", "prod") == version


async def test_what_a_deploy_would_end_of_another_model_holds_a_release_up(world):
    registry = Versions(world.registry, world.folder, "code")
    registry.push()
    registry.push()
    registry.aliases.move("code", "prod", "v1", author="ada")
    world.others = {"code": ("v1", "v2")}
    world.start()
    asked = {"name": "tone", "model": "code", "arms": {"v1": 50, "v2": 50}, "rate": 0.5, "effect": 0.3, "users": 2000}
    await world.control.experiment(asked, "ann")
    version, number = world.versions.merge()
    await world.turn()
    waits = {each["model"]: each["waits"] for each in await world.control.routes()}
    assert (waits["chat"], world.deploys) == (
        f"{version} (!{number}) waits for the experiment tone of code, which its deploy would end", 0
    )  # fmt: skip
    await world.control.end("tone", "v1", "ann")
    await world.turn()
    assert world.deploys == 1


async def test_an_alias_that_was_moved_during_a_release_holds_nothing_up(world):
    world.versions.push()
    world.versions.aliases.move("chat", "prod", "v2", "v1", author="ada")
    world.served = ("v2",)
    world.start()
    version, _ = world.versions.merge()
    for _ in range(4):
        await world.turn(GOOD)
    assert world.versions.stages.of("chat", version) is Stage.CANARY
    world.versions.aliases.rollback("chat", "prod", author="ada")
    await world.until_over(GOOD, killed=False)
    (rollout,) = await world.control.rollouts()
    assert rollout["state"] == "promoted"
    assert world.versions.candidates.live("chat", "prod") == "v1"
    assert world.versions.stages.of("chat", version) is Stage.CANDIDATE
    said = (await world.control.rollout(rollout["name"]))["audit"][-1]["reason"]
    assert said.startswith(f"chat@prod stays v1, and {version} is a candidate again")
    for _ in range(2):
        await world.turn(GOOD)
        (route,) = await world.control.routes()
        assert route["waits"].startswith(f"chat@prod is v1 and users have {version}: `strata deploy` gives them v1")
        assert f"`strata models alias chat@{version} prod --from v1`" in route["waits"]
        world.start()
    after, _ = world.versions.merge()
    await world.turn()
    await world.until_over(GOOD, killed=False)
    assert world.versions.candidates.live("chat", "prod") == after
    await world.turn()
    (route,) = await world.control.routes()
    assert route["waits"] == ""


async def test_a_canary_whose_rollout_was_lost_holds_nothing_up(world):
    version, _ = world.versions.merge()
    for _ in range(4):
        await world.turn(GOOD)
    assert world.versions.stages.of("chat", version) is Stage.CANARY
    (world.folder / "releases" / "state.json").unlink()
    world.start()
    for _ in range(2):
        await world.turn()
        (route,) = await world.control.routes()
        assert f"no rollout of chat@{version} is left in releases/state.json" in route["waits"]
        assert f"`strata rollout chat --to {version}`" in route["waits"]
    assert world.versions.stages.of("chat", version) is Stage.CANDIDATE
    after, _ = world.versions.merge()
    await world.turn()
    await world.until_over(GOOD, killed=False)
    assert world.versions.candidates.live("chat", "prod") == after


@pytest.mark.parametrize("stage", [Stage.RETIRED, Stage.CANDIDATE])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_version_that_somebody_stops_during_its_release_is_taken_back(world, stage, killed):
    version, _ = world.versions.merge()
    for _ in range(4):
        await world.turn(GOOD)
    world.versions.stages.move("chat", version, stage, author="ann")
    await world.until_over(GOOD, killed=killed)
    (rollout,) = await world.control.rollouts()
    assert rollout["state"] == "rolled back"
    assert world.versions.stages.of("chat", version) is stage
    assert world.versions.candidates.live("chat", "prod") == "v1"
    audit = (await world.control.rollout(rollout["name"]))["audit"]
    (abort,) = [line for line in audit if line["event"] == "abort"]
    reason = f"ann moved chat@{version} to the stage {stage} during its release"
    assert (abort["by"], abort["reason"]) == ("ann", reason)
    for _ in range(3):
        await world.turn(GOOD)
    assert len(await world.control.rollouts()) == 1, "and it is not released again by itself"


async def test_a_version_that_is_stopped_when_all_users_have_it_is_not_revived(world):
    version, _ = world.versions.merge()
    for _ in range(4):
        await world.turn(GOOD)
    (rollout,) = await world.control.rollouts()
    await world.control.command(rollout["name"], "promote", "bob")
    while (await world.control.rollouts())[0]["state"] != "promoted":
        await world.turn(GOOD)
    assert (await world.control.rollouts())[0]["owes"]
    world.versions.stages.move("chat", version, Stage.RETIRED, author="ann")
    await world.until_over(GOOD, killed=False)
    assert world.versions.stages.of("chat", version) is Stage.RETIRED
    assert world.versions.candidates.live("chat", "prod") == "v1"
    said = (await world.control.rollout(rollout["name"]))["audit"][-1]["reason"]
    assert said == f"chat@prod stays v1: ann moved chat@{version} to the stage retired during its release"


@pytest.mark.parametrize(("new", "kept"), [(GOOD, 1), (BAD, 0)])
async def test_who_has_no_users_gives_its_place_back_after_a_while(world, new, kept):
    version, _ = world.versions.merge()
    await world.until_over(new, killed=False)
    await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert route["spare"]["versions"] == [("v1", version)[1 - kept]]
    world.now += route["spare"]["seconds"] - 5
    await world.turn(GOOD)
    assert (world.deploys, len(world.served)) == (1, 2)
    world.now += 5
    await world.turn(GOOD)
    assert (world.deploys, world.served) == (2, (("v1", version)[kept],))
    for _ in range(3):
        world.now += 600
        await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert (world.deploys, route["spare"]) == (2, None)


async def test_who_has_no_users_stays_while_an_experiment_runs(world):
    world.versions.merge()
    await world.until_over(GOOD, killed=False)
    wanted = {"metric": "thumbs", "rate": 0.5, "effect": 0.1, "users": 10_000}
    asked = {"name": "ab", "model": "chat", "arms": dict.fromkeys(world.served, 50)} | wanted
    await world.control.experiment(asked, "ada")
    world.now += 3600
    await world.turn(GOOD)
    assert world.deploys == 1


async def test_a_version_that_is_about_to_be_released_is_not_spare(world):
    first, _ = world.versions.merge()
    await world.until_over(GOOD, killed=False)
    world.now += 3600
    world.versions.merge()
    await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert (world.served[0], len(world.served), route["spare"]) == (first, 2, None)


async def test_an_alias_that_is_moved_by_hand_moves_users_when_its_version_answers(world):
    version, _ = world.versions.merge()
    await world.until_over(GOOD, killed=False)
    world.now += 600
    await world.turn(GOOD)
    assert world.served == (version,), "v1 has given its place back"
    world.versions.aliases.rollback("chat", "prod", author="ann")
    await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert "`strata deploy` gives them v1" in route["waits"]
    world.cold = {"v1"}
    world.deploy_by_hand()
    assert world.served == ("v1", version)
    for _ in range(3):
        await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert (route["waits"], route["spare"]) == (
        f"chat@prod is v1: users of {version} get it as soon as it answers", None
    )  # fmt: skip
    later, number = world.versions.merge()
    world.now += AGAIN_SECONDS
    await world.turn(GOOD)
    world.deploy_by_hand()
    await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert route["waits"] == f"{later} (!{number}) waits until users of {version} have v1"
    world.cold.clear()
    await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert route["weights"] == {"v1": 100.0}
    await world.until_over(GOOD, killed=False)
    (route,) = await world.control.routes()
    assert (route["weights"], world.versions.candidates.live("chat", "prod")) == ({later: 100.0}, later)


async def test_going_back_to_a_version_that_stands_takes_no_deploy(world):
    version, _ = world.versions.merge()
    await world.until_over(GOOD, killed=False)

    async def users() -> dict[str, float]:
        (route,) = await world.control.routes()
        return route["weights"]

    assert (world.served, await users()) == (("v1", version), {version: 100.0})
    world.cold = {"v1"}
    world.versions.aliases.rollback("chat", "prod", author="ann")
    for _ in range(2):
        await world.turn(GOOD)
        world.start()  # whatever is killed in between
        await world.turn(GOOD)
        assert (await users(), world.control.follow("chat")) == ({version: 100.0}, ("v1",))
    world.versions.aliases.move("chat", "prod", version, "v1", author="ann")
    world.cold.clear()
    await world.turn(GOOD)
    assert (await users(), world.control.follow("chat")) == ({version: 100.0}, ()), "who changes their mind counts"
    world.versions.aliases.rollback("chat", "prod", author="ann")
    await world.turn(GOOD)
    assert (await users(), world.control.follow("chat"), world.deploys) == ({"v1": 100.0}, (), 1)
    audit = (await world.control.route("chat"))["audit"]
    assert [line["by"] for line in audit] == [f"chat@prod is {version}", "chat@prod is v1"]
    await world.turn(GOOD)
    assert world.versions.stages.of("chat", "v1") is Stage.LIVE
    (route,) = await world.control.routes()
    assert (route["waits"], route["spare"]["versions"]) == ("", [version])
    world.now += 600
    await world.turn(GOOD)
    assert (world.served, world.deploys) == (("v1",), 2)


async def test_what_an_experiment_keeps_stays_until_the_alias_is_moved(world):
    version, _ = world.versions.merge()
    await world.until_over(GOOD, killed=False)
    await world.turn(GOOD)
    wanted = {"metric": "thumbs", "rate": 0.5, "effect": 0.1, "users": 10_000}
    asked = {"name": "ab", "model": "chat", "arms": dict.fromkeys(world.served, 50)} | wanted
    await world.control.experiment(asked, "ada")
    await world.turn(GOOD)
    await world.control.end("ab", "v1", "ada")
    for _ in range(3):
        await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert (route["weights"], route["follow"]) == ({"v1": 100.0}, [])
    assert f"chat@prod is {version} and users have v1" in route["waits"]
    assert "`strata models alias chat@v1 prod" in route["waits"], "or the other way"
    world.versions.aliases.move("chat", "prod", "v1", version, author="ann")
    for _ in range(2):
        await world.turn(GOOD)
    (route,) = await world.control.routes()
    assert (route["weights"], route["waits"]) == ({"v1": 100.0}, "")
