"""Merge means release: what is merged is deployed beside who is live, rolled out, and told to the registry at its end.

Works in the process of the controller of releases, looks at the registry every few seconds, and takes one step at a
time, each of which may be taken again: where it ends in between, the next one goes on. Knows the registry and the
controller. How to deploy is told to it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
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

    def release(self, asked: Mapping[str, Any], cause: str) -> None: ...

    def paid(self, name: str, said: str) -> None: ...

    def waits(self, model: str, reason: str) -> None: ...


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
                await asyncio.to_thread(found.begin, watched.name, running["new"], running["cause"])
            return
        due = await asyncio.to_thread(found.next, watched.name, watched.alias, watched.release.on)
        if due is None:
            control.waits(watched.model, "")
        elif control.serves(watched.model, due.version):
            control.release({"model": watched.model, "to": due.version, **watched.release.asked}, due.cause)
            control.waits(watched.model, "")
        else:
            await self._bring(control, watched, due)

    async def _bring(self, control: Rollouts, watched: Watched, due: Candidate) -> None:
        now, key = self.clock(), f"{watched.model}@{due.version}"
        if now - self._tried.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        self._tried[key] = now
        control.waits(watched.model, f"{due.version} ({due.cause}) is being deployed")
        await self.deploy()


def told(found: Candidates, watched: Watched, rollout: Mapping[str, Any]) -> str:
    """Tell the registry how a rollout ended; what was told, in words."""
    name, cause, new = watched.name, rollout["cause"], rollout["new"]
    if rollout["promoted"]:
        try:
            found.release(name, watched.alias, rollout["old"], new, cause)
        except Conflict as wrong:  # somebody has moved the alias: that counts
            return f"{name}@{watched.alias} stays: {wrong}"
        return f"{name}@{watched.alias} is {new}"
    found.take_back(name, new, cause, rollout["reason"])
    return f"{name}@{watched.alias} stays {found.live(name, watched.alias)}"
