"""What somebody asks a rollout to be, as a body has it, made into terms, or refused by the field.

Knows fields, versions and weights. Knows no state.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cluster.errors import InvalidRequest, NotFound, SettingsInvalid, sent
from pipelines.routing import cases
from pipelines.routing.cases import NAME, SETS, Cases
from pipelines.routing.rollout import Terms
from pipelines.routing.settings import STEPS, WHOLE, RouteSettings
from pipelines.routing.verdict import rule

FIELDS = frozenset(
    {"model", "to", "from", "steps", "every_seconds", "abort_if", "margin", "answers", "mirror", "evals", "dry_run"}
)
MOST_STEPS, MOST_RULES = 100, 20
_EVAL = re.compile(r"eval\.([a-z0-9_]+)")
LONGEST = 30 * 86_400.0  # seconds of one step
LEAST_SECONDS = 0.1


def evals(asked: Mapping[str, Any]) -> dict[str, Cases]:
    """The sets of questions that come with it, by name. Raises InvalidRequest."""
    given = asked.get("evals", {})
    if not isinstance(given, dict) or len(given) > SETS:
        raise InvalidRequest("evals", sent(given), f"it is an object of at most {SETS} lists of questions, by name")
    for name in given:
        if not NAME.fullmatch(name):
            raise InvalidRequest("evals", sent(name), "name a set with a-z, 0-9 and _, such as exact_match")
    return {name: cases.of(rows, f"evals.{name}") for name, rows in given.items()}


def terms(
    asked: Mapping[str, Any],
    versions: Mapping[str, Sequence[str]],
    weights: Mapping[str, Mapping[str, float]],
    sets: Mapping[str, Cases] = MappingProxyType({}),
    shadow: str | None = None,
) -> Terms:
    """The terms. `weights`: percent of each version of a model now; `sets`: what questions there are, those of the
    settings too; `shadow`: the version that the settings have mirrored. Raises InvalidRequest or NotFound.
    """
    for name in asked.keys() - FIELDS:
        raise InvalidRequest(name, "this unknown field", f"give {', '.join(sorted(FIELDS))}")
    model = _text("model", asked.get("model"))
    if model not in versions:
        raise NotFound("model", model, tuple(sorted(versions)))
    new = _version("to", asked.get("to"), model, versions[model])
    old = _old(asked.get("from"), new, model, versions[model], weights[model])
    margin, mirror = asked.get("margin", 0.2), asked.get("mirror")
    rules = _rules(asked.get("abort_if", []))
    steps = _steps(asked.get("steps", STEPS))
    _check_beside(rules, steps)
    named = _sources(rules, sets, asked.get("evals", {}), mirrored=mirror is not None or shadow == new)
    return Terms(
        model,
        old,
        new,
        steps=steps,
        every_seconds=_number("every_seconds", asked.get("every_seconds", 600.0), LEAST_SECONDS, LONGEST, " seconds"),
        abort_if=rules,
        margin=None if margin is None else _number("margin", margin, 0.0, 100.0),
        mirror=None if mirror is None else _number("mirror", mirror, 0.01, WHOLE),
        answers=int(_number("answers", asked.get("answers", 50), 1, 1_000_000)),
        evals={name: {"digest": sets[name].digest, "questions": len(sets[name])} for name in named},
    )


def check(asked: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what no rollout is begun on, whatever is served: all but models and versions."""
    rules = asked.get("abort_if", [])
    named = {name for text in rules if isinstance(text, str) for name in _EVAL.findall(text)}
    sets = dict.fromkeys(named, Cases(())) | evals(asked)  # a gateway may know the others
    plain = {name: value for name, value in asked.items() if name != "from"} | {"model": "any", "to": "new"}
    terms(plain, {"any": ("old", "new")}, {"any": {"old": WHOLE}}, sets, shadow="new")


def check_release(model: str, route: RouteSettings) -> None:
    """Raises SettingsInvalid for terms of a release that no rollout would be begun on."""
    if route.release is None:
        return
    key = f"routes.{model}.release"
    if route.weights or route.rules or route.shadow:
        raise SettingsInvalid(key, "beside weights, rules or a shadow", "which versions there are is the release's")
    sets = dict.fromkeys(route.evals, Cases(()))
    try:
        terms(
            {"model": model, "to": "new", **route.release.asked}, {model: ("old", "new")}, {model: {"old": WHOLE}}, sets
        )
    except InvalidRequest as wrong:
        remedy = wrong.remedy.replace("routes.MODEL", f"routes.{model}")
        raise SettingsInvalid(f"{key}.{wrong.field}", wrong.value, remedy) from None


def _sources(
    rules: Sequence[str], sets: Mapping[str, Cases], given: Mapping[str, Any], *, mirrored: bool
) -> tuple[str, ...]:
    """The sets of questions that rules name. Raises InvalidRequest for a rule that nothing would ever tell of."""
    named = {}
    for place, text in enumerate(rules):
        field, condition = f"abort_if[{place}]", rule(text, "").condition
        kind, _, name = condition.metric.partition(".")
        if kind == "eval":
            if name not in sets:
                raise InvalidRequest(
                    field, text,
                    f"there are no questions for eval.{name}: give some with --eval {name}=FILE.jsonl (evals.{name} in "
                    f"a body), or name a file as routes.MODEL.evals.{name} in the settings and deploy"
                    + (f"; there is {', '.join(f'eval.{one}' for one in sorted(sets))}" if sets else ""),
                )  # fmt: skip
            named[name] = True
        elif kind == "shadow" and (name != "agreement" or condition.baseline):
            raise InvalidRequest(field, text, "write shadow.agreement < NUMBER: both versions' answers are in it")
        elif kind == "shadow" and not mirrored:
            raise InvalidRequest(field, text, "nothing is mirrored: say of how many requests with --mirror 10")
    for name in given:
        if name not in named:
            raise InvalidRequest(f"evals.{name}", "questions", f"no rule names eval.{name}; add one to abort_if")
    return tuple(named)


def _check_beside(rules: Sequence[str], steps: Sequence[float]) -> None:
    """Raises InvalidRequest for a rule that no step would tell of, as each leaves nobody to compare with."""
    for place, text in enumerate(rules):
        if len(steps) == 1 and rule(text, "").beside:
            remedy = (
                "at 100 % no other version answers to compare with: give a step before it, or a rule against a number"
            )
            raise InvalidRequest(f"abort_if[{place}]", text, remedy)


def _old(given: Any, new: str, model: str, versions: Sequence[str], weights: Mapping[str, float]) -> str:
    """Whose users it takes: those of the version with most, unless another is named, as it must if `new` has most."""
    others = [version for version, share in weights.items() if share and version != new]
    if given is None:
        if not others:
            raise InvalidRequest("to", new, f"all users of {model} have it already: name another version")
        most = max(others, key=lambda version: weights[version])
        if weights.get(new, 0.0) > weights[most]:
            has = f"with {weights[new]:g} % it has most users of {model} already"
            raise InvalidRequest(
                "to", new, f"{has}: say with --from (`from` in a body) whose it takes: {', '.join(others)}"
            )
        return most
    old = _version("from", given, model, versions)
    if old == new:
        raise InvalidRequest("to", new, "a rollout leads from one version to another: this is onto itself")
    if old not in others:
        raise InvalidRequest("from", old, f"it has no users; name one of {', '.join(others)}")
    return old


def _version(field: str, value: Any, model: str, versions: Sequence[str]) -> str:
    found = _text(field, value)
    if found not in versions:
        served = f"{model} is served as {', '.join(versions)}"
        raise InvalidRequest(
            field, sent(found), f"{served}; add `- name: {model}@VERSION` with its path to models and deploy it"
        )
    return found


def _steps(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_STEPS:
        remedy = f"it is a list of 1 to {MOST_STEPS} percentages, such as 0.5, 5, 25, 100"
        raise InvalidRequest("steps", sent(value), remedy)
    steps = [_number(f"steps[{place}]", step, 0.0, WHOLE) for place, step in enumerate(value)]
    if steps[0] == 0 or sorted(set(steps)) != steps:
        raise InvalidRequest("steps", sent(value), "each step is above 0 and above the one before")
    return tuple(steps) if steps[-1] == WHOLE else (*steps, WHOLE)


def _rules(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MOST_RULES:
        raise InvalidRequest("abort_if", sent(value), f"it is a list of at most {MOST_RULES} conditions")
    texts = [_text(f"abort_if[{place}]", one) for place, one in enumerate(value)]
    for place, text in enumerate(texts):
        rule(text, f"abort_if[{place}]")
    return tuple(" ".join(text.split()) for text in texts)  # with its unit, so that it may be asked again


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise InvalidRequest(field, sent(value), "it is a text of 1 to 256 characters")
    return value


def _number(field: str, value: Any, least: float, most: float, unit: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest(field, sent(value), f"it is a number from {least:.10g} to {most:.10g}{unit}")
    return float(value)
