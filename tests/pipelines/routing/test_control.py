"""The controller with gateways of one's own and a clock of one's own, restarted whenever the test says so."""

import random
from pathlib import Path

import pytest

from cluster.errors import Conflict, InvalidRequest, NotFound, SettingsInvalid
from pipelines.routing.control import Control
from pipelines.routing.evidence import Arm, Sketch
from pipelines.routing.settings import STEPS

VERSIONS = {"chat": ("v6", "v7"), "other": ("base",)}
ASKED = {"model": "chat", "to": "v7", "steps": [1, 10, 100], "every_seconds": 60, "answers": 20}


def answers(count: int, *, errors: int = 0, ttft: float = 0.1) -> Arm:
    return Arm(count, errors, ttft=Sketch.of(*[ttft] * count), itl=Sketch.of(*[0.01] * count))


class World:
    """A controller, two gateways, and time."""

    def __init__(self, folder: Path, routes=None, versions=VERSIONS) -> None:
        self.folder, self.routes, self.versions = folder, routes or {}, versions
        self.now, self.numbers = 1_000.0, {"g1": 0, "g2": 0}
        self.table = {}
        self.start()

    def start(self) -> None:
        self.control = Control(self.routes, self.versions, str(self.folder), lambda: self.now, lambda: self.now)
        self.control._look = lambda: None  # its own timer: here, time is ours

    async def turn(self, seconds: float = 5.0, new: Arm | None = None, old: Arm | None = None, ready=("v6", "v7")):
        """Both gateways take the routes and report what they answered with them."""
        self.now += seconds
        for name in self.numbers:
            self.table = await self.control.watch(name, -1, 0)
            arms = [("v7", new), ("v6", old)]
            share = (self.table["routes"]["chat"]["ramp"] or {}).get("share", 0)
            await self.report(
                name,
                ready=ready,
                arms=[
                    {"model": "chat", "version": version, "revision": self.table["revision"], "arm": arm.plain}
                    for version, arm in arms
                    if arm is not None and (share or version == "v6")
                ],
            )
        self.table = await self.control.watch("g1", -1, 0)

    async def report(self, name: str, ready=("v6", "v7"), arms=()) -> None:
        self.numbers[name] += 1
        plain = {"number": self.numbers[name], "revision": self.table["revision"], "arms": list(arms)}
        await self.control.report(name, plain | {"ready": {f"chat@{version}": True for version in ready}})

    async def state(self, name: str = "chat-v7") -> str:
        return (await self.control.rollout(name))["state"]

    @property
    def ramp(self):
        return self.table["routes"]["chat"]["ramp"]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path / "releases")
    await made.turn()
    return made


async def test_a_good_version_gets_all_users_and_every_step_is_kept(world):
    await world.control.start(ASKED, "ann")
    shares = []
    for _ in range(60):
        await world.turn(new=answers(5), old=answers(50))
        shares.append(world.ramp["share"] if world.ramp else None)
    assert (await world.control.rollout("chat-v7"))["findings"] == []
    assert sorted(set(shares) - {None}) == [1, 10, 100]
    assert world.table["routes"]["chat"]["weights"] == {"v7": 100.0}
    found = await world.control.rollout("chat-v7")
    assert [line["event"] for line in found["audit"]] == ["start", "warm", "good", "good", "good", "told"]
    assert [line["number"] for line in found["audit"]] == [1, 2, 3, 4, 5, 6]
    assert found["audit"][2]["answers"] >= 20
    assert any("p50_ttft" in said for said in found["audit"][2]["findings"])


async def test_it_begins_when_every_gateway_has_a_replica(world):
    await world.control.start(ASKED, "ann")
    await world.turn(ready=("v6",))
    assert (await world.state(), world.ramp["share"]) == ("pending", 0)
    await world.report("g1")
    assert await world.state() == "pending"
    await world.turn()
    assert (await world.state(), world.ramp["share"]) == ("ramping", 1)


@pytest.mark.parametrize("bad", [answers(8, errors=8), answers(8, ttft=0.3)])
async def test_a_bad_version_is_taken_back_with_the_report_that_proves_it(world, bad):
    await world.control.start(ASKED, "ann")
    await world.turn(old=answers(500))
    turns = 0
    while world.ramp and world.ramp["share"]:
        await world.turn(1.0, new=bad, old=answers(100))
        turns += 1
    assert turns <= 5
    await world.turn(1.0)
    found = await world.control.rollout("chat-v7")
    assert (found["state"], world.ramp) == ("rolled back", None)
    assert world.table["routes"]["chat"]["weights"] == {"v6": 100.0}
    assert "broken" in found["reason"]
    again = await world.control.start(ASKED, "ann")
    assert again["name"] == "chat-v7-2"


async def test_a_version_without_a_replica_is_taken_back(world):
    await world.control.start(ASKED, "ann")
    await world.turn()
    for _ in range(14):
        await world.turn(1.0, ready=("v6",))
    assert await world.state() == "rolled back"


async def test_answers_of_before_a_step_and_reports_that_come_twice_do_not_count(world):
    await world.control.start(ASKED, "ann")
    stale = world.table["revision"]
    await world.turn()
    arm = {"model": "chat", "version": "v7", "revision": stale, "arm": answers(500, errors=500).plain}
    await world.report("g1", arms=[arm])
    assert (await world.control.rollout("chat-v7"))["answers"]["new"] == 0
    world.table = await world.control.watch("g1", -1, 0)
    arm |= {"revision": world.table["revision"], "arm": answers(3).plain}
    await world.report("g1", arms=[arm])
    world.numbers["g1"] -= 1
    await world.report("g1", arms=[arm])
    found = await world.control.rollout("chat-v7")
    assert found["answers"]["new"] == 3
    assert "error_rate > baseline + 0.01: no answers yet" in found["findings"]


async def test_what_is_not_said_of_steps_begins_at_half_a_percent(world):
    made = await world.control.start({"model": "chat", "to": "v7"}, "ann")
    assert made["terms"]["steps"] == STEPS
    await world.turn()
    assert world.ramp["share"] == 0.5


@pytest.mark.parametrize("verbs", [("pause", "resume"), ("promote",), ("abort",)])
async def test_what_people_say_is_kept_with_its_numbers(world, verbs):
    await world.control.start(ASKED, "ann")
    await world.turn()
    await world.turn(new=answers(5), old=answers(50))
    for verb in verbs:
        await world.control.command("chat-v7", verb, "bob")
    lines = (await world.control.rollout("chat-v7"))["audit"][-len(verbs) :]
    assert [(line["event"], line["answers"], line["beside"]) for line in lines] == [(verb, 10, 100) for verb in verbs]
    assert all(any("p50_ttft" in said for said in line["findings"]) for line in lines)


async def test_a_rule_stays_as_it_was_said_and_may_be_asked_again(world):
    made = await world.control.start({**ASKED, "abort_if": ["p99_latency  > 500 ms"]}, "ann")
    assert made["terms"]["abort_if"] == ("p99_latency > 500 ms",)
    await world.turn()
    found = await world.control.rollout("chat-v7")
    assert "p99_latency > 0.5: no answers yet" in found["findings"]


async def test_people_pause_resume_promote_and_abort(world):
    await world.control.start(ASKED, "ann")
    with pytest.raises(Conflict, match="takes abort"):
        await world.control.command("chat-v7", "pause", "ann")
    await world.turn()
    assert (await world.control.command("chat-v7", "pause", "bob"))["state"] == "paused"
    await world.turn(600, new=answers(50), old=answers(500))
    assert await world.state() == "paused"
    await world.control.command("chat-v7", "promote", "bob")
    await world.turn(1)
    assert await world.state() == "promoted"
    with pytest.raises(Conflict, match="promoted"):
        await world.control.command("chat-v7", "abort", "bob")
    back = await world.control.start({"model": "chat", "to": "v6", "steps": [100], "every_seconds": 1}, "bob")
    await world.turn(1)
    assert world.ramp == {"old": "v7", "new": "v6", "share": 100}
    await world.control.command(back["name"], "abort", "bob")
    await world.turn(1)
    assert world.table["routes"]["chat"]["weights"] == {"v7": 100.0}
    lines = (await world.control.rollout("chat-v7"))["audit"]
    assert [line["by"] for line in lines if line["by"]] == ["ann", "bob", "bob"]
    with pytest.raises(InvalidRequest, match="action"):
        await world.control.command("chat-v7", "explode", "bob")
    with pytest.raises(NotFound, match="chat-v7"):
        await world.control.command("nothing", "abort", "bob")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"to": "v6"}, "to: v6 .* all users of chat have it already"),
        ({"to": "v6", "from": "v6"}, "onto itself"),
        ({"from": "v7"}, "onto itself"),
        ({"to": "v9"}, 'to: "v9" .* served as v6, v7; add'),
        ({"model": "nothing"}, "no model nothing; there is chat, other"),
        ({"steps": []}, "steps"),
        ({"steps": [5, 1]}, "above the one before"),
        ({"steps": [0, 1]}, "above 0"),
        ({"steps": [1, 101]}, r"steps\[1\]: 101"),
        ({"every_seconds": 0}, "every_seconds: 0"),
        ({"every_seconds": float("nan")}, "every_seconds"),
        ({"abort_if": ["speed > 1"]}, r"abort_if\[0\]: .* no metric speed"),
        ({"abort_if": ["p99_latency > 500"]}, r"abort_if\[0\]: p99_latency > 500 .* say 500ms or 500s"),
        ({"abort_if": "error_rate > 1%"}, "abort_if: .* a list"),
        ({"abort_if": ["feedback.kept < baseline"], "steps": [100]}, r"abort_if\[0\]: .* at 100 % .* a step before"),
        ({"abort_if": ["shadow.agreement < 0.8"], "steps": [100], "mirror": 5}, "a step before"),
        ({"answers": True}, "answers"),
        ({"margin": -1}, "margin"),
        ({"frm": "v6"}, "frm: this unknown field"),
    ],
)
async def test_what_cannot_be_rolled_out_names_the_field(world, asked, says):
    with pytest.raises((InvalidRequest, NotFound), match=says):
        await world.control.start({**ASKED, **asked}, "ann")
    assert await world.control.rollouts() == []


async def test_a_version_that_has_most_users_takes_those_of_one_that_is_named(tmp_path):
    world = World(tmp_path, {"chat": {"weights": {"v6": 90, "v7": 10}}})
    with pytest.raises(
        InvalidRequest, match=r"to: v6 .* with 90 % it has most users of chat already: .*`from` in a body.*: v7"
    ):
        await world.control.start({**ASKED, "to": "v6"}, "ann")
    made = await world.control.start({**ASKED, "to": "v6", "from": "v7"}, "ann")
    assert made["terms"]["old"] == "v7"


async def test_one_rollout_of_a_model_at_a_time_and_a_dry_run_is_none(world):
    dry = await world.control.start(ASKED | {"dry_run": True}, "ann")
    assert (dry["state"], dry["terms"]["old"]) == ("pending", "v6")
    assert await world.control.rollouts() == []
    await world.control.start(ASKED, "ann")
    with pytest.raises(Conflict, match="chat-v7, pending"):
        await world.control.start(ASKED, "bob")


async def test_a_deploy_that_changes_nothing_goes_on_and_one_that_changes_weights_counts(world):
    await world.control.start(ASKED, "ann")
    await world.turn()
    world.start()
    await world.turn()
    assert (await world.state(), world.ramp["share"]) == ("ramping", 1)
    world.routes = {"chat": {"weights": {"v6": 50, "v7": 50}}}
    world.start()
    await world.turn()
    assert await world.state() == "rolled back"
    assert (world.ramp, world.table["routes"]["chat"]["weights"]) == (None, {"v6": 50.0, "v7": 50.0})


async def test_an_experiment_outlives_a_restart_and_ends_with_other_weights(world):
    asked = {"name": "tone", "model": "chat", "arms": {"v6": 50, "v7": 50}, "rate": 0.5, "effect": 0.2, "users": 9_000}
    await world.control.experiment(asked, "ann")
    outcome = {"model": "chat", "version": "v7", "metric": "thumbs", "count": 3, "total": 2.0}
    await world.control.report("g1", {"number": 99, "revision": 0, "ready": {}, "arms": [], "outcomes": [outcome]})
    world.control._save()
    world.start()
    (found,) = await world.control.experiments()
    assert (found["over"], found["findings"][1]["users"]) == (False, 3)
    assert (await world.control.routes())[0]["weights"] == {"v6": 50.0, "v7": 50.0}
    world.routes = {"chat": {"weights": {"v6": 10, "v7": 90}}}
    world.start()
    (found,) = await world.control.experiments()
    assert found["over"]
    assert (await world.control.routes())[0]["weights"] == {"v6": 10.0, "v7": 90.0}
    assert [line["event"] for line in world.control._ledger.audit()] == ["start", "end"]


async def test_promoted_weights_outlive_a_restart_and_the_old_version(world):
    await world.control.start(ASKED, "ann")
    await world.turn()
    await world.control.command("chat-v7", "promote", "ann")
    await world.turn()
    world.start()
    await world.turn()
    assert world.table["routes"]["chat"]["weights"] == {"v7": 100.0}
    world.versions = {"chat": ("v7", "v8")}
    world.start()
    assert (await world.control.routes())[0]["weights"] == {"v7": 100.0}


@pytest.fixture
async def moved(tmp_path: Path) -> World:
    """A deploy, after an alias was moved by hand, has brought v5 beside v6, which users have."""
    made = World(tmp_path / "releases", {"chat": {"release": {}}}, {"chat": ("v6",)})
    await made.turn(ready=("v6",))
    made.versions = {"chat": ("v5", "v6")}
    made.start()
    await made.turn(ready=("v6",))
    return made


async def route_of(world: World) -> dict:
    return await world.control.route("chat")


async def test_users_follow_a_deploy_when_what_it_brought_answers(moved):
    for _ in range(3):
        assert (await route_of(moved))["weights"] == {"v6": 100.0}
        assert (await route_of(moved))["follow"] == ["v5"]
        await moved.turn(ready=("v6",))
        moved.start()  # whatever is killed in between
        await moved.turn(ready=("v6",))
    await moved.report("g1", ready=("v5", "v6"))
    assert (await route_of(moved))["follow"] == [], "g2 does not know it and goes on with what it knows"
    await moved.turn(ready=("v5", "v6"))
    assert moved.table["routes"]["chat"]["weights"] == {"v5": 100.0}
    found = await route_of(moved)
    assert (found["spare"]["versions"], found["spare"]["seconds"]) == (["v6"], 595.0)
    (line,) = found["audit"]
    assert (line["by"], line["was"]["weights"], line["now"]["weights"]) == ("the settings", {"v6": 100}, {"v5": 100})
    moved.start()
    await moved.turn(ready=("v5", "v6"))
    assert (await route_of(moved))["spare"]["versions"] == ["v6"]
    assert moved.table["routes"]["chat"]["weights"] == {"v5": 100.0}
    moved.versions = {"chat": ("v5",)}
    moved.start()
    assert (await route_of(moved))["spare"] is None


async def test_nobody_else_gets_users_who_are_to_follow(moved):
    experiment = {"name": "ab", "model": "chat", "arms": {"v5": 50, "v6": 50}, "rate": 0.5, "effect": 0.2, "users": 9e3}
    for asked in (moved.control.start(ASKED | {"to": "v5"}, "ann"), moved.control.experiment(experiment, "ann")):
        with pytest.raises(Conflict, match=r"go to v5 as soon as it answers.*move its alias back"):
            await asked
    await moved.turn(ready=("v5", "v6"))
    await moved.control.start(ASKED | {"to": "v6"}, "ann")


async def test_users_of_what_the_alias_goes_back_to_do_not_move(moved):
    moved.versions = {"chat": ("v6",)}
    moved.start()
    await moved.turn(ready=("v6",))
    assert (await route_of(moved))["follow"] == []
    assert moved.table["routes"]["chat"]["weights"] == {"v6": 100.0}


async def test_a_deploy_that_moves_users_ends_their_rollout_and_they_stay_until_then(tmp_path):
    world = World(tmp_path / "releases", {"chat": {"release": {}}})
    await world.turn()
    await world.control.start(ASKED, "ann")
    await world.turn()
    world.versions = {"chat": ("v5", "v7", "v6")}
    world.start()
    await world.turn()
    assert await world.state() == "rolled back"
    assert (world.ramp, world.table["routes"]["chat"]["weights"]) == (None, {"v6": 100.0})
    await world.turn(ready=("v5", "v6", "v7"))
    assert world.table["routes"]["chat"]["weights"] == {"v5": 100.0}


def test_a_state_that_somebody_broke_is_said(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(SettingsInvalid, match=r"state\.json.*put back a copy"):
        World(tmp_path)


async def test_lives_with_restarts_at_any_moment(tmp_path):
    """Whatever is killed when: the audit is whole and in order, a good one never loses users, a bad one never stays."""
    for seed in range(16):
        dice = random.Random(seed)
        world = World(tmp_path / str(seed))
        await world.turn()
        bad = dice.random() < 0.5
        await world.control.start(ASKED, "ann")
        share = 0.0
        for _ in range(200):
            if dice.random() < 0.2:
                if dice.random() < 0.3:  # half a line, and a record that is not in the audit yet
                    audit = world.folder / "audit.jsonl"
                    text = audit.read_bytes()
                    audit.write_bytes(text[: -dice.randrange(1, 40)])
                world.start()
            new = answers(2, errors=2 if bad else 0)
            await world.turn(dice.choice([0.5, 3.0]), new=new, old=answers(20))
            now = world.ramp["share"] if world.ramp else None
            if now is not None and now < share:
                assert bad, "a good one was taken back"
            share = now or 0.0
            if await world.state() in ("promoted", "rolled back"):
                break
        assert await world.state() == ("rolled back" if bad else "promoted"), seed
        lines = world.control._ledger.audit()
        assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
        assert [line["was"] for line in lines[2:]] == [line["now"] for line in lines[1:-1]]


QUESTIONS = [{"prompt": f"{number} + 1", "answer": str(number + 1)} for number in range(40)]
RULE = "eval.sums < baseline - 0.02"


async def answered(world, *, new: int, old: int, step: int = 0, count: int = 40, name: str = "chat-v7") -> None:
    """Both versions were asked so many questions; so many of those were answered rightly."""
    grades = [
        {"rollout": name, "step": step, "version": version, "name": "sums", "case": case, "right": case < right}
        for version, right in (("v7", new), ("v6", old))
        for case in range(count)
    ]
    world.numbers["g1"] += 1
    plain = {"number": world.numbers["g1"], "revision": world.table["revision"], "arms": [], "grades": grades}
    await world.control.report("g1", plain | {"ready": {"chat@v6": True, "chat@v7": True}})


async def exam(world, **more):
    asked = ASKED | {"abort_if": [RULE], "evals": {"sums": QUESTIONS}, "margin": None, "answers": 1, **more}
    return await world.control.start(asked, "ann")


async def test_a_version_that_answers_worse_is_taken_back(world):
    assert (await exam(world))["terms"]["evals"]["sums"]["questions"] == 40
    await world.turn()
    await world.turn()
    plain = world.table["routes"]["chat"]["evals"]
    assert (plain["rollout"], plain["step"]) == ("chat-v7", 0)
    assert [case["answer"][0] for case in await world.control.cases(plain["sets"]["sums"])][:3] == ["1", "2", "3"]
    await answered(world, new=35, old=36)
    assert await world.state() == "rolling back"
    found = await world.control.rollout("chat-v7")
    assert (
        "eval.sums < baseline - 0.02: 0.875 (0.875 to 0.875) against the limit 0.88 (0.88 to 0.88), broken"
        in found["reason"]
    )


async def test_one_that_answers_all_wrong_is_taken_back_before_all_is_asked(world):
    await exam(world)
    await world.turn()
    await world.turn()
    await answered(world, new=0, old=13, count=13)
    assert await world.state() == "rolling back"


async def test_a_step_is_over_when_all_is_asked(world):
    await exam(world)
    await world.turn()
    await answered(world, new=39, old=39, count=39)
    await world.turn(61, new=answers(5), old=answers(5))
    found = await world.control.rollout("chat-v7")
    assert (found["state"], found["reason"]) == ("holding", "eval.sums: 39 of 40 questions asked")
    world.start()  # what was answered is kept
    await world.turn()
    for _ in range(3):  # what is told twice counts once
        await answered(world, new=40, old=40)
    found = await world.control.rollout("chat-v7")
    assert (found["state"], found["step"]) == ("ramping", 1)
    await answered(world, new=0, old=40)  # of the step before
    assert (await world.control.rollout("chat-v7"))["findings"][0] == f"{RULE}: no answers yet"


async def test_the_settings_questions_do(world, tmp_path):
    world.control = Control(
        {}, VERSIONS, str(tmp_path / "two"), lambda: world.now, lambda: world.now, {"chat": {"sums": QUESTIONS}}
    )
    made = await world.control.start(ASKED | {"abort_if": [RULE], "dry_run": True}, "ann")
    assert made["terms"]["evals"]["sums"]["questions"] == 40
    assert not list((tmp_path / "two" / "evals").glob("*"))


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        ({"abort_if": [RULE]}, "abort_if[0]", "--eval sums=FILE.jsonl"),
        ({"abort_if": [RULE], "evals": {"more": QUESTIONS}}, "abort_if[0]", "there is eval.more"),
        ({"evals": {"sums": QUESTIONS}}, "evals.sums", "no rule names eval.sums"),
        ({"evals": {"../x": QUESTIONS}}, "evals", "a-z"),
        ({"evals": [QUESTIONS]}, "evals", "an object"),
        ({"evals": {"sums": []}, "abort_if": [RULE]}, "evals.sums", "1 to 1000"),
        ({"abort_if": ["shadow.agreement < 0.8"]}, "abort_if[0]", "--mirror 10"),
        ({"abort_if": ["shadow.likeness < 0.8"], "mirror": 5}, "abort_if[0]", "shadow.agreement < NUMBER"),
        ({"abort_if": ["shadow.agreement < baseline"], "mirror": 5}, "abort_if[0]", "shadow.agreement < NUMBER"),
    ],
)
async def test_a_rule_that_nothing_would_ever_tell_of_is_refused(world, more, field, says):
    with pytest.raises(InvalidRequest, match=says) as wrong:
        await world.control.start(ASKED | more, "ann")
    assert wrong.value.field == field
    assert await world.control.rollouts() == []
