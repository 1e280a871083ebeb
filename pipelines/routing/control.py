"""The one owner of routes while they change: rollouts, the weights that gateways use, what came of their answers.

A plain class that a process of its own runs. Gateways watch it for routes and report answers; it decides with every
report, keeps all of it in a ledger, and goes on from there after a restart. Speaks plain values, as a gateway may run
other code of ours than this for a while. Every call from one event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.news import News
from cluster.errors import InvalidRequest, NotFound
from pipelines.routing import accounts, asking, cases, reroute, trials
from pipelines.routing.arms import Arms
from pipelines.routing.casebook import Casebook
from pipelines.routing.evidence import Arm, Score
from pipelines.routing.handover import Handovers
from pipelines.routing.hearing import Gateways
from pipelines.routing.ledger import Ledger
from pipelines.routing.rollout import (
    AT_A_STEP,
    COMMANDS,
    MOVES,
    Event,
    Record,
    Rollout,
    Seen,
    State,
    command,
    decide,
    findings,
    moved,
)
from pipelines.routing.route import Route, first
from pipelines.routing.settings import WHOLE, RouteSettings, weights_of
from pipelines.routing.trials import Trials, shown

if TYPE_CHECKING:
    from pipelines.releaser import Releaser

log = logging.getLogger("strata.releases")

LOOK_SECONDS = 0.5
KEPT = 100  # rollouts that are over and still shown; the audit has all

Plain = dict[str, Any]


class Control:
    """All releases of a cluster."""

    def __init__(
        self,
        routes: Mapping[str, Mapping[str, Any]],
        versions: Mapping[str, Sequence[str]],
        folder: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        evals: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] | None = None,
        releaser: "Releaser | None" = None,
    ) -> None:
        """`routes`, `versions` and `evals`, the questions of a model by name, are those of the settings, all plain.

        `releaser`: who begins rollouts by itself, in this process.
        """
        self._clock, self._wall = clock, wall
        self._versions = {model: tuple(each) for model, each in versions.items()}
        self._settings = {model: RouteSettings.model_validate(routes.get(model, {})) for model in versions}
        self._evals = {
            model: {name: cases.of(rows, f"routes.{model}.evals.{name}") for name, rows in sets.items()}
            for model, sets in (evals or {}).items()
        }
        self._ledger, self._casebook = Ledger(Path(folder)), Casebook(Path(folder) / "evals")
        self._trials = Trials()
        self._rollouts: dict[str, Rollout] = {}
        self._arms: dict[str, Arms] = {}
        self._routes: dict[str, Route] = {}
        self._live: dict[str, str] = {}  # who is, by the registry, of models that are released by themselves
        self._unsaved = False
        self._releaser, self._waits = releaser, dict[str, str]()
        self._tasks: list[asyncio.Task[None]] = []
        self._load(self._ledger.load())
        starts = (line for line in self._ledger.audit() if line.get("event") == "start" and line.get("cause"))
        self._begun = {(line["model"], line["new"]) for line in starts}

    async def watch(self, gateway: str, revision: int, seconds: float) -> Plain:  # noqa: ARG002
        """The routes once they are newer than `revision`, or after `seconds`."""
        self._look()
        await self._news.beyond(revision, seconds)
        return {"revision": self._news.revision, "routes": {model: self._shown(model) for model in self._routes}}

    async def report(self, gateway: str, report: Mapping[str, Any]) -> int:
        """What a gateway uses and has answered; the number of the last report that counted, as one may come twice."""
        self._look()
        if self._gateways.report(gateway, report):
            self._unsaved = True
            for each in report["arms"]:
                self._add(each["model"], each["version"], each["revision"], Arm.of(each["arm"]))
            for each in report.get("outcomes", ()):
                score = Score(int(each["count"]), float(each["total"]))
                self._trials.heard(each["model"], each["version"], each["metric"], score)
            for each in report.get("grades", ()):
                self._grade(each)
        for rollout in self._running():
            self._gateways.look(rollout.terms.model, rollout.terms.new)
        self._decide()
        return int(report["number"])

    async def start(self, asked: Mapping[str, Any], by: str) -> Plain:
        """Begin a rollout. Raises InvalidRequest, NotFound or Conflict."""
        return self._start(asked, by)

    def release(self, asked: Mapping[str, Any], cause: str) -> None:
        """Begin the rollout of a version that `cause` has brought, unless it was: once for each. Raises as `start`."""
        if not self.begun(asked["model"], asked["to"]):
            self._start(asked, f"merge request {cause}" if cause.startswith("!") else cause, cause)
            self._begun.add((asked["model"], asked["to"]))

    def begun(self, model: str, version: str) -> bool:
        """Whether a rollout of it has begun by itself, ever: the audit knows, whatever became of the state."""
        return (model, version) in self._begun

    def owing(self) -> list[Plain]:
        """The rollouts that are over and that the registry is to be told of."""
        return [accounts.owed(rollout) for rollout in self._rollouts.values() if rollout.owes and rollout.over]

    def paid(self, name: str, said: str) -> None:
        """The registry has been told of one."""
        rollout = self._rollouts[name]
        self._rollouts[name] = replace(rollout, owes=False)
        self._save([accounts.line(rollout, None, "") | {"event": "registry", "reason": said}])

    def tried(self, name: str) -> None:
        """The registry knows the version of a rollout as a canary."""
        self._rollouts[name] = replace(self._rollouts[name], canary=True)
        self._save()

    def stop(self, name: str, by: str, reason: str) -> None:
        """Take a rollout back whose version somebody has stopped elsewhere; nothing where it is on its way back."""
        rollout = self._rollouts[name]
        if (rollout.state, Event.ABORT) in MOVES:
            seen = self._seen(rollout)
            after, records = moved(rollout, Event.ABORT, reason, self._wall(), findings(rollout, seen), seen)
            self._keep(rollout, after, records, by)

    def running(self, model: str) -> Plain | None:
        """The rollout of a model that is not over."""
        return next((accounts.owed(rollout) for rollout in self._running() if rollout.terms.model == model), None)

    def serves(self, model: str, version: str) -> bool:
        """Whether gateways know it."""
        return version in self._versions.get(model, ())

    def trial(self, model: str) -> str | None:
        """The name of the experiment that runs with a model."""
        found = self._trials.running(model)
        return found.name if found else None

    def upset(self, model: str, versions: Sequence[str]) -> str:
        """The rollout or the experiment of a model that a deploy of these `versions` would end; see `_load`."""
        there, route, trial = set(versions), self._routes[model], self._trials.running(model)
        declared = weights_of(self._settings[model], versions)
        same = declared == self._declared(model)["weights"] and set(route.weights) <= there
        ramps = [each for each in self._running() if each.terms.model == model]
        ended = [each for each in ramps if not same or not {each.terms.old, each.terms.new} <= there]
        if ended:
            return f"the rollout {ended[0].name}"
        return f"the experiment {trial.name}" if trial and not same else ""

    def users(self, model: str) -> tuple[str, ...]:
        """The versions that have users of a model, the one with most first."""
        weights = self._routes[model].weights
        return tuple(sorted((version for version, share in weights.items() if share), key=lambda name: -weights[name]))

    def follow(self, model: str) -> tuple[str, ...]:
        """The versions that its users get as soon as these answer; none where they have what a deploy gave them."""
        return self._handovers.follow(model)

    def moved(self, model: str, live: str) -> bool:
        """Whether the registry says that another version is `live` than it did when this was asked last."""
        before = self._live.get(model)
        if before != live:
            self._live[model] = live
            self._save()
        return before not in (None, live)

    def hand(self, model: str, version: str, by: str) -> None:
        """Give all users of a model a version that is served here, as soon as it answers."""
        self._handovers.set(model, {version: WHOLE}, by)
        self._save()

    def spare(self, model: str) -> tuple[tuple[str, ...], float]:
        """Versions of a model that no user has since a release of it, and for how many seconds by now.

        Of one that is released by itself, beside which there are no rules and no shadow.
        """
        over = [each for each in self._rollouts.values() if each.terms.model == model]
        ended = [each.ended for each in over if each.ended is not None]
        tried = {version for each in over for version in (each.terms.old, each.terms.new)}  # others are yet to come
        left, at = self._handovers.left(model)
        if at is not None:
            ended.append(at)
            tried.update(left)
        if not ended or self.running(model) or self.trial(model) or self.follow(model):
            return (), 0.0
        spare = tried - set(self.users(model))
        since = max(0.0, self._wall() - max(ended))
        return tuple(version for version in self._versions[model] if version in spare), since

    def waits(self, model: str, reason: str) -> None:
        """Why a release does not go on; nothing where it does."""
        if reason and reason != self._waits.get(model):
            log.info("release_waits", extra={"model": model, "reason": reason})
            self._save([{"release": model, "event": "waits", "reason": reason}])
        self._waits[model] = reason

    def _start(self, asked: Mapping[str, Any], by: str, cause: str = "") -> Plain:
        weights = {model: route.weights for model, route in self._routes.items()}
        model, given = str(asked.get("model")), asking.evals(asked)
        sets = {**self._evals.get(model, {}), **given}
        shadow = self._routes[model].settings.shadow if model in self._routes else None
        terms = asking.terms(asked, self._versions, weights, sets, shadow.version if shadow else None)
        for rollout in self._running():
            if rollout.terms.model == terms.model:
                raise accounts.held(rollout)
        self._handovers.settled(terms.model)
        if trial := self._trials.running(terms.model):
            raise trials.held(trial)
        route = self._routes[terms.model]
        now = self._wall()
        made = Rollout(
            self._name(terms.model, terms.new), terms, entered=now, began=now, by=by, cause=cause,
            owes=route.settings.release is not None, before=dict(route.weights),
        )  # fmt: skip
        if not asked.get("dry_run"):
            for name in terms.evals:
                self._casebook.keep(sets[name])
            self._rollouts[made.name] = made
            self._gateways.begin(terms.model)
            self._news.bump()
            self._save([accounts.line(made, None, by)])
        return self._told_of(made)

    async def command(self, name: str, verb: str, by: str) -> Plain:
        """Pause, resume, abort or promote a rollout. Raises NotFound, InvalidRequest or Conflict."""
        rollout = self._rollout(name)
        if verb not in COMMANDS:
            raise InvalidRequest("action", verb, f"give one of {', '.join(COMMANDS)}")
        after, records = command(rollout, Event(verb), by, self._wall(), self._seen(rollout))
        self._keep(rollout, after, records, by)
        self._decide()
        return self._told_of(self._rollouts[name])

    async def rollouts(self) -> list[Plain]:
        """All that are known, newest first."""
        self._decide()
        found = sorted(self._rollouts.values(), key=lambda each: each.began, reverse=True)
        return [self._told_of(rollout) for rollout in found]

    async def rollout(self, name: str) -> Plain:
        """One, with what the audit has of it. Raises NotFound."""
        self._decide()
        found = self._rollout(name)
        looks = [] if found.over else [str(each) for each in findings(found, self._seen(found))]
        audit = [line for line in self._ledger.audit() if line.get("rollout") == name]
        return self._told_of(found) | {"findings": looks, "audit": audit}

    async def cases(self, digest: str) -> list[Plain]:
        """The questions of a set. Raises NotFound."""
        return self._casebook.find(digest).plain

    async def experiment(self, asked: Mapping[str, Any], by: str) -> Plain:
        """Begin an A/B experiment. Raises InvalidRequest, NotFound or Conflict."""
        for rollout in self._running():
            if rollout.terms.model == asked.get("model"):
                raise accounts.held(rollout)
        self._handovers.settled(str(asked.get("model")))
        weights = {model: route.weights for model, route in self._routes.items()}
        made = self._trials.start(asked, self._versions, weights, by, self._wall())
        self._weigh(made.model, made.arms)
        self._save([{"experiment": made.name, "event": "start", "by": by, "terms": made.plain}])
        return shown(made)

    async def end(self, name: str, keep: str | None, by: str) -> Plain:
        """End an experiment: all users get `keep`, or the versions that they had before. Raises as `experiment`."""
        found = self._trials.find(name)
        if keep is not None and keep not in found.arms:
            raise InvalidRequest("keep", keep, f"name one of {', '.join(found.arms)}, or leave it out")
        self._trials.end(name, self._wall())
        self._weigh(found.model, found.before if keep is None else {keep: WHOLE})
        told = shown(self._trials.find(name))
        line = {"experiment": name, "event": "end", "by": by, "keep": keep, "findings": told["findings"]}
        self._save([line])
        return told

    async def experiments(self) -> list[Plain]:
        """All that are known, newest first."""
        return self._trials.all()

    async def routes(self) -> list[Plain]:
        """Which versions there are of each model, and who has which share."""
        return [
            {
                "model": model,
                **self._shown(model),
                "waits": self._waits.get(model, ""),
                "spare": self._spared(model),
                "follow": list(self.follow(model)),
            }
            for model in self._routes
        ]

    async def route(self, model: str) -> Plain:
        """One of them as it may be set again, with who set it. Raises NotFound."""
        (told,) = [each for each in await self.routes() if each["model"] == self._known(model)]
        audit = [line for line in self._ledger.audit() if line.get("route") == model]
        more = {name: told[name] for name in ("versions", "ramp", "trial", "waits", "spare", "follow")}
        return {"model": model, **reroute.shown(self._routes[model]), **more, "audit": audit}

    async def reroute(self, model: str, asked: Mapping[str, Any], by: str) -> Plain:
        """Set a route. Raises NotFound, InvalidRequest, or Conflict while something else moves the model's users or
        where it leads to what has no replica.
        """
        route, versions = self._routes[self._known(model)], self._versions[model]
        settings = reroute.settings(asked, self._settings[model], model, versions)
        made = replace(route.weighed(weights_of(settings, versions)), settings=settings)
        self._free(model)
        self._gateways.require(model, made.versions, versions)
        was, now = reroute.shown(route), reroute.shown(made)
        self._routes[model] = made
        self._news.bump()
        self._save([{"route": model, "event": "set", "by": by, "was": was, "now": now}])
        log.info("route_set", extra={"model": model, "by": by})
        return await self.route(model)

    def _spared(self, model: str) -> Plain | None:
        """Of a model that is released by itself: the versions without users, and the seconds until they end."""
        release, (left, since) = self._settings[model].release, self.spare(model)
        return {"versions": list(left), "seconds": max(0.0, release.keep_seconds - since)} if release and left else None

    def _known(self, model: str) -> str:
        if model not in self._routes:
            raise NotFound("model", model, tuple(sorted(self._routes)))
        return model

    def _free(self, model: str) -> None:
        """Raises Conflict while a rollout or an experiment has the model's users."""
        for rollout in self._running():
            if rollout.terms.model == model:
                raise accounts.held(rollout)
        if trial := self._trials.running(model):
            raise trials.held(trial)

    def _look(self) -> None:
        """Decide from now on, whether anybody reports or not."""
        if not self._tasks:
            self._tasks = [asyncio.ensure_future(self._run())]
            if self._releaser is not None:
                self._tasks.append(asyncio.ensure_future(self._releaser.run(self)))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._decide()
                if self._unsaved:
                    self._save()
            except Exception:  # a full disk, say: whoever decides must not end with one decision
                log.exception("no decision")

    def _decide(self) -> None:
        self._gateways.forget()
        self._hand_over()
        for rollout in self._running():
            after, records = decide(rollout, self._seen(rollout), self._wall())
            if records:
                self._keep(rollout, after, records, "")

    def _hand_over(self) -> None:
        """Give users what a deploy said, where that answers by now."""
        for model, found in list(self._handovers.due(self._gateways.answers)):
            was = reroute.shown(self._routes[model])
            self._handovers.done(model, self.users(model), self._wall())
            self._weigh(model, found.to)
            now = reroute.shown(self._routes[model])
            self._save([{"route": model, "event": "set", "by": found.by, "was": was, "now": now}])
            log.info("users_followed", extra={"model": model, "versions": ", ".join(found.to)})

    def _seen(self, rollout: Rollout) -> Seen:
        terms, arms = rollout.terms, self._arms.get(rollout.name, Arms(self._news.revision))
        warm, told = self._gateways.ready(terms.model, terms.new), self._gateways.know(self._news.revision)
        new, old = (arms.judged(at, arm, terms.evals) for at, arm in ((terms.new, arms.new), (terms.old, arms.old)))
        return Seen(warm, told, self._gateways.lost(terms.model), new, old)

    def _add(self, model: str, version: str, revision: int, arm: Arm) -> None:
        for rollout in self._running():
            arms, terms = self._arms.get(rollout.name), rollout.terms
            if terms.model != model or arms is None or revision < arms.since:
                continue
            if version == terms.new:
                arms.new += arm
            elif version == terms.old:
                arms.old += arm

    def _grade(self, grade: Mapping[str, Any]) -> None:
        """A question that a gateway has asked, unless it was for another step."""
        rollout, arms = self._rollouts.get(grade["rollout"]), self._arms.get(grade["rollout"])
        if rollout is None or arms is None or rollout.step != grade["step"] or grade["name"] not in rollout.terms.evals:
            return
        arms.graded(grade["version"], grade["name"], int(grade["case"]), bool(grade["right"]))

    def _keep(self, before: Rollout, after: Rollout, records: Sequence[Record], by: str) -> None:
        """A rollout that has moved: the gateways and the ledger know next."""
        model = after.terms.model
        if after.state is State.PROMOTED:
            self._routes[model] = self._routes[model].replaced(after.terms.old, after.terms.new)
        self._rollouts[after.name] = after
        if after.share != before.share or after.over:
            self._news.bump()
            self._arms[after.name] = Arms(self._news.revision)
        if after.over:
            self._arms.pop(after.name, None)
            self._forget()
        for record in records:
            log.info(
                "rollout_moved",
                extra={"rollout": after.name, "was": record.was, "now": record.now, "reason": record.reason},
            )
        self._save([accounts.line(after, record, by) for record in records])

    def _weigh(self, model: str, weights: Mapping[str, float]) -> None:
        """Other weights; the gateways know next."""
        self._routes[model] = self._routes[model].weighed(weights)
        self._news.bump()

    def _shown(self, model: str) -> Plain:
        """A route as gateways take it."""
        route, ramp, evals, since = self._routes[model], None, None, 0
        settings = route.settings.model_dump(mode="json")
        for rollout in self._running():
            if rollout.terms.model == model:
                terms = rollout.terms
                since = self._arms[rollout.name].since if rollout.name in self._arms else 0
                ramp = {"old": terms.old, "new": terms.new, "share": rollout.share}
                if terms.evals and rollout.state in AT_A_STEP:
                    sets = {name: each["digest"] for name, each in terms.evals.items()}
                    evals = {"rollout": rollout.name, "step": rollout.step, "sets": sets}
                if terms.mirror is not None:
                    settings["shadow"] = {"version": terms.new, "share": terms.mirror}
        trial = self._trials.running(model)
        return {
            "versions": list(self._versions[model]),
            "weights": dict(route.weights),
            "seeds": dict(route.seeds),
            "ramp": ramp,
            "since": since,
            "settings": settings,
            "trial": [trial.name, trial.metric] if trial else None,
            "evals": evals,
        }

    def _running(self) -> list[Rollout]:
        return [rollout for rollout in self._rollouts.values() if not rollout.over]

    def _rollout(self, name: str) -> Rollout:
        if name not in self._rollouts:
            raise NotFound("rollout", name, tuple(self._rollouts))
        return self._rollouts[name]

    def _name(self, model: str, new: str) -> str:
        plain = f"{model.replace('/', '-')}-{new}"
        taken = {line.get("rollout") for line in self._ledger.audit()} | self._rollouts.keys()
        return next(
            name for name in (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3))) if name not in taken
        )

    def _told_of(self, rollout: Rollout) -> Plain:
        return accounts.told(rollout, self._arms.get(rollout.name), self._wall())

    def _forget(self) -> None:
        over = sorted(
            (each for each in self._rollouts.values() if each.over and not each.owes), key=lambda each: each.began
        )
        for rollout in over[: max(0, len(over) - KEPT)]:
            del self._rollouts[rollout.name]
        self._casebook.sweep(
            {each["digest"] for rollout in self._rollouts.values() for each in rollout.terms.evals.values()}
        )

    def _save(self, lines: Sequence[Plain] = ()) -> None:
        self._unsaved = False
        state = {
            "heard": self._gateways.numbers,
            "revision": self._news.revision,
            "declared": {model: self._declared(model) for model in self._routes},
            "routes": {
                model: {
                    "weights": dict(route.weights),
                    "seeds": dict(route.seeds),
                    "parts": reroute.parts(route.settings),
                }
                for model, route in self._routes.items()
            },
            "live": self._live,
            "handovers": self._handovers.plain,
            "experiments": self._trials.plain,
            "rollouts": [rollout.plain for rollout in self._rollouts.values()],
            "arms": {name: arms.plain for name, arms in self._arms.items()},
        }
        self._ledger.save(state, lines)

    def _load(self, state: Plain) -> None:
        """What was kept; weights that the settings say anew count from now on, and end a rollout of that model.

        Of one that is released by itself they count when what they lead to answers, if who has the users is there.
        """
        self._news = News(int(state.get("revision", 0)) + 1)
        self._gateways = Gateways(self._clock, state.get("heard", {}))
        self._trials = Trials(state.get("experiments", ()))
        self._rollouts = {each["name"]: Rollout.of(each) for each in state.get("rollouts", ())}
        self._arms = {name: Arms.of(each) for name, each in state.get("arms", {}).items()}
        self._live = dict(state.get("live", {}))
        renewed, lines = set(), list[Plain]()
        self._handovers, handed = Handovers(), state.get("handovers", {})
        for model, versions in self._versions.items():
            route, kept = first(model, self._settings[model], versions), state.get("routes", {}).get(model)
            if kept:
                was = state["declared"].get(model, {})
                settings, lost = reroute.restored(route.settings, was, kept.get("parts"), versions)
                route = replace(route, settings=settings)
                if lost:
                    line = {"event": "end", "by": "the settings", "reason": _RENEWED, "now": reroute.shown(route)}
                    lines.append({"route": model, **line})
                same, there = was.get("weights") == route.weights, set(kept["weights"]) <= set(versions)
                follow = there and settings.release is not None and not same and kept["weights"] != route.weights
                if follow:
                    self._handovers.set(model, route.weights, "the settings")
                elif same and there and model in handed:
                    self._handovers.keep(model, handed[model])
                if there and (same or follow):
                    route = replace(route, weights=kept["weights"], seeds=kept["seeds"])
                if not (there and same):
                    renewed.add(model)
            self._routes[model] = route
        for rollout in [rollout for rollout in self._running() if self._lacks(rollout, renewed)]:
            self._rollouts[rollout.name], line = accounts.redeployed(rollout, self._wall())
            self._arms.pop(rollout.name, None)
            lines.append(line)
        for trial in [trial for model in renewed if (trial := self._trials.running(model))]:
            self._trials.end(trial.name, self._wall())
            lines.append(
                {"experiment": trial.name, "event": "end", "by": "the settings", "reason": accounts.REDEPLOYED}
            )
        self._save(lines)

    def _declared(self, model: str) -> Plain:
        settings, versions = self._settings[model], self._versions[model]
        return {"weights": weights_of(settings, versions), **reroute.parts(settings)}

    def _lacks(self, rollout: Rollout, renewed: set[str]) -> bool:
        terms = rollout.terms
        there = self._versions.get(terms.model, ())
        return terms.model in renewed or terms.old not in there or terms.new not in there


_RENEWED = "a deploy changed the rules or the shadow of this model, or took off a version that they lead to"
