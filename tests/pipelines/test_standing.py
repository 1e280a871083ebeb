"""What the next deploy takes over from what runs."""

from typing import Any

from pipelines.standing import HEALTH_SECONDS, MARK, Standing

OLD, NEW = {"working_dir": "gcs://old.zip", "env_vars": {"A": "1"}}, {"working_dir": "gcs://new.zip"}


def test_without_a_shipped_folder_the_version_is_told_too() -> None:
    assert Standing().code("m", "v1", {}) == {"runtime_env": {"env_vars": {MARK: "v1"}}}


def test_what_has_not_changed_keeps_the_folder_that_it_runs_from() -> None:
    first = Standing().code("m", "v1", OLD)
    assert first == {"runtime_env": {"working_dir": "gcs://old.zip", "env_vars": {"A": "1", MARK: "v1"}}}
    standing = Standing({"m": first["runtime_env"], "other": {}})
    assert (standing.version("m"), standing.version("other"), standing.version("none")) == ("v1", None, None)
    assert standing.code("m", "v1", NEW) == first
    assert standing.code("m", "v1", {}) == first
    second = standing.code("m", "v2", NEW)
    assert second == {"runtime_env": {"working_dir": "gcs://new.zip", "env_vars": {MARK: "v2"}}}
    assert standing.code("other", "v1", NEW)["runtime_env"]["working_dir"] == "gcs://new.zip"
    assert OLD["env_vars"] == {"A": "1"}, "what was given is not written to"


def test_what_has_failed_is_tried_again_by_the_same_file() -> None:
    standing = Standing({"a": {}, "b": {}}, frozenset({"b"}))
    assert standing.health_seconds("a", 1) == HEALTH_SECONDS
    assert standing.health_seconds("b", 1) != standing.health_seconds("b", 2)
    assert 0 < standing.health_seconds("b", 999_999) - HEALTH_SECONDS < 0.01


def test_serve_tells_what_stands() -> None:
    def deployment(options: dict[str, Any] | None, status: str = "HEALTHY") -> dict[str, Any]:
        config = {"name": "x", **({} if options is None else {"ray_actor_options": options})}
        return {"deployment_config": config, "status": status}

    details = {"applications": {"strata": {"deployments": {
        "gateway": deployment({"num_cpus": 0, "runtime_env": OLD}), "model-a": deployment({"num_cpus": 0}),
        "model-b": deployment(None, "DEPLOY_FAILED"),
    }}}}  # fmt: skip
    standing = Standing.of(details)
    assert standing.environments == {"gateway": OLD, "model-a": {}, "model-b": {}}
    assert standing.failed == {"model-b"}
    assert Standing.of({}) == Standing()


def test_serve_tells_how_many_gangs_there_shall_be_of_what_scales() -> None:
    def deployment(policy: dict[str, Any] | None) -> dict[str, Any]:
        config = {"name": "x", "autoscaling_config": None if policy is None else {"policy": policy}}
        return {"deployment_config": config, "status": "HEALTHY", "target_num_replicas": 4}

    policies = {"a": {"policy_kwargs": {"version": "v1"}}, "b": {"policy_kwargs": {}}, "c": None}
    deployments = {name: deployment(policy) for name, policy in policies.items()}
    assert Standing.of({"applications": {"strata": {"deployments": deployments}}}).scaled == {"a": ("v1", 4)}


def test_the_packages_are_those_that_ray_ships() -> None:
    environments = {
        "one": {"working_dir": "gcs://_ray_pkg_1.zip", "py_modules": ["gcs://_ray_pkg_2.zip", "s3://other.zip"]},
        "two": {"working_dir": "gcs://_ray_pkg_1.zip"},
        "three": {"working_dir": "/here"},
        "four": {},
    }
    assert Standing(environments).packages == {"gcs://_ray_pkg_1.zip", "gcs://_ray_pkg_2.zip"}
