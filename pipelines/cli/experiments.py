"""`strata experiment` and `strata experiments`: ask the gateway for an A/B experiment, show and draw what it found.

Knows words and how they look. What they mean is checked where it is decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.markup import escape

from cluster.errors import InvalidRequest
from pipelines.cli import show
from pipelines.cli.asking import gateway
from pipelines.cli.rollouts import percent, share


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of an experiment, as it was typed."""

    name: str
    arms: str
    metric: str
    rate: str
    effect: str
    users: int
    force: bool

    def body(self, model: str) -> dict[str, Any]:
        """The same for the gateway. Raises InvalidRequest."""
        if not self.arms:
            raise InvalidRequest("--arms", "nothing", "give percent by version, such as v6=50,v7=50")
        return {
            "name": self.name or model.replace("/", "-"),
            "model": model,
            "arms": _arms(self.arms),
            "metric": self.metric,
            "rate": share("--rate", self.rate),
            "effect": share("--effect", self.effect),
            "users": self.users,
            "force": self.force,
        }


def run(
    words: Sequence[str], asked: Asked, keep: str | None, file: Path | None, url: str | None, *, as_json: bool
) -> None:
    """Begin an experiment with a model, or end one."""
    if words[0] == "end" and len(words) == 2:
        path, body = f"/v1/experiments/{quote(words[1], safe='')}", {"action": "end"} | ({"keep": keep} if keep else {})
    elif words == ["end"] and not asked.arms:
        raise InvalidRequest("MODEL", "end", "name the experiment: `strata experiments` lists them")
    elif len(words) == 1:
        path, body = "/v1/experiments", asked.body(words[0])
    else:
        raise InvalidRequest("MODEL", " ".join(words), "give a model and --arms, or `end` and an experiment")
    with gateway(file, url) as strata:
        told = strata.request("POST", path, body)
    _show(told, as_json=as_json)


def listing(name: str | None, picture: Path | None, file: Path | None, url: str | None, *, as_json: bool) -> None:
    """All experiments, or one, which may be drawn."""
    if picture is not None and name is None:
        raise InvalidRequest("--picture", str(picture), "name the experiment to draw")
    if picture is not None:
        show.refuse_picture(picture)
    with gateway(file, url) as strata:
        if name is None:
            told = strata.request("GET", "/v1/experiments")
        else:
            told = strata.request("GET", f"/v1/experiments/{quote(name, safe='')}")
    if picture is not None:
        from pipelines.routing.experiment import picture as drawn  # noqa: PLC0415 - only where one is drawn

        picture.write_text(drawn(told))
    if name is not None:
        _show(told, as_json=as_json)
    elif as_json:
        show.document(told)
    else:
        rows = [
            (each["name"], each["model"], each["metric"], "over" if each["over"] else "on") for each in told["data"]
        ]
        show.table(("experiment", "model", "looks at", ""), rows)


def row(arm: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """One arm in a table."""
    mean = arm["mean"]
    told = f"{mean['looks']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})" if mean else ""
    return arm["version"], str(arm["users"]), told, arm["said"]


def _show(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.document(told)
        return
    show.line(escape(f"{told['name']}: {told['metric']} of {told['model']}, {'over' if told['over'] else 'on'}"))
    show.table(("version", "users", "mean", ""), [row(arm) for arm in told["findings"]])


def _arms(text: str) -> dict[str, float]:
    found = dict[str, float]()
    for each in text.split(","):
        version, users = _arm(each)
        if version in found:
            raise InvalidRequest("--arms", text, f"{version} is named twice; name each version once")
        found[version] = users
    return found


def _arm(text: str) -> tuple[str, float]:
    version, _, users = text.strip().partition("=")
    return version, percent("--arms", users)
