"""One gateway's side of releases: says which version a request goes to, and notes what came of it.

Holds a dated copy of the routes, which the controller owns and pushes, and sums of answers that it has not been told
yet. While the controller is away the copy counts. Knows no HTTP and no Ray. Every call from one event loop.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pipelines.routing.evidence import Arm, Score, Sketch
from pipelines.routing.route import Choice, Facts, Ramp, Route, choose
from pipelines.routing.settings import BASE, WHOLE, RouteSettings

WATCH_SECONDS = 20.0
RETRY_SECONDS = 0.3
REPORT_SECONDS = 0.5  # while somebody decides by it; else so often:
IDLE_SECONDS = 2.0
STALL_SECONDS = 10.0  # an answer that has not begun by then has failed; of one that has, its pace is told
ANSWERS_A_USER = 5  # that count at one step: who asks a thousand times is no thousand users
USERS = 100_000  # whose answers are counted at one step

REFUSALS = (
    "i can't", "i cannot", "i can’t", "i'm sorry", "i’m sorry", "i am sorry", "sorry, ", "i'm unable", "i’m unable",
    "i am unable", "i won't", "i’m not able", "i'm not able", "i must decline", "as an ai", "抱歉", "对不起", "很遗憾",
    "我不能", "我无法", "作为一个人工智能", "作为ai",
)  # fmt: skip


class Control(Protocol):
    """Who owns the routes; see `control.Control`."""

    def watch(self, gateway: str, revision: int, seconds: float) -> Awaitable[Any]: ...

    def report(self, gateway: str, report: Mapping[str, Any]) -> Awaitable[Any]: ...


class Figures(Protocol):
    """What was measured of an answer, in seconds; 0 or None for what it did not have."""

    @property
    def ttft(self) -> float: ...

    @property
    def itl(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions that two versions are to be asked at a step of a rollout: sets by name, known by their digests."""

    model: str
    old: str
    new: str
    rollout: str
    step: int
    sets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Way:
    """Where a request goes. `served`: the name under which the version is served; `counts`: its answer is evidence."""

    model: str
    version: str
    served: str
    by: str = ""
    counts: bool = False
    revision: int = 0
    user: str = ""
    trial: str = ""  # the experiment that this is part of
    shadow: str = ""  # the version that is asked the same afterwards
    instead: "Way | None" = None  # who answers where this version refuses before it has said anything


@dataclass(slots=True)
class Witness:
    """One request under way. Told once how it ended."""

    guide: "Guide"
    way: Way
    began: float
    figures: Figures | None = None
    over: bool = False
    said: str = ""  # how it was answered
    paced: bool = False  # what lies between its tokens was told while it was under way

    def done(self, head: str, cut: bool, tokens: int, lost: int = 0) -> None:
        """It was answered; `head` is how, `lost` the replicas that died of it or under it."""
        self.said = head
        seconds, figures = self.guide.clock() - self.began, self.figures
        made = Sketch.of(max(1, tokens))
        arm = Arm(1, 0, int(refuses(head)), int(cut), Sketch.of(seconds), tokens=made, losses=int(lost > 0))
        if figures is not None and figures.ttft:
            arm = replace(arm, ttft=Sketch.of(figures.ttft))
        if figures is not None and figures.itl is not None and not self.paced:
            arm = replace(arm, itl=Sketch.of(figures.itl))
        self._end(arm)

    def failed(self) -> None:
        """It was refused, cut or not answered in time, for no fault of the client's."""
        self._end(Arm(1, 1))

    def dropped(self) -> None:
        """The client went away, or asked for what cannot be: nothing is said of the version."""
        self._end(None)

    def _end(self, arm: Arm | None) -> None:
        if not self.over:
            self.over = True
            self.guide.heard(self, arm)


@dataclass(slots=True)
class _Sums:
    """Arms by model, version and revision; users by model and version who have been counted how often."""

    arms: dict[tuple[str, str, int], Arm] = field(default_factory=dict)
    users: dict[tuple[str, str, int], dict[str, int]] = field(default_factory=dict)


class Guide:
    """All routes of a gateway."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        ready: Callable[[str], bool] = lambda served: True,  # noqa: ARG005
        served: Callable[[str], bool] = lambda served: True,  # noqa: ARG005
        rouse: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`routes` count until the controller is heard; `ready` says whether a version has a replica here, or one that
        sleeps, `served` whether this gateway knows it, both by the name that it is served under. `rouse` wakes one and
        says whether it is awake: those that are compared have to be. None: `ready` says it.
        """
        self.clock = clock
        self._ready, self._served, self._rouse = ready, served, rouse or ready
        self._routes = dict(routes)
        self.revision = 0
        self._since: dict[str, int] = {}  # the revision that a model's step began with: older answers are not its own
        self._sums = _Sums()
        self._under_way: dict[int, Witness] = {}
        self._name = secrets.token_hex(8)
        self._number = 0
        self._versions: dict[str, tuple[str, ...]] = {}  # of each model, those that the controller knows
        self._trials: dict[str, tuple[str, str]] = {}  # the experiment of a model, and what it looks at
        self._outcomes: dict[tuple[str, str, str], Score] = {}
        self._evals: dict[str, dict[str, Any]] = {}  # the questions that versions of a model are to be asked
        self._grades: list[dict[str, Any]] = []
        self._judges: dict[str, set[str]] = {}  # users whose outcome has counted, by model
        self._unheard: dict[str, Any] | None = None  # a report that may have been lost on its way
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._note_headers()

    @property
    def routes(self) -> Mapping[str, Route]:
        return self._routes

    async def start(self, control: Control, seconds: float = 5.0) -> None:
        """Follow the controller from now on; returns when it was heard once, or after `seconds`."""
        heard = asyncio.Event()
        self._tasks = [
            asyncio.ensure_future(self._follow(control, heard)), asyncio.ensure_future(self._tell(control))
        ]  # fmt: skip
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await heard.wait()

    def close(self) -> None:
        """Follow nobody any more."""
        for task in self._tasks:
            task.cancel()

    def way(self, model: str, facts: Facts, roll: float = 1.0) -> Way | None:
        """Where a request for a model goes; None for a name that has no route. `roll`, from 0 to 1: chance."""
        route = self._routes.get(model)
        if route is None:
            return None
        found = choose(route, facts)
        counts = found.by == "ramp" and found.arms
        made = self._way(route, found, facts, counts)
        shadow = route.settings.shadow
        if shadow is not None and shadow.version != made.version and roll * WHOLE < shadow.share:
            made = replace(made, shadow=shadow.version)
        if route.ramp is not None and found.version == route.ramp.new:
            old = self._way(route, replace(found, version=route.ramp.old, by="instead"), facts, counts=False)
            return replace(made, instead=old)
        return made

    def begin(self, way: Way) -> Witness:
        """Somebody goes that way."""
        made = Witness(self, way, self.clock())
        if way.counts:
            self._under_way[id(made)] = made
        return made

    def heard(self, witness: Witness, arm: Arm | None) -> None:
        """How it ended, for `Witness`."""
        if self._under_way.pop(id(witness), None) is None or arm is None:
            return
        way = witness.way
        key = way.model, way.version, way.revision
        if not self._current(way):
            return
        self._add(key, way.user, arm)

    def compared(self, way: Way, agreement: float) -> None:
        """An answer that was seen, with what the shadow said to the same: evidence where the shadow is rolled out."""
        ramp = self._routes[way.model].ramp if way.model in self._routes else None
        if ramp is None or ramp.new != way.shadow or not self._current(way):
            return
        arm = Arm(scores={"shadow.agreement": Score(1, agreement)})
        self._add((way.model, way.shadow, way.revision), f"{way.user}\0shadow", arm)

    @property
    def exams(self) -> list[Exam]:
        """What questions are to be asked now."""
        return [
            Exam(model, route.ramp.old, route.ramp.new, plain["rollout"], plain["step"], plain["sets"])
            for model, plain in self._evals.items()
            if (route := self._routes.get(model)) is not None and route.ramp is not None
        ]

    def graded(self, exam: Exam, version: str, name: str, case: int, right: bool) -> None:
        """A version has answered a question of an exam."""
        self._grades.append(
            {"rollout": exam.rollout, "step": exam.step, "version": version, "name": name, "case": case, "right": right}
        )

    def outcome(self, way: Way, metric: str, value: float) -> None:
        """What a user made of an answer, from 0 to 1: evidence for a rollout, and for an experiment that looks at it.

        In an experiment a user's first outcome counts; one that comes again after this process has ended counts again.
        """
        if way.counts and self._current(way):
            arm = Arm(scores={f"feedback.{metric}": Score(1, value)})
            self._add((way.model, way.version, way.revision), f"{way.user}\0{metric}", arm)
        if not way.trial or self._trials.get(way.model) != (way.trial, metric):
            return
        judges = self._judges.setdefault(way.model, set())
        if way.user in judges or len(judges) >= USERS:
            return
        judges.add(way.user)
        key = way.model, way.version, metric
        self._outcomes[key] = self._outcomes.get(key, Score()) + Score(1, value)

    def _current(self, way: Way) -> bool:
        """Whether no other step of its model has begun since; what other models do is nothing to it."""
        return way.revision == self._since.get(way.model, 0)

    def _begins(self, model: str, since: int) -> None:
        if self._since.get(model) != since:
            self._since[model] = since
            self._sums.users = {key: users for key, users in self._sums.users.items() if key[0] != model}

    def _add(self, key: tuple[str, str, int], user: str, arm: Arm) -> None:
        users = self._sums.users.setdefault(key, {})
        often = users.get(user, 0)
        if often >= ANSWERS_A_USER or (not often and len(users) >= USERS):
            return
        users[user] = often + 1
        self._sums.arms[key] = self._sums.arms.get(key, Arm()) + arm

    def take(self, table: Mapping[str, Any]) -> None:
        """The routes as the controller has them; one that leads to what this gateway does not serve is left alone."""
        for model, plain in table["routes"].items():
            made = _route(model, plain)
            if made is not None and all(self._served(full(model, version)) for version in made.versions):
                self._routes[model] = made
            self._begins(model, int(plain.get("since", table["revision"])))
            self._versions[model] = tuple(plain.get("versions", ()))
            self._evals.pop(model, None)
            if plain.get("evals"):
                self._evals[model] = plain["evals"]
            trial = plain.get("trial")
            if trial is None or self._trials.get(model) != tuple(trial):
                self._judges.pop(model, None)
                self._trials.pop(model, None)
            if trial is not None:
                self._trials[model] = trial[0], trial[1]
        self.revision = table["revision"]
        self._note_headers()
        self._news.set()

    def report(self) -> dict[str, Any]:
        """What the controller should know: the same one until it was heard."""
        if self._unheard is None:
            self._stalled()
            arms, self._sums.arms = self._sums.arms, {}
            outcomes, self._outcomes = self._outcomes, {}
            grades, self._grades = self._grades, []
            self._number += 1
            self._unheard = {
                "number": self._number,
                "arms": [
                    {"model": model, "version": version, "revision": revision, "arm": arm.plain}
                    for (model, version, revision), arm in arms.items()
                ],
                "outcomes": [
                    {"model": model, "version": version, "metric": metric, "count": score.count, "total": score.total}
                    for (model, version, metric), score in outcomes.items()
                ],
                "grades": grades,
            }
        ready = {
            f"{model}@{version}": (self._rouse if version in self._compared(route) else self._ready)(
                full(model, version)
            )
            for model, route in self._routes.items()
            for version in route.versions.union(self._versions.get(model, ()))
        }
        return {**self._unheard, "revision": self.revision, "ready": ready}

    def _compared(self, route: Route) -> Collection[str]:
        """The versions of a rollout or an experiment under way."""
        if route.ramp is not None:
            return (route.ramp.old, route.ramp.new)
        return route.weights if route.model in self._trials else ()

    def told(self, number: int) -> None:
        """The controller has heard a report."""
        if self._unheard is not None and self._unheard["number"] == number:
            self._unheard = None

    def _way(self, route: Route, found: Choice, facts: Facts, counts: bool) -> Way:
        served, since = full(route.model, found.version), self._since.get(route.model, 0)
        if not self._ready(served):  # whoever has a replica answers, rather than nobody
            for version in sorted(route.weights, key=lambda each: -route.weights[each]):
                if version != found.version and self._ready(full(route.model, version)):
                    return Way(route.model, version, full(route.model, version), "not ready", False, since)
        user = f"{facts.tenant}\0{facts.user}"
        trial = self._trials.get(route.model, ("", ""))[0] if found.by == "weights" else ""
        return Way(route.model, found.version, served, found.by, counts, since, user, trial)

    def _stalled(self) -> None:
        """Who has waited too long for a first token has been failed; whose tokens only trickle tells so before the end.

        The gap since the last token says nothing: it may be the client that does not read on.
        """
        now = self.clock()
        for witness in [each for each in self._under_way.values() if now - each.began > STALL_SECONDS]:
            figures = witness.figures
            if not (figures and figures.ttft):
                witness.failed()
            elif figures.itl is not None and not witness.paced:
                self._pace(witness, figures.itl)

    def _pace(self, witness: Witness, itl: float) -> None:
        """The mean gap so far, once: it is no answer yet, and no second one at its end."""
        witness.paced, way = True, witness.way
        if self._current(way):
            self._add((way.model, way.version, way.revision), f"{way.user}\0pace", Arm(itl=Sketch.of(itl)))

    def _note_headers(self) -> None:
        """The headers that rules look at: those alone are let through."""
        self.headers = frozenset(
            name.encode()
            for route in self._routes.values()
            for rule in route.settings.rules
            for name in rule.when.headers
        )

    async def _follow(self, control: Control, heard: asyncio.Event) -> None:
        revision = -1
        while True:
            try:
                table = await _within(control.watch(self._name, revision, WATCH_SECONDS), 2 * WATCH_SECONDS)
            except Exception:  # noqa: BLE001 — its process is being remade; what we have still counts
                revision = -1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            revision = table["revision"]
            if revision != self.revision:
                self.take(table)
            heard.set()

    async def _tell(self, control: Control) -> None:
        while True:
            self._news.clear()
            with suppress(Exception):  # as above: told again
                self.told(await _within(control.report(self._name, self.report()), WATCH_SECONDS))
            busy = any(route.ramp is not None for route in self._routes.values())
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS if busy else IDLE_SECONDS):
                    await self._news.wait()


def full(model: str, version: str) -> str:
    """The name under which a version is served."""
    return model if version == BASE else f"{model}@{version}"


def refuses(head: str) -> bool:
    """Whether an answer begins like a refusal. No judgement: two versions are compared by it."""
    said = head.strip().lower()
    return any(said.startswith(words) or f". {words}" in said for words in REFUSALS)


async def _within(work: Awaitable[Any], seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await work


def _route(model: str, plain: Mapping[str, Any]) -> Route | None:
    """A route from plain values; None for one that newer code wrote and this cannot read."""
    try:
        settings = RouteSettings.model_validate(plain["settings"])
        ramp = Ramp(**plain["ramp"]) if plain["ramp"] else None
        return Route(model, plain["weights"], settings, ramp, plain["seeds"])
    except (ValueError, TypeError, KeyError):
        return None
