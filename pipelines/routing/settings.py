"""What the settings file may say of the routes from a model's name to its versions. Shares are in percent.

Knows the branch `routes`, and what is wrong with it beside the models that are served.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import SettingsInvalid
from pipelines.routing.cases import NAME, SETS

BASE = "base"  # what a model that is served without a version is called beside versions of it
WHOLE = 100.0
STEPS = (0.5, 5.0, 25.0, 50.0, WHOLE)  # a version that is broken is met by few at first
SLACK = 1e-6  # what sums of shares such as 33.3 + 66.7 are off by
HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
RESERVED = re.compile(
    r"(authorization|cookie|host|connection|expect|te|trailer|upgrade|forwarded|content-.*|transfer-.*|x-forwarded-.*|"
    r"x-real-ip|x-request-id|proxy-.*)"
)  # what says who asks, or how the request travels: a rule on it could be met by a lie
Language = Literal[
    "arabic", "chinese", "cyrillic", "devanagari", "greek", "hebrew", "japanese", "korean", "latin", "thai"
]


class When(BaseModel):
    """Whose requests, and which: all that is given has to hold. Of a list, one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: tuple[str, ...] = Field((), description="of the key")
    users: tuple[str, ...] = Field((), description="the request's `user`, or the key's id where it has none")
    headers: dict[str, str] = Field({}, description="by name in lower case; only these are let through for it")
    characters_least: int = Field(0, ge=0, description="of all messages together")
    characters_most: int | None = Field(None, ge=0, description="of all messages together")
    languages: tuple[Language, ...] = Field((), description="by the writing that most of the prompt is in")

    @property
    def empty(self) -> bool:
        return self == When()


class Rule(BaseModel):
    """Requests that go to one version whatever the weights say; the first rule that holds counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: When
    to: str = Field(min_length=1, description="a version")


class Shadow(BaseModel):
    """A version that is asked the same afterwards. Its answer is compared and never seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(min_length=1)
    share: float = Field(WHOLE, gt=0, le=WHOLE, description="percent of the requests")


class Release(BaseModel):
    """What is merged is rolled out by itself, on these terms; see a rollout's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: str = Field("main", min_length=1, description="a branch, whose merges count, or an alias, whose moves do")
    steps: tuple[float, ...] = Field(
        STEPS, min_length=1, description="percent of the users, each above the one before; 100 comes last, said or not"
    )
    every_seconds: float = 600.0
    abort_if: tuple[str, ...] = ()
    margin: float | None = Field(0.2, description="how much slower it may be; null: only abort_if counts")
    answers: int = Field(50, description="of the new version, before a step is over")
    mirror: float | None = Field(None, description="percent of requests that it is asked, too, unseen")
    keep_seconds: float = Field(
        600.0, ge=0, description="how long a version without users stays after a release, to go back to at once"
    )

    @property
    def asked(self) -> dict[str, object]:
        """As a body asks for a rollout."""
        told = self.model_dump(mode="json", exclude={"on", "keep_seconds"})
        return {name: value for name, value in told.items() if value != []}


class RouteSettings(BaseModel):
    """How the requests for one model go to its versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, float] = Field(
        {}, description="percent of the users by version; default: all to the first version under `models`"
    )
    rules: tuple[Rule, ...] = ()
    shadow: Shadow | None = None
    evals: dict[str, str] = Field(
        {}, description="what eval.NAME in a rollout's rules is: NAME to a file of questions and answers, or held-out"
    )
    release: Release | None = Field(None, description="of a model that is served by an alias of the registry")


def check(routes: Mapping[str, RouteSettings], versions: Mapping[str, Sequence[str]]) -> None:
    """`versions`: those of each model that is served. Raises SettingsInvalid naming the key, the value, the remedy."""
    for model, route in routes.items():
        key = f"routes.{model}"
        if model not in versions:
            if "@" in model:
                name, _, version = model.partition("@")
                remedy = f"a version has no versions; write routes.{name} and name {version} in it"
            else:
                remedy = f"route one of {', '.join(sorted(versions))}, or add `- name: {model}@VERSION` to models"
            raise SettingsInvalid(key, "a model that is not served", remedy)
        check_route(key, route, versions[model])


def check_route(key: str, route: RouteSettings, versions: Sequence[str]) -> None:
    """One route, called `key`, of a model that is served in `versions`. Raises as `check`."""
    _check_weights(f"{key}.weights", route.weights, versions)
    for place, rule in enumerate(route.rules):
        _check_rule(f"{key}.rules.{place}", rule, versions)
    _check_evals(f"{key}.evals", route.evals)
    if route.shadow is not None:
        _check_shadow(f"{key}.shadow.version", route, versions)


def check_alone(key: str, route: RouteSettings) -> None:
    """As `check_route`, of whatever versions there are."""
    shadow = [route.shadow.version] if route.shadow else []
    check_route(key, route, ("", *route.weights, *(rule.to for rule in route.rules), *shadow))


def weights_of(route: RouteSettings, versions: Sequence[str]) -> dict[str, float]:
    """The percent of each version that has any."""
    return {version: share for version, share in route.weights.items() if share} or {versions[0]: WHOLE}


def _check_weights(key: str, weights: Mapping[str, float], versions: Sequence[str]) -> None:
    for version, share in weights.items():
        _known(f"{key}.{version}", version, versions)
        if not 0 <= share <= WHOLE:
            raise SettingsInvalid(f"{key}.{version}", share, "a share is from 0 to 100 percent")
    total = sum(weights.values())
    if weights and abs(total - WHOLE) > SLACK:
        said = f"{' + '.join(f'{share:g}' for share in weights.values())} = {total:g}"
        raise SettingsInvalid(key, said, "shares are percent and add up to 100")


def _check_rule(key: str, rule: Rule, versions: Sequence[str]) -> None:
    _known(f"{key}.to", rule.to, versions)
    when = rule.when
    if when.empty:
        raise SettingsInvalid(f"{key}.when", "nothing", "say whose requests it is about, or use weights")
    if when.characters_most is not None and when.characters_most < when.characters_least:
        raise SettingsInvalid(
            f"{key}.when.characters_most", when.characters_most, f"it is at least {when.characters_least}"
        )
    for name in when.headers:
        if not HEADER.fullmatch(name) or RESERVED.fullmatch(name):
            raise SettingsInvalid(
                f"{key}.when.headers", f'"{name}"', "name a header of your own in lower case, such as x-beta"
            )


def _check_evals(key: str, evals: Mapping[str, str]) -> None:
    if len(evals) > SETS:
        raise SettingsInvalid(key, f"{len(evals)} sets", f"name at most {SETS}")
    for name in evals:
        if not NAME.fullmatch(name):
            raise SettingsInvalid(f"{key}.{name}", f'"{name}"', "name it with a-z, 0-9 and _, such as exact_match")


def _check_shadow(key: str, route: RouteSettings, versions: Sequence[str]) -> None:
    assert route.shadow is not None
    _known(key, route.shadow.version, versions)
    if set(weights_of(route, versions)) == {route.shadow.version}:
        raise SettingsInvalid(key, route.shadow.version, "it would mirror itself: it serves all requests already")


def _known(key: str, version: str, versions: Sequence[str]) -> None:
    if version not in versions:
        raise SettingsInvalid(key, f'"{version}"', f"name a version that is served: {', '.join(versions)}")
