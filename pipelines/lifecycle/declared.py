"""A pipeline as the settings declare it: what begins a run, which steps it has, what each wants.

Owns its form and what can be refused by looking at it alone. Knows no registry, no cluster and no data.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from actors.registry.history import named
from cluster import condition
from cluster.errors import InvalidRequest, SettingsInvalid
from cluster.layers import refused, settle
from pipelines.lifecycle import cron
from pipelines.lifecycle.drift import STATISTICS, TIMES

STEPS = ("train", "evaluate", "push", "merge_request", "canary", "live")  # in this order, those that are declared
EXACT, ACCURACY = "exact_match", "accuracy"  # what the share of right answers is called, without choices and with
LEAST_SECONDS = 60.0  # between two runs by the clock


class Part(BaseModel):
    """What all parts of it have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _name(text: str) -> str:
    _said(lambda: named("name", text))
    return text


def _seconds(text: str) -> str:
    found = condition.quantity(text)
    if found is None or found < 0 or not text.strip()[-1:].isalpha():
        raise ValueError("it is a time such as 30s, 10m or 6h")
    return text


def _cron(text: str) -> str:
    _said(lambda: cron.parse(text, "schedule"))
    return text


def _rule(text: str) -> str:
    _said(lambda: condition.parse(text, "rule"))
    return text


def _drift(text: str) -> str:
    _said(lambda: condition.parse(text, "rule", STATISTICS))
    found = condition.parse(text, "rule")
    if found.baseline:
        raise ValueError("what is live is compared with nothing: write a number for baseline, such as 2s or 5%")
    _said(lambda: condition.require(text, "rule", _kind(found.metric)))
    return text


def _kind(metric: str) -> condition.Kind:
    if metric.partition("_")[2] in TIMES:
        return condition.Kind.TIME
    return condition.Kind.SHARE if metric.endswith("_rate") else condition.Kind.COUNT


def _said(check: Callable[[], object]) -> None:
    """What `check` refuses in pydantic's words."""
    try:
        check()
    except InvalidRequest as wrong:
        raise ValueError(wrong.remedy) from None


Name = Annotated[str, AfterValidator(_name)]
Set = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]  # it is part of a metric's name
Seconds = Annotated[str, AfterValidator(_seconds)]
Rule = Annotated[str, AfterValidator(_rule)]


class Drift(Part):
    """When the live version gets worse."""

    rule: Annotated[str, AfterValidator(_drift)] = Field(description="on live statistics, such as 'p90_ttft > 2s'")
    over: Seconds = Field("10m", description="the stretch that statistics are of")
    answers: int = Field(50, ge=1, description="in that stretch, at least, or nothing is said of it")
    rest: Seconds = Field("24h", description="after a run that drift began, until it may begin another")


class Triggers(Part):
    """What begins a run; any of them does."""

    data: bool = Field(False, description="when what lies under train.data has changed")
    schedule: Annotated[str, AfterValidator(_cron)] | None = Field(None, description="as cron has it, in UTC")
    every: Seconds | None = Field(None, description="so long after the last one began, such as 6h")
    merge_request: bool = Field(False, description="when somebody opens one for this model, or pushes to its branch")
    drift: Drift | None = None
    after: Name | None = Field(None, description="when a run of that pipeline is done")

    @model_validator(mode="after")
    def _not_all_the_time(self) -> "Triggers":
        if self.every is not None and seconds(self.every) < LEAST_SECONDS:
            raise refused("every", self.every, f"this is too often; give {LEAST_SECONDS:g}s or more")
        return self


class Lora(Part):
    """A low-rank adapter (arXiv:2106.09685) in place of all weights."""

    rank: int = Field(8, ge=1, le=1024)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = Field(
        (), description="ends of the names of layers; default: all linear ones but the head"
    )


class Train(Part):
    """A fine-tune. A step is `rows` conversations of at most `width` tokens on each worker."""

    start: str | None = Field(None, description="a version, tag, branch or alias; default: the live one")
    data: str = Field(min_length=1, description="a JSONL file, or a folder of them")
    lora: Lora | None = Field(None, description="default: all weights")
    steps: int = Field(200, ge=1)
    rows: int = Field(8, ge=1, le=65_536)
    width: int = Field(512, ge=8)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    seed: int = Field(7, ge=0)
    zero_stage: int = Field(1, ge=0, le=2, description="of DeepSpeed")
    workers: int = Field(1, ge=1)
    threads: int = Field(1, ge=1, description="of each worker, where it has no GPU")
    checkpoint: Seconds = Field("5m", description="so often, so that a run that is cut goes on from there")


class Evaluate(Part):
    """What a version has to do, and how well."""

    sets: dict[Set, str] = Field(
        min_length=1, description="JSONL files of prompt and answer, perhaps choices; or held-out"
    )
    require: tuple[Rule, ...] = Field((), description="such as 'exact_match >= baseline - 0.02'")
    max_tokens: int = Field(128, ge=1, description="of an answer")
    cpus: int = Field(1, ge=1, description="for the engine that answers")

    @model_validator(mode="after")
    def _rules_name_what_is_asked(self) -> "Evaluate":
        """As far as names say it: of which of both kinds a set is stands in its file."""
        known = [
            f"{before}{kind}" for before in ("", *(f"{name}." for name in self.sets)) for kind in (EXACT, ACCURACY)
        ]
        for place, text in enumerate(self.require):
            metric = condition.parse(text.strip().removeprefix("eval."), "require").metric
            if metric not in known:
                raise refused(f"require.{place}", text, f"there is no metric {metric}; there is {', '.join(known)}")
        return self


class Push(Part):
    """A candidate in the registry."""

    adapter: bool = Field(False, description="keep the LoRA adapter beside the weights it was merged into")
    message: str = ""


class MergeRequest(Part):
    """Consent, by the registry's own rules (registry.approvals, registry.conditions)."""

    into: Name = "main"
    title: str = Field("", description="default: which run it is of")


class Canary(Part):
    """The release of what was merged, on the terms of `routes.MODEL.release`, which takes back what is worse."""

    patience: Seconds = Field("1h", description="until it begins, and while the gateway does not answer")


class Live(Part):
    """The alias that is what users have. After a canary it is there already."""

    alias: Name = "prod"


class Pipeline(Part):
    """All of it."""

    name: Name
    model: Name = Field(description="in the registry")
    on: Triggers = Triggers()
    train: Train | None = None
    evaluate: Evaluate | None = None
    push: Push | None = None
    merge_request: MergeRequest | None = None
    canary: Canary | None = None
    live: Live | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Those that are declared, in order."""
        return tuple(step for step in STEPS if getattr(self, step) is not None)

    def require_triggers(self) -> None:
        """Raises SettingsInvalid where nothing begins a run."""
        if self.on == Triggers():
            remedy = f"declare one of {', '.join(Triggers.model_fields)}"
            raise SettingsInvalid(f"pipelines.{self.name}.on", "nothing", remedy)

    @property
    def alias(self) -> str:
        """What users have."""
        return (self.live or Live()).alias

    @model_validator(mode="after")
    def _makes_sense(self) -> "Pipeline":
        if not self.steps:
            raise ValueError(f"it has no step; declare some of {', '.join(STEPS)}")
        if self.train is not None and self.push is None and {"merge_request", "canary", "live"} & set(self.steps):
            raise refused("push", None, "what train makes gets no further without push; declare push: {}")
        if self.train is None and self.push is not None:
            raise refused("train", None, "push has nothing to push without train; declare train, or leave push out")
        if self.train is None and not self.on.merge_request:
            remedy = "without train there is a version to look at only on: {merge_request: true}"
            raise refused("on.merge_request", None, remedy)
        if self.canary is not None and self.merge_request is None:
            raise refused(
                "merge_request", None, "canary follows the release of what is merged; declare merge_request: {}"
            )
        if self.on.data and self.train is None:
            raise refused("on.data", True, "it watches train.data, and there is no train")
        if self.on.after == self.name:
            raise refused("on.after", self.on.after, "this is a cycle: a pipeline cannot wait for itself")
        return self


def kept(declared: Mapping[str, Any]) -> Pipeline:
    """The pipeline that a table keeps. Raises SettingsInvalid where rules have become stricter since."""
    return settle(Pipeline, declared)


def seconds(text: str) -> float:
    """Of a time that was taken."""
    found = condition.quantity(text)
    assert found is not None
    return found


def cycle(waits: dict[str, str | None]) -> list[str]:
    """Of pipelines and what each waits for: those that wait for one another, in order; none where all is well."""
    for first in waits:
        seen: list[str] = []
        at: str | None = first
        while at is not None and at not in seen:
            seen.append(at)
            at = waits.get(at)
        if at is not None:
            return [*seen[seen.index(at) :], at]
    return []


def check_after(pipelines: Sequence[Pipeline]) -> None:
    """Raises ValueError, as `refused` makes it, where a pipeline waits for one that is not among them."""
    names = [each.name for each in pipelines]
    for place, each in enumerate(pipelines):
        if each.on.after is not None and each.on.after not in names:
            remedy = f"no such pipeline is declared here; name one of {', '.join(names)}"
            raise refused(f"{place}.on.after", each.on.after, remedy)


def check_cycle(pipelines: Iterable[Pipeline]) -> None:
    """Raises SettingsInvalid where pipelines wait for one another."""
    found = cycle({each.name: each.on.after for each in pipelines})
    if found:
        raise SettingsInvalid("pipelines", " -> ".join(found), "they wait for one another: take one `on.after` out")
