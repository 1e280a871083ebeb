"""Follow the release of what was merged: the controller gives it users step by step, and takes it back where it is bad.

Who releases is `pipelines.releaser`, which a merge sets going, and which goes on whether a run follows it or not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.registry.history import numbered
from cluster.errors import InvalidRequest, NotReady, StrataError
from pipelines.lifecycle.declared import seconds
from pipelines.lifecycle.run import Event
from pipelines.lifecycle.work import Outcome, Work
from pipelines.routing.settings import Release
from pipelines.settings import Settings

LOOK_SECONDS = 0.5
ENDS = ("promoted", "rolled back")


def work(at: Work) -> Outcome:
    """Find the rollout of this version, or of one that has it in it, and see how it ends."""
    served, alias, _ = released(at.settings, at.run.model)
    name = at.run.step("canary").made.get("rollout") or _begun(at, served)
    found = _followed(at, name, f"{at.run.model}@{alias}")
    numbers, made = {"seconds": float(found["seconds"])}, {"rollout": name}
    if found["state"] == "promoted":
        return Outcome(f"{name}: {found['reason']}", numbers, made)
    return Outcome(found["reason"], numbers, made, Event.WORSE, f"taken back by its canary: {found['reason']}")


def released(settings: Settings, model: str) -> tuple[str, str, Release]:
    """What a model of the registry is served as, the alias that is live, and the terms of its releases.

    Raises InvalidRequest where what is merged of it is not released.
    """
    for each in settings.models:
        of, _, alias = (each.registry or "").partition("@")
        route = settings.routes.get(each.name)
        if of == model and route is not None and route.release is not None:
            return each.name, alias, route.release
    remedy = f"have `- {{name: {model}, registry: {model}@prod}}` in models and `{model}: {{release: {{}}}}` in routes"
    raise InvalidRequest("canary", f"of {model}, which is not released by itself", remedy)


def rollout_of(
    rollouts: Sequence[Mapping[str, Any]], served: str, holds: Callable[[str], bool]
) -> Mapping[str, Any] | None:  # fmt: skip
    """The first rollout, of the newest first, of a version that `holds` what is looked for; None where there is none.

    What is merged while another release is under way is released with what is merged after it.
    """
    of_it = [each for each in rollouts if each["terms"]["model"] == served and holds(each["terms"]["new"])]
    return of_it[-1] if of_it else None


def share(rollout: Mapping[str, Any]) -> float:
    """How much of a rollout is done, from 0 to 1."""
    return float(rollout.get("step", 0)) / max(1, len(rollout["terms"]["steps"]))


def _begun(at: Work, served: str) -> str:
    """The rollout, once there is one. Raises NotReady where none comes."""
    said, patience = "", _Patience(at)
    while True:
        found = patience.ask("/v1/rollouts")
        ours = None if found is None else rollout_of(found["data"], served, lambda version: _holds(at, version))
        if ours is not None:
            at.keep({"rollout": ours["name"]})
            return str(ours["name"])
        routes = patience.ask("/v1/routes")
        if routes is not None:
            said = next((each.get("waits", "") for each in routes["data"] if each["model"] == served), "")
        at.tell(0.0, said or "its release is about to begin")
        patience.wait(f"no release of {served}@{at.run.made('version')} begins: {said or 'nobody releases it'}")


def _followed(at: Work, name: str, live: str) -> dict[str, Any]:
    """The rollout when it is over and the registry knows."""
    patience = _Patience(at)
    while True:
        found: dict[str, Any] | None = patience.ask(f"/v1/rollouts/{name}")
        if found is not None and found["state"] in ENDS:
            if any(line["event"] == "registry" for line in found["audit"]):
                return found
            at.tell(1.0, f"{name}: {found['state']}, and {live} is to say so")
        elif found is not None:
            patience.renew()
            answers = found["answers"].get("new", 0)
            whose = f"{found['share']:g} % of the users of {found['terms']['old']}"
            at.tell(share(found), f"{name}: {found['state']}, {whose}, {answers} answers")
        patience.wait(f"{name} does not go on: the gateway does not answer")


def _holds(at: Work, version: str) -> bool:
    """Whether a version is ours, or has come out of it."""
    history, ours = at.registry.history(at.run.model), at.run.made("commit")
    commit = numbered(history).get(version)
    return commit is not None and any(each.id == ours for each in history.log(commit))


class _Patience:
    """With a gateway that is deployed anew meanwhile, or busy."""

    def __init__(self, at: Work) -> None:
        assert at.pipeline.canary is not None
        self._at, self._most, self._waited = at, seconds(at.pipeline.canary.patience), 0.0

    def ask(self, path: str) -> Any:
        """What the gateway says; None where it says nothing now."""
        try:
            return self._at.hands.ask("GET", path)
        except StrataError as wrong:
            if not wrong.retryable:
                raise
            return None

    def wait(self, otherwise: str) -> None:
        """A little. Raises NotReady after too much of it."""
        if self._waited >= self._most:
            raise NotReady("the canary", otherwise)
        self._at.hands.pause(LOOK_SECONDS)
        self._waited += LOOK_SECONDS

    def renew(self) -> None:
        """It goes on."""
        self._waited = 0.0
