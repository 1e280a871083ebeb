"""`strata rollout` and `strata rollouts`: ask the gateway for a rollout, and show what became of those there are.

Knows words and how they look. What they mean is checked where it is decided.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.markup import escape

from cluster.errors import InvalidRequest
from pipelines.cli import show
from pipelines.cli.asking import gateway

BLIND = "nothing takes it back, whatever it answers (--margin off, and no --abort-if): only you do"
VERBS = ("pause", "resume", "abort", "promote")
FLAGS = {name: f"--{name.replace('_', '-')}" for name in ("steps", "abort_if", "margin", "answers", "mirror")} | {
    "every_seconds": "--every", "evals": "--eval",
}  # fmt: skip
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(%?)")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of a rollout, as it was typed."""

    to: str | None
    source: str | None
    steps: str
    every: str
    abort_if: Sequence[str]
    margin: str
    answers: int
    mirror: str | None
    evals: Sequence[str]
    dry_run: bool

    def body(self, model: str) -> dict[str, Any]:
        """The same for the gateway. Raises InvalidRequest."""
        if self.to is None:
            raise InvalidRequest(
                "--to", "nothing", "name the version to roll out, or give pause, resume, abort or promote"
            )
        body = {
            "model": model,
            "to": self.to,
            "steps": [percent("--steps", step) for step in self.steps.split(",")],
            "every_seconds": seconds("--every", self.every),
            "abort_if": list(self.abort_if),
            "margin": None if self.margin == "off" else share("--margin", self.margin),
            "answers": self.answers,
            "dry_run": self.dry_run,
        }
        more: dict[str, Any] = {"from": self.source} if self.source else {}
        if self.evals:
            more["evals"] = dict(map(questions, self.evals))
        return judged(body | more | ({"mirror": percent("--mirror", self.mirror)} if self.mirror else {}))


def judged(body: dict[str, Any]) -> dict[str, Any]:
    """The same, if some gateway could begin it. Raises InvalidRequest of the flag."""
    from pipelines.routing import asking  # noqa: PLC0415 - it knows rules and their figures, and few begin a rollout

    try:
        asking.check(body)
    except InvalidRequest as wrong:
        raise InvalidRequest(
            FLAGS.get(re.split(r"[.\[]", wrong.field)[0], wrong.field), wrong.value, wrong.remedy
        ) from None
    return body


def run(words: Sequence[str], asked: Asked, file: Path | None, url: str | None, *, as_json: bool) -> None:
    """Begin a rollout of the model, or say a verb to one that runs."""
    path, body = "/v1/rollouts", dict[str, Any]()
    if words[0] in VERBS and len(words) == 2 and asked.to is None:
        path, body = f"{path}/{quote(words[1], safe='')}", {"action": words[0]}
    elif words[0] in VERBS and len(words) == 1 and asked.to is None:
        remedy = f"name the rollout, such as strata rollout {words[0]} chat-v7; `strata rollouts` lists them"
        raise InvalidRequest("MODEL", words[0], remedy)
    elif len(words) == 1:
        body = asked.body(words[0])
    else:
        raise InvalidRequest("MODEL", " ".join(words), "give a model and --to VERSION, or a verb and a rollout")
    with gateway(file, url) as strata:
        told = strata.request("POST", path, body)
    if as_json:
        show.document(told)
    elif asked.dry_run:
        for line in plan(told):
            show.line(escape(line))
    else:
        if len(words) == 1:
            show.line(escape(f"{told['name']}: {ladder(told)} of the users, one after the other"))
            if blind(told["terms"]):
                show.line(escape(f"{told['name']}: {BLIND}"))
        whose = f"{told['share']:g} % of the users of {told['terms']['old']}"
        show.line(escape(f"{told['name']}: {told['state']}, {whose}. See `strata rollouts`"))


def listing(name: str | None, file: Path | None, url: str | None, *, as_json: bool) -> None:
    """All rollouts, or one with every step that it took."""
    path = "/v1/rollouts" if name is None else f"/v1/rollouts/{quote(name, safe='')}"
    with gateway(file, url) as strata:
        told = strata.request("GET", path)
    if as_json:
        show.document(told)
    elif name is None:
        show.table(("rollout", "state", "users", "answers", "why"), [row(each) for each in told["data"]])
    else:
        show.table(("rollout", "state", "users", "answers", "why"), [row(told)])
        for line in told["findings"]:
            show.line(escape(line))
        show.table(("when", "what", "users", "answers", "why"), [step(line) for line in told["audit"]])


def row(rollout: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """One rollout in a table."""
    counted = rollout["answers"]
    answers = f"{counted['new']} / {counted['old']}" if counted else ""
    return rollout["name"], rollout["state"], f"{rollout['share']:g} %", answers, rollout["reason"]


def step(line: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """One line of its audit in a table."""
    when = datetime.fromtimestamp(line["at"], UTC).strftime("%H:%M:%S")
    if line["event"] == "start":
        return when, "start", "", "", f"by {line['by']}"
    if line["event"] == "registry":
        return when, "registry", "", "", line["reason"]
    return (
        when,
        f"{line['was']} → {line['now']}",
        f"{line['share']:g} %",
        f"{line['answers']} / {line['beside']}",
        line["reason"],
    )


def plan(rollout: Mapping[str, Any]) -> list[str]:
    """What a rollout would do, in words."""
    terms = rollout["terms"]
    each = f"each for {terms['every_seconds']:g} s and {terms['answers']} answers"
    rules = [f"  taken back if {text}" for text in terms["abort_if"]]
    if terms["margin"] is not None:
        rules.append(f"  taken back if it is {100 * terms['margin']:g} % slower, or fails or refuses more")
    asked = [f"  both are asked {each['questions']} questions for eval.{name}" for name, each in terms["evals"].items()]
    return [
        f"{terms['model']}: {terms['old']} → {terms['new']}, nothing was begun",
        f"  {ladder(rollout)} of the users of {terms['old']}, {each}",
        *asked,
        *rules,
        f"  {BLIND}" if blind(terms) else
        f"  a version that is no worse is taken back with a chance of at most {100 * terms['alpha']:g} %",
    ]  # fmt: skip


def blind(terms: Mapping[str, Any]) -> bool:
    """Whether no rule can take a version back."""
    return terms["margin"] is None and not terms["abort_if"]


def ladder(rollout: Mapping[str, Any]) -> str:
    """Its steps, of which the last is always all."""
    return ", ".join(f"{step:g} %" for step in rollout["terms"]["steps"])


def questions(text: str) -> tuple[str, list[dict[str, Any]]]:
    """The name and the questions of NAME=FILE. Raises InvalidRequest."""
    from pipelines.evals import HELD_OUT, cases_of  # noqa: PLC0415 - it knows all settings, and few give any

    name, _, source = text.partition("=")
    if not name or not source:
        raise InvalidRequest("--eval", text, f"write NAME=FILE.jsonl, or NAME={HELD_OUT}")
    return name, cases_of(source).plain


def seconds(field: str, text: str) -> float:
    """A duration such as 10m. Raises InvalidRequest."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(field, text, "give a time such as 30s, 10m or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def percent(field: str, text: str) -> float:
    """A percentage. Raises InvalidRequest."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(field, text, "give a percentage such as 5 or 0.5%")
    return float(found[1])


def share(field: str, text: str) -> float:
    """A percentage, or a number below 1, as `--abort-if` and HTTP have shares. Raises InvalidRequest."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(field, text, "give a share such as 20% or 0.2")
    if found[2]:
        return float(found[1]) / 100
    if float(found[1]) >= 1:
        raise InvalidRequest(field, text, f"it is a share: say {found[1]}% or {float(found[1]) / 100:g}")
    return float(found[1])
