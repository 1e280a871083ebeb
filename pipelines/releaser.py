"""Merge means release: what is merged is deployed beside who is live, rolled out, and told to the registry at its end.

Works in the process of the controller of releases, looks at the registry every few seconds, and takes one step at a
time, each of which may be taken again: where it ends in between, the next one goes on. Knows the registry and the
controller. How to deploy is told to it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.registry.candidates import Candidate, Candidates
from actors.registry.service import Place, opened
from cluster.errors import Conflict, StrataError
from pipelines.routing.settings import Release

log = logging.getLogger("strata.releases")

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 60.0  # after a deploy that failed, or did not bring the version


class Rollouts(Protocol):
    """Who begins rollouts; see `routing.control.Control`."""

    def owing(self) -> list[dict[str, Any]]: ...

    def running(self, model: str) -> dict[str, Any] | None: ...

    def serves(self, model: str, version: str) -> bool: ...

    def users(self, model: str) -> tuple[str, ...]: ...

    def follow(self, model: str) -> tuple[str, ...]: ...

    def moved(self, model: str, live: str) -> bool: ...

    def hand(self, model: str, version: str, by: str) -> None: ...

    def begun(self, model: str, version: str) -> bool: ...

    def trial(self, model: str) -> str | None: ...

    def upset(self, model: str, versions: Sequence[str]) -> str: ...

    def release(self, asked: Mapping[str, Any], cause: str) -> None: ...

    def tried(self, name: str) -> None: ...

    def stop(self, name: str, by: str, reason: str) -> None: ...

    def paid(self, name: str, said: str) -> None: ...

    def waits(self, model: str, reason: str) -> None: ...

    def spare(self, model: str) -> tuple[tuple[str, ...], float]: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """One model that is released by itself: what it is called in the registry, its alias, the terms."""

    model: str
    name: str
    alias: str
    release: Release


@dataclass
class Releaser:
    """Of all models that are. `deploy` has what the registry says is due served beside what is there."""

    place: Place
    watched: tuple[Watched, ...]
    deploy: Callable[[], Awaitable[None]]
    clock: Callable[[], float] = time.monotonic
    _candidates: Candidates | None = None
    _tried: dict[str, float] = field(default_factory=dict)  # when a version was last deployed
    _lost: dict[str, str] = field(default_factory=dict)  # by model, what became of a release that nobody knew any more

    async def run(self, control: Rollouts) -> None:
        """Until it is cancelled."""
        while True:
            for each in self.watched:
                try:
                    await self.turn(control, each)
                except StrataError as wrong:
                    control.waits(each.model, str(wrong))
                except Exception as wrong:  # a full disk, say: whoever releases must not end with one step
                    log.exception("no_release")
                    control.waits(each.model, f"{type(wrong).__name__}: {wrong}")
            await asyncio.sleep(LOOK_SECONDS)

    async def turn(self, control: Rollouts, watched: Watched) -> None:
        """Take the next step of a model's release, if there is one."""
        if self._candidates is None:
            self._candidates = await asyncio.to_thread(lambda: Candidates(opened(self.place)))
        found = self._candidates
        for rollout in control.owing():
            if rollout["model"] == watched.model:
                control.paid(rollout["name"], await asyncio.to_thread(told, found, watched, rollout))
        running = control.running(watched.model)
        if running is not None:
            if running["owes"]:
                await self._go_on(found, control, watched, running)
            return
        live = await asyncio.to_thread(found.live, watched.name, watched.alias)
        self._hand(control, watched, live)
        due = await asyncio.to_thread(found.next, watched.name, watched.alias, watched.release.on)
        if due is None:
            said = apart(watched, live, control.users(watched.model), control.follow(watched.model))
            control.waits(watched.model, said or self._lost.get(watched.model, ""))
            if not said:
                await asyncio.to_thread(found.settle, watched.name, watched.alias)
                await self._clear(found, control, watched)
        elif control.begun(watched.model, due.version):
            await self._give_up(found, control, watched, due)
        elif trial := control.trial(watched.model):
            remedy = f"`strata experiment end {trial}` ends it"
            control.waits(watched.model, f"{due.version} ({due.cause}) waits for the experiment {trial}; {remedy}")
        elif follow := control.follow(watched.model):
            users = f"users of {' and '.join(control.users(watched.model))} have {' and '.join(follow)}"
            control.waits(watched.model, f"{due.version} ({due.cause}) waits until {users}")
        elif control.serves(watched.model, due.version):
            control.release({"model": watched.model, "to": due.version, **watched.release.asked}, due.cause)
            control.waits(watched.model, "")
        else:
            await self._bring(found, control, watched, due)

    def _hand(self, control: Rollouts, watched: Watched, live: str) -> None:
        """Give users the version that somebody has moved the alias to, where that is served: no deploy brings it.

        An alias that stays where it was takes nobody from what an experiment has kept, say.
        """
        if control.trial(watched.model) or not control.moved(watched.model, live):
            return
        have = control.follow(watched.model) or control.users(watched.model)
        if live not in have and control.serves(watched.model, live):
            control.hand(watched.model, live, f"{watched.name}@{watched.alias} is {live}")

    async def _go_on(self, found: Candidates, control: Rollouts, watched: Watched, running: Mapping[str, Any]) -> None:
        """Have the registry know its version as a canary, once; where somebody made it another since, it goes back."""
        if not running["canary"]:
            await asyncio.to_thread(found.begin, watched.name, running["new"], running["cause"])
            control.tried(running["name"])
            return
        by, reason = await asyncio.to_thread(found.stopped, watched.name, running["new"])
        if reason:
            control.stop(running["name"], by, reason)

    async def _give_up(self, found: Candidates, control: Rollouts, watched: Watched, due: Candidate) -> None:
        """Take back what was begun once and has no rollout: it would be due for ever, and nothing would come after."""
        what = f"{watched.model}@{due.version}"
        why = f"no rollout of {what} is left in releases/state.json, though one was begun"
        await asyncio.to_thread(found.take_back, watched.name, due.version, due.cause, why)
        remedy = f"`strata rollout {watched.model} --to {due.version}` begins one while it is served"
        self._lost[watched.model] = f"{why}: it is a candidate again, and the next merge is released; {remedy}"
        control.waits(watched.model, self._lost[watched.model])

    async def _bring(self, found: Candidates, control: Rollouts, watched: Watched, due: Candidate) -> None:
        key = f"{watched.model}@{due.version}"
        if self._early(key):
            return
        if held := await self._ended(found, control, watched):
            control.waits(watched.model, f"{due.version} ({due.cause}) waits for {held}, which its deploy would end")
            return
        self._tried[key] = self.clock()
        control.waits(watched.model, f"{due.version} ({due.cause}) is being deployed")
        await self.deploy()

    async def _clear(self, found: Candidates, control: Rollouts, watched: Watched) -> None:
        """Give back the place of versions that nobody has used since the last release, once that is a while ago."""
        left, since = control.spare(watched.model)
        if not left or since < watched.release.keep_seconds:
            return
        key = f"{watched.model} without {' and '.join(left)}"
        if self._early(key) or await self._ended(found, control, watched):
            return
        self._tried[key] = self.clock()
        log.info("versions_end", extra={"model": watched.model, "versions": ", ".join(left)})
        await self.deploy()

    def _early(self, key: str) -> bool:
        """Whether the same was deployed a moment ago."""
        return self.clock() - self._tried.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS

    async def _ended(self, found: Candidates, control: Rollouts, watched: Watched) -> str:
        """What a deploy would end of another model, as it brings all of them as the registry has them by now."""
        for other in self.watched:
            if other.model != watched.model:
                versions = await asyncio.to_thread(found.served, other.name, other.alias, other.release.on)
                if held := control.upset(other.model, versions):
                    return f"{held} of {other.model}"
        return ""


def told(found: Candidates, watched: Watched, rollout: Mapping[str, Any]) -> str:
    """Tell the registry how a rollout ended; what was told, in words."""
    name, cause, new = watched.name, rollout["cause"], rollout["new"]
    if rollout["promoted"]:
        try:
            if not rollout["canary"]:
                found.begin(name, new, cause)
            found.release(name, watched.alias, rollout["old"], new, cause)
        except Conflict as wrong:
            live = found.live(name, watched.alias)
            if live == new:  # only stages are missing
                raise
            _, stopped = found.stopped(name, new)
            if stopped:  # by somebody: that counts
                return f"{name}@{watched.alias} stays {live}: {stopped}"
            moved = f"{name}@{watched.alias} was moved to {live} meanwhile"
            found.take_back(name, new, cause, moved)
            return f"{name}@{watched.alias} stays {live}, and {new} is a candidate again: {wrong}"
        return f"{name}@{watched.alias} is {new}"
    found.take_back(name, new, cause, rollout["reason"])
    made = "" if rollout["redeployed"] else found.restore(name, new, watched.alias, watched.release.on, cause)
    live = found.live(name, watched.alias)
    more = f"; {watched.release.on} is {made}, which holds what {live} does" if made else ""
    return f"{name}@{watched.alias} stays {live}{more}"


def apart(watched: Watched, live: str, users: Sequence[str], follow: Sequence[str] = ()) -> str:
    """What is wrong where no user has the version that the alias is at, and what to do; nothing where some have.

    `follow`: the versions that they get as soon as these answer.
    """
    if live in users:
        return ""
    alias, theirs = f"{watched.name}@{watched.alias}", " and ".join(users)
    if live in follow:
        return f"{alias} is {live}: users of {theirs} get it as soon as it answers"
    keep = f"strata models alias {watched.name}@{users[0]} {watched.alias} --from {live}"
    return f"{alias} is {live} and users have {theirs}: `strata deploy` gives them {live}, `{keep}` moves the alias"
