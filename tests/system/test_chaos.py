"""Faults of every kind under live streams and short requests: no answer fails, is cut or says another thing."""

import json
import os

import pytest

from pipelines.chaos.faults import HARMLESS, named
from pipelines.chaos.run import Run, Wanted
from pipelines.chaos.stage import Stage
from pipelines.chaos.story import Story, summary
from pipelines.cli import serving
from tests.system.conftest import MODEL, Machines, Stack, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

FAULTS = int(os.environ.get("FO_FAULTS", "20"))


def strike(stack: Stack, wanted: Wanted) -> Story:
    """One run on the shared stack, told as it goes: pytest shows it where the test fails."""
    until(lambda: len(stack.entries()) == 2)
    stage = Stage(stack.settings, lambda: tuple(serving.gangs()), stack.gauge)
    story = Run(stage, stack.url, stack.key, MODEL, wanted, print).go()
    print(json.dumps(summary(story), indent=2))
    for record in story.bad:
        print(record.name, record.verdict, record.why)
    return story


def check(story: Story, faults: int) -> None:
    assert (story.stopped, len(story.faults)) == ("", faults)
    assert not [(record.name, record.verdict, record.why) for record in story.bad]
    assert not story.leaks


def test_processes_die_and_freeze_and_clients_see_pauses(stack: Stack) -> None:
    check(strike(stack, Wanted(named(HARMLESS), FAULTS, minutes=0.0, streams=16, rate=10.0)), FAULTS)


def test_a_node_is_lost_and_clients_see_a_pause(stack: Stack, machines: Machines) -> None:
    import ray

    story = strike(stack, Wanted(named(["kill-node"]), 1, minutes=0.0, streams=16, rate=10.0))
    alive = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
    for name in {"b", "c"} - alive:
        machines.start(name)
    check(story, 1)
