"""The experiments that a controller has, and what people may ask of them.

Knows weights as values. Knows no routes, no files and no gateways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cluster.errors import Barred, Conflict, InvalidRequest, NotFound, sent
from pipelines.routing.evidence import Score
from pipelines.routing.experiment import METRICS, Experiment, check, findings
from pipelines.routing.settings import SLACK, WHOLE

FIELDS = frozenset({"name", "model", "arms", "metric", "effect", "rate", "users", "force"})
Plain = dict[str, Any]


class Trials:
    """All experiments, those that are over too."""

    def __init__(self, kept: Sequence[Mapping[str, Any]] = ()) -> None:
        self._known = {each["name"]: Experiment.of(each) for each in kept}

    @property
    def plain(self) -> list[Plain]:
        return [each.plain for each in self._known.values()]

    def running(self, model: str) -> Experiment | None:
        """The one that is on with a model."""
        return next((each for each in self._known.values() if each.model == model and not each.over), None)

    def start(
        self,
        asked: Mapping[str, Any],
        versions: Mapping[str, Sequence[str]],
        before: Mapping[str, Mapping[str, float]],
        by: str,
        now: float,
    ) -> Experiment:
        """A new one. Raises InvalidRequest, also where it could hardly be settled, NotFound or Conflict."""
        for name in asked.keys() - FIELDS:
            raise InvalidRequest(name, "this unknown field", f"give {', '.join(sorted(FIELDS))}")
        model = asked.get("model")
        if not isinstance(model, str) or model not in versions:
            raise NotFound("model", str(model), tuple(sorted(versions)))
        made = Experiment(
            _name(asked.get("name")),
            model,
            _arms(asked.get("arms"), versions[model]),
            _metric(asked.get("metric", "thumbs")),
            _number("effect", asked.get("effect"), 0.001, 0.999),
            _number("rate", asked.get("rate"), 0.0, 1.0),
            int(_number("users", asked.get("users"), 1, 10**12)),
            began=now,
            by=by,
            before=dict(before[model]),
        )
        if made.rate + made.effect > 1:
            raise InvalidRequest(
                "effect", made.effect, f"beside a rate of {made.rate:g} it is at most {1 - made.rate:g}"
            )
        if made.name in self._known:
            raise Barred(f"the experiment {made.name}", "is there already", "give the new one another name")
        running = self.running(model)
        if running is not None:
            raise held(running)
        if asked.get("force") is not True:
            check(made)
        self._known[made.name] = made
        return made

    def heard(self, model: str, version: str, metric: str, score: Score) -> bool:
        """Outcomes of a version's users; whether they count."""
        running = self.running(model)
        if running is None or running.metric != metric:
            return False
        self._known[running.name] = running.heard(version, score)
        return True

    def end(self, name: str, now: float) -> Experiment:
        """It is over. Raises NotFound, or Conflict where it is already."""
        found = self.find(name)
        if found.over:
            raise Conflict(f"the experiment {name}", "one that runs", "over")
        self._known[name] = replace(found, ended=now)
        return found

    def find(self, name: str) -> Experiment:
        """Raises NotFound."""
        if name not in self._known:
            raise NotFound("experiment", name, tuple(self._known))
        return self._known[name]

    def all(self) -> list[Plain]:
        """As they are shown, newest first."""
        return [shown(each) for each in sorted(self._known.values(), key=lambda each: each.began, reverse=True)]


def held(running: Experiment) -> Barred:
    """What is told who wants the users of a model that has an experiment."""
    return Barred(
        running.model, f"has the experiment {running.name}", f"end it: `strata experiment end {running.name}`"
    )


def shown(experiment: Experiment) -> Plain:
    """One, with what is known of its arms."""
    return experiment.plain | {"over": experiment.over, "findings": [asdict(each) for each in findings(experiment)]}


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.replace("-", "").isalnum():
        raise InvalidRequest("name", sent(value), "it is a word of letters, digits and hyphens")
    return value


def _metric(value: Any) -> str:
    if value not in METRICS:
        raise InvalidRequest("metric", sent(value), f"it is one of {', '.join(METRICS)}")
    return str(value)


def _arms(value: Any, versions: Sequence[str]) -> dict[str, float]:
    if not isinstance(value, Mapping) or len(value) < 2:
        raise InvalidRequest("arms", sent(value), "it is percent by version, of two at least")
    arms = {}
    for version, share in value.items():
        if version not in versions:
            raise InvalidRequest(
                f"arms.{version}", "a version that is not served", f"name one of {', '.join(versions)}"
            )
        arms[version] = _number(f"arms.{version}", share, 0.01, WHOLE)
    if abs(sum(arms.values()) - WHOLE) > SLACK:
        raise InvalidRequest("arms", f"a sum of {sum(arms.values()):g}", "shares are percent and add up to 100")
    return arms


def _number(field: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest(field, sent(value), f"it is a number from {least:g} to {most:g}")
    return float(value)
