"""What Serve runs already, as far as the next deploy has to reckon with it.

Ray names a folder that `ray job submit --working-dir` ships by its content: one changed line of strata.yaml in it makes
another folder, and to Serve that is a reason to start everything anew, whatever version a deployment says that it has.
So what has not changed keeps the folder that it runs from. And to Serve a deployment that has failed stays failed until
something of it changes; whoever deploys it again has mended what Serve cannot see.

Knows Serve's details of an instance, as plain values. Knows nothing of models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MARK = "STRATA_REVISION"  # in a deployment's environment; no setting has that name
HEALTH_SECONDS = 10.0
PACKAGE = "gcs://"


@dataclass(frozen=True, slots=True)
class Standing:
    """The runtime environment of each deployment there is, how many replicas it is to have, and which have failed.

    `scaled`: of those that scale, the version of which there are gangs, and how many there shall be.
    """

    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    scaled: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> "Standing":
        """What Serve's details say."""
        there = [each for app in details.get("applications", {}).values() for each in app["deployments"].items()]
        return cls(
            {name: _environment(deployment) for name, deployment in there},
            frozenset(name for name, deployment in there if _word(deployment["status"]) == "DEPLOY_FAILED"),
            {name: found for name, deployment in there if (found := _scaled(deployment)) is not None},
            {name: int(deployment.get("target_num_replicas") or 0) for name, deployment in there},
        )

    def version(self, name: str) -> str | None:
        """The version of deployment `name` that was deployed last; None where there is none."""
        found: str | None = self.environments.get(name, {}).get("env_vars", {}).get(MARK)
        return found

    def code(self, name: str, version: str, mine: Mapping[str, Any]) -> dict[str, Any]:
        """The actor options that give deployment `name` its code; `mine` is the runtime environment of this driver."""
        if self.version(name) == version:
            return {"runtime_env": dict(self.environments[name])}
        return {"runtime_env": {**mine, "env_vars": {**mine.get("env_vars", {}), MARK: version}}}

    @property
    def packages(self) -> frozenset[str]:
        """The packages of code, by Ray's names, that new replicas of all that runs are made from."""
        named = [(each.get("working_dir"), *each.get("py_modules", ())) for each in self.environments.values()]
        return frozenset(uri for uris in named for uri in uris if str(uri).startswith(PACKAGE))

    def health_seconds(self, name: str, roll: int) -> float:
        """The time-out of health checks: by a hair another for what has failed, as Serve then tries again.

        What runs takes another one without starting anew.
        """
        return HEALTH_SECONDS + (1 + roll % 1000) / 1e6 if name in self.failed else HEALTH_SECONDS


def _environment(deployment: Mapping[str, Any]) -> dict[str, Any]:
    options = deployment["deployment_config"].get("ray_actor_options") or {}
    return dict(options.get("runtime_env") or {})


def _scaled(deployment: Mapping[str, Any]) -> tuple[str, int] | None:
    policy = (deployment["deployment_config"].get("autoscaling_config") or {}).get("policy") or {}
    version = (policy.get("policy_kwargs") or {}).get("version")
    return None if version is None else (version, int(deployment.get("target_num_replicas") or 0))


def _word(status: Any) -> str:
    return str(getattr(status, "value", status))
