"""Which shipped folder a deployment runs from."""

from typing import Any

from pipelines.shipped import MARK, environment, of_details

OLD, NEW = {"working_dir": "gcs://old.zip", "env_vars": {"A": "1"}}, {"working_dir": "gcs://new.zip"}


def test_without_a_shipped_folder_there_is_nothing_to_say() -> None:
    assert environment("m", "v1", {}, {}) == {}


def test_what_has_not_changed_keeps_the_folder_that_it_runs_from() -> None:
    first = environment("m", "v1", OLD, {})
    assert first == {"runtime_env": {"working_dir": "gcs://old.zip", "env_vars": {"A": "1", MARK: "v1"}}}
    running = {"m": first["runtime_env"], "other": {}}
    assert environment("m", "v1", NEW, running) == first
    assert environment("m", "v1", {}, running) == first
    second = environment("m", "v2", NEW, running)
    assert second == {"runtime_env": {"working_dir": "gcs://new.zip", "env_vars": {MARK: "v2"}}}
    assert environment("other", "v1", NEW, running)["runtime_env"]["working_dir"] == "gcs://new.zip"
    assert OLD["env_vars"] == {"A": "1"}, "what was given is not written to"


def test_serve_tells_what_runs() -> None:
    def deployment(options: dict[str, Any] | None) -> dict[str, Any]:
        return {"deployment_config": {"name": "x", **({} if options is None else {"ray_actor_options": options})}}

    details = {"applications": {"strata": {"deployments": {
        "gateway": deployment({"num_cpus": 0, "runtime_env": OLD}), "model-a": deployment({"num_cpus": 0}),
        "model-b": deployment(None),
    }}}}  # fmt: skip
    assert of_details(details) == {"gateway": OLD, "model-a": {}, "model-b": {}}
    assert of_details({}) == {}
