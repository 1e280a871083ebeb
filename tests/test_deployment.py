"""The files that a machine reads and no other test does: ray-cluster.yaml, Makefile, .ci/run, pyproject.toml."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.document import read

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def launch() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "ray-cluster.yaml").read_text()))


def test_ray_takes_the_cluster_file(launch: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(launch)  # as `ray up` does: fill in, then validate against Ray's schema
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "cpu", "gpu"}
    assert prepared["available_node_types"]["gpu"]["resources"]["GPU"] > 0


def test_every_node_gets_the_code_the_token_and_the_environment(launch: dict[str, Any]) -> None:
    assert launch["file_mounts"]["/opt/strata"] == "."
    assert any(path.endswith("ray.token") for path in launch["file_mounts"])
    assert any("pip install" in command for command in launch["setup_commands"])
    for commands in (launch["head_start_ray_commands"], launch["worker_start_ray_commands"]):
        assert 'eval "$(strata node-env)"' in commands[-1]


def test_no_settings_file_is_shipped_that_is_none() -> None:
    for path in ROOT.glob("*.example.yaml"):
        read(path)


def test_every_dependency_is_pinned_exactly() -> None:
    wanted = PROJECT["dependencies"] + [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    assert not [one for one in wanted if not re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?==[0-9][0-9A-Za-z.]*", one)]


def test_torch_is_pinned_so_that_the_cpu_build_is_taken() -> None:
    assert "torch==2.13.0" in PROJECT["dependencies"]


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", "ray-cluster.yaml", "pyproject.toml", "README.md"])
def test_no_registry_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"--(extra-)?index-url|--find-links|pypi\.org|\buv (pip|sync|run)\b", text)


def test_no_command_of_minutes_is_silent() -> None:
    assert not re.search(r"pip install.*(-q\b|--quiet)", (ROOT / "Makefile").read_text())


def test_continuous_integration_runs_what_a_person_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert "make test" in script.read_text()
