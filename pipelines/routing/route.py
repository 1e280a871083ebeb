"""Which version of a model answers a request: a pure function of the route, of who asks and of what is asked.

A user is a number between 0 and 1 for each thing to be decided, from a hash. Weights are settled by weighted rendezvous
(Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Trans. Networking 6(1), 1998): a
version whose share grows takes users from the others and gives none away. A ramp takes the users below its share out of
those of the version that it replaces: while it grows, a user moves at most once, and back only when it is taken back.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b

from pipelines.routing.settings import WHOLE, RouteSettings, When, weights_of
from pipelines.routing.writing import writing

_POINTS = 2.0**-53


@dataclass(frozen=True, slots=True)
class Facts:
    """Who asks, and what. `user`: within the tenant. `headers`: those that rules name."""

    tenant: str
    user: str
    characters: int = 0
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ramp:
    """`new` takes `share` percent of the users that `old` would have."""

    old: str
    new: str
    share: float


@dataclass(frozen=True, slots=True)
class Route:
    """All that decides. `weights` are percent and add up to 100.

    `seeds`: what a version's users are drawn by, where that is not its name: who takes another's place, its users too.
    """

    model: str
    weights: Mapping[str, float]
    settings: RouteSettings = field(default_factory=RouteSettings)
    ramp: Ramp | None = None
    seeds: Mapping[str, str] = field(default_factory=dict)

    def replaced(self, old: str, new: str) -> "Route":
        """The route on which `new` has the place of `old`, and all of its users."""
        weights = {version: share for version, share in self.weights.items() if version not in (old, new)}
        share = self.weights.get(old, 0.0) + self.weights.get(new, 0.0)
        seeds = {version: seed for version, seed in self.seeds.items() if version in weights}
        return replace(self, weights={**weights, new: share}, ramp=None, seeds={**seeds, new: self.seeds.get(old, old)})

    @property
    def answering(self) -> set[str]:
        """All whose answers users may see."""
        ramp = {self.ramp.old, self.ramp.new} if self.ramp else set()
        return {*self.weights, *(rule.to for rule in self.settings.rules), *ramp}

    @property
    def versions(self) -> set[str]:
        """All that it may lead to."""
        shadow = {self.settings.shadow.version} if self.settings.shadow else set()
        return self.answering | shadow

    def weighed(self, weights: Mapping[str, float]) -> "Route":
        """The route with other weights. Whoever may stay with a version does: one that had another's place keeps its
        users, and where that other one comes back, it draws its own anew.
        """
        seeds = {version: seed for version, seed in self.seeds.items() if version in weights}
        taken = {seed: version for version, seed in seeds.items()}
        for version in weights.keys() - seeds.keys():
            seed = version
            while seed in taken:
                seed = taken[seed]
            if seed != version:
                seeds[version] = seed
        return replace(self, weights=dict(weights), seeds=seeds)


@dataclass(frozen=True, slots=True)
class Choice:
    """The version; `by` which part of the route; `arms`: the users were dealt by chance, so that arms compare."""

    version: str
    by: str
    arms: bool


def first(model: str, settings: RouteSettings, versions: Sequence[str]) -> Route:
    """The route as the settings have it."""
    return Route(model, weights_of(settings, versions), settings)


def choose(route: Route, facts: Facts) -> Choice:
    """The version that answers."""
    for place, rule in enumerate(route.settings.rules):
        if holds(rule.when, facts):
            return Choice(rule.to, f"rules.{place}", False)
    who = f"{facts.tenant}\0{facts.user}"
    version = dealt(route, who)
    ramp = route.ramp
    if ramp is None or version != ramp.old:
        return Choice(version, "weights", ramp is None)
    taken = point(f"{route.model}\0{ramp.old}\0{ramp.new}", who) * WHOLE < ramp.share
    return Choice(ramp.new if taken else ramp.old, "ramp", True)


def holds(when: When, facts: Facts) -> bool:
    """Whether a rule is about this request."""
    return (
        (not when.tenants or facts.tenant in when.tenants)
        and (not when.users or facts.user in when.users)
        and all(facts.headers.get(name) == value for name, value in when.headers.items())
        and when.characters_least <= facts.characters
        and (when.characters_most is None or facts.characters <= when.characters_most)
        and (not when.languages or writing(facts.text) in when.languages)
    )


def dealt(route: Route, who: str) -> str:
    """The version whose share of the users has this one, before any ramp."""
    if len(route.weights) == 1:
        return next(iter(route.weights))

    def pull(version: str) -> tuple[float, str]:
        drawn = point(f"{route.model}\0{route.seeds.get(version, version)}", who)
        return _pull(route.weights[version], drawn), version

    return max(route.weights, key=pull)


def point(what: str, who: str) -> float:
    """A user's number for one decision: from 0 to below 1, of 53 bits, the same for ever."""
    drawn = blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8, key=_key(what)).digest()
    return (int.from_bytes(drawn, "big") >> 11) * _POINTS


@lru_cache(1024)
def _key(what: str) -> bytes:
    return blake2b(what.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _pull(weight: float, drawn: float) -> float:
    """The larger the likelier, in proportion to `weight`: -weight / ln(u) for u in (0, 1)."""
    return -weight / math.log(drawn + _POINTS / 2)
