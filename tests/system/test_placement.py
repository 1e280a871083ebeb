"""Gangs that cannot be placed, that wait, and groups that nobody owns, as the real cluster tells of them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from pipelines import places
from pipelines.settings import Settings
from tests.system.conftest import MODEL, ROOT, Stack, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def group(name: str, cores: float) -> Iterator[str]:
    """A placement group named as Serve names a replica's, though there is none."""
    from ray.util import placement_group, remove_placement_group

    full = f"SERVE_REPLICA::strata#model-{MODEL}#{name}"
    made = placement_group([{"CPU": cores}], name=full, lifetime="detached")
    try:
        until(lambda: any(each["name"] == full for each in places.groups()))
        yield full
    finally:
        remove_placement_group(made)


def test_gangs_stand_where_the_directory_says_and_no_group_is_leaked(stack: Stack) -> None:
    until(lambda: len(stack.entries()) == 2)
    settings = Settings.of(yaml.safe_load((stack.clone / "strata.yaml").read_text()))
    found = places.gather(settings.models, stack.entries())
    assert [gang["model"] for gang in found["gangs"]] == [MODEL, MODEL]
    assert len({gang["node"] for gang in found["gangs"]}) == 2
    assert len(found["planned"]) == 2
    assert (found["notes"], found["waiting"], found["leaked"]) == ([], [], [])


def test_a_group_that_no_gang_owns_is_found_and_removed(stack: Stack) -> None:
    until(lambda: len(stack.entries()) == 2)
    before = set(stack.entries())
    with group("gone", 0.01) as name:
        assert places.leaked() == [name]
        assert places.sweep() == [name]
        until(lambda: places.leaked() == [])
    assert places.sweep() == []
    assert set(stack.entries()) == before
    assert stack.get("/ready").status_code == 200


def test_a_gang_that_waits_is_explained(stack: Stack) -> None:
    settings = Settings.of(yaml.safe_load((stack.clone / "strata.yaml").read_text()))
    wide = settings.models[0].model_copy(update={"tensor_parallel_size": 3, "shard_cpus": 2})
    with group("waits", 6.0):
        (said,) = places.waiting([wide])
    assert said.startswith(f"{MODEL}: 1 gang waits for a place: each needs 6 CPU on one node; there is ")
    assert "add a node that has 6 CPU" in said
    assert places.waiting(settings.models) == []


def test_what_can_never_stand_is_refused_before_anything_is_touched(stack: Stack, tmp_path: Path) -> None:
    until(lambda: len(stack.entries()) == 2)
    before = set(stack.entries())
    settings = yaml.safe_load((stack.clone / "strata.yaml").read_text())
    settings["models"][0] |= {"tensor_parallel_size": 2, "shard_cpus": 4}
    (tmp_path / "wide.yaml").write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "deploy", "-f", str(tmp_path / "wide.yaml")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{MODEL} needs room for 2 more gangs, each of 8 CPU on one node and there is " in done.stderr
    assert "add a node that has 8 CPU" in done.stderr
    assert set(stack.entries()) == before
