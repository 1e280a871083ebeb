"""The folder that `ray job submit --working-dir` ships: what has not changed keeps the one that it runs from.

Ray names a shipped folder by its content. One changed line of strata.yaml in it makes another folder, and to Serve
that is a reason to start everything anew, whatever version a deployment says that it has.
"""

from collections.abc import Mapping
from typing import Any

MARK = "STRATA_REVISION"  # in a deployment's environment; no setting of that name exists

Environments = Mapping[str, Mapping[str, Any]]  # deployment -> the runtime environment that it has


def environment(name: str, version: str, mine: Mapping[str, Any], running: Environments) -> dict[str, Any]:
    """The actor options that give deployment `name` its code: none where no folder was shipped.

    `mine` is the runtime environment of this driver, `running` those of what is deployed now.
    """
    there = running.get(name, {})
    if there.get("env_vars", {}).get(MARK) == version:
        return {"runtime_env": dict(there)}
    if "working_dir" not in mine:
        return {}
    return {"runtime_env": {**mine, "env_vars": {**mine.get("env_vars", {}), MARK: version}}}


def of_details(details: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The runtime environments in Serve's details of an instance."""
    found = {}
    for application in details.get("applications", {}).values():
        for name, deployment in application.get("deployments", {}).items():
            options = deployment["deployment_config"].get("ray_actor_options") or {}
            found[name] = dict(options.get("runtime_env") or {})
    return found
