"""A route that is set while it serves: what somebody asks it to be, as a body has it, and what outlives a restart.

Says what the settings file may say of a route, by the same model and in the same words; which questions there are and
what is released by itself stay the settings'. Knows no state and no gateways.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cluster import layers
from cluster.errors import InvalidRequest, SettingsInvalid, sent
from pipelines.routing.asking import check_release
from pipelines.routing.route import Route
from pipelines.routing.settings import RouteSettings, check_route

FIELDS = ("weights", "rules", "shadow")
PARTS = frozenset({"rules", "shadow"})  # of these, what is no weight: weights move with rollouts and experiments too

Plain = dict[str, Any]


def settings(asked: Mapping[str, Any], declared: RouteSettings, model: str, versions: Sequence[str]) -> RouteSettings:
    """The route that is asked for, whole: rules and a shadow that are left out are none. `declared`: the
    settings'. Raises InvalidRequest naming the field, the value, the remedy.
    """
    for name in asked.keys() - set(FIELDS):
        if name in RouteSettings.model_fields:
            raise InvalidRequest(name, sent(asked[name]), f"write routes.{model}.{name} in the settings and deploy")
        raise InvalidRequest(name, "this unknown field", f"give {', '.join(FIELDS)}")
    key = f"routes.{model}"
    try:
        made = layers.settle(RouteSettings, asked)
        made = declared.model_copy(update={name: getattr(made, name) for name in FIELDS})
        check_route(key, made, versions)
        check_release(model, made)
    except SettingsInvalid as wrong:
        raise InvalidRequest(wrong.key.removeprefix(f"{key}."), str(wrong.value), wrong.remedy) from None
    if len(versions) > 1 and not made.weights:  # the settings' would undo what rollouts have brought since
        raise InvalidRequest("weights", "nothing", "say who has how much; `strata routes show` has what they have now")
    return made


def shown(route: Route) -> Plain:
    """A route as `settings` takes it again."""
    said = parts(route.settings)
    return {"weights": dict(route.weights), "rules": said.get("rules", []), "shadow": said.get("shadow")}


def parts(route: RouteSettings) -> Plain:
    """What a route says beside its weights; what it does not say is left out."""
    return route.model_dump(mode="json", include=set(PARTS), exclude_defaults=True)


def restored(
    declared: RouteSettings, was: Mapping[str, Any], kept: Mapping[str, Any] | None, versions: Collection[str]
) -> tuple[RouteSettings, bool]:
    """The route after a restart, and whether something that was set has been given up. `kept`: its parts until then;
    `was`: what the settings said of those. What the settings say anew counts, and what leads nowhere does not.
    """
    now = parts(declared)
    if kept is None or kept == {name: was[name] for name in PARTS & was.keys()}:
        return declared, False
    chosen = {}
    for name in PARTS:
        source = kept if now.get(name) == was.get(name) else now
        if name in source:
            chosen[name] = source[name]
    try:
        made = RouteSettings.model_validate(chosen)
    except ValueError:  # newer code wrote it
        return declared, True
    if declared.release is not None or not Route("", {}, made).versions <= set(versions):
        return declared, True
    return declared.model_copy(update={name: getattr(made, name) for name in PARTS}), chosen != kept
