"""`strata routes`: show the routes that the gateway has, and set one.

Knows words and how they look. What a route may be is checked where it is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.markup import escape

from cluster import document, layers
from pipelines.cli import show
from pipelines.cli.asking import gateway
from pipelines.routing import settings

FIELDS = ("weights", "rules", "shadow")  # of what the gateway says of a route, what it takes again


def listing(file: Path | None, url: str | None, *, as_json: bool) -> None:
    """All routes."""
    with gateway(file, url) as strata:
        told = strata.request("GET", "/v1/routes")
    if as_json:
        show.document(told)
    else:
        show.table(("model", "users", "rules", "shadow", "rollout"), [row(each) for each in told["data"]])
        for each in told["data"]:
            for said in notes(each):
                show.line(escape(said))


def shown(model: str, file: Path | None, url: str | None, *, as_json: bool) -> None:
    """One route."""
    with gateway(file, url) as strata:
        told = strata.request("GET", f"/v1/routes/{quote(model, safe='')}")
    if as_json:
        show.document(told)
    else:
        said = [f"# {line}\n" for line in under_way(told)]
        show.out.print("".join(said) + written(told), markup=False, soft_wrap=True, end="")


def put(model: str, source: Path, file: Path | None, url: str | None, *, as_json: bool) -> None:
    """Set one. Raises SettingsInvalid for a file that holds no YAML, or a route that could be no model's."""
    found = document.read(source, f"write into it what `strata routes show {model}` says, changed")
    asked, places = found.values, {keys: f"{found.name}:{line}" for keys, line in found.lines.items()}
    settings.check_alone(source.name, layers.settle(settings.RouteSettings, asked, places))
    with gateway(file, url) as strata:
        told = strata.request("PUT", f"/v1/routes/{quote(model, safe='')}", asked)
    if as_json:
        show.document(told)
    else:
        show.line(escape(f"{model}: {shares(told['weights'])}, rules: {len(told['rules'])}; gateways know next"))


def row(route: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """One route in a table."""
    settings, ramp = route["settings"], route["ramp"]
    shadow = settings["shadow"]
    return (
        route["model"],
        shares(route["weights"]),
        str(len(settings["rules"])),
        f"{shadow['version']} {shadow['share']:g} %" if shadow else "",
        f"{ramp['old']} → {ramp['new']} {ramp['share']:g} %" if ramp else "",
    )


def under_way(route: Mapping[str, Any]) -> list[str]:
    """What moves users of a model beside what its route says, a line each."""
    ramp, trial = route["ramp"], route["trial"]
    said = [f"a rollout gives {ramp['new']} {ramp['share']:g} % of the users of {ramp['old']}"] if ramp else []
    return said + ([f"the experiment {trial[0]} is under way"] if trial else [])


def notes(route: Mapping[str, Any]) -> list[str]:
    """What goes on besides, a line each."""
    said = [f"{route['model']}: {route['waits']}"] if route.get("waits") else []
    if follow := route.get("follow"):
        said.append(f"{route['model']}: its users get {' and '.join(follow)} as soon as it answers")
    if spare := route.get("spare"):
        names = " and ".join(spare["versions"])
        said.append(f"{route['model']}: {names} without users, kept for {spare['seconds']:.0f} s more")
    return said


def shares(weights: Mapping[str, float]) -> str:
    """Percent by version, in words."""
    return ", ".join(f"{version} {share:g} %" for version, share in weights.items())


def written(told: Mapping[str, Any]) -> str:
    """A route as a file has it."""
    return document.written({name: told[name] for name in FIELDS if told[name]})
