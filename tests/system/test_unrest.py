"""Faults of every kind under live streams and short requests: no answer fails, is cut or says another thing."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from pipelines.chaos.asks import Gathering
from pipelines.chaos.faults import HARMLESS, Sight, Target, named
from pipelines.chaos.run import Run, Wanted
from pipelines.chaos.stage import Stage
from pipelines.chaos.story import Story, summary
from pipelines.cli import serving
from tests.system.conftest import MODEL, Stack, submit, until
from tests.system.machines import ROOT, Machines, there

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

FAULTS = 60  # a gang is made again in some 8 s on two busy cores, and most of them wait for that


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
    story = strike(stack, Wanted(named(["kill-node"]), 1, minutes=0.0, streams=16, rate=10.0))
    until(lambda: not all(there(name) for name in ("b", "c")))
    machines.start("b" if there("c") else "c")
    check(story, 1)


def test_a_drained_node_s_streams_move_and_go_on(stack: Stack, machines: Machines) -> None:
    """Each stream is longer than the 2 s that a gang has to end its own."""
    import ray

    until(lambda: len(stack.entries()) == 2)
    heads = {node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"]}
    victim = next(entry.node for entry in stack.entries() if entry.node not in heads)
    name = next(
        each for node in ray.nodes() if node["NodeID"] == victim for each in ("b", "c") if each in node["Resources"]
    )
    story = under_load(stack, lambda: command(stack, "drain", victim[:12]))
    assert not [(record.name, record.verdict, record.why) for record in story.bad]
    assert victim not in {entry.node for entry in stack.entries()}
    machines.end(name)
    until(lambda: not there(name))
    machines.start(name)


def test_a_rolling_update_moves_streams_and_cuts_none(stack: Stack) -> None:
    until(lambda: len(stack.entries()) == 2)
    before = {entry.replica for entry in stack.entries()}
    file = stack.clone / "strata.yaml"
    file.write_text(file.read_text().replace("queued_sequences: 250", "queued_sequences: 251"))
    story = under_load(stack, lambda: submit(stack.clone))
    assert not [(record.name, record.verdict, record.why) for record in story.bad]
    until(lambda: not before & {entry.replica for entry in stack.entries()})
    until(lambda: len(stack.entries()) == 2)


@pytest.mark.parametrize("choices", [1, 2])
def test_a_cut_connection_is_made_again_after_the_last_event(stack: Stack, choices: int) -> None:
    until(lambda: len(stack.entries()) == 2)
    body = {
        "model": MODEL, "prompt": "On and on", "seed": 4, "n": choices, "max_tokens": 1500, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip

    def listen(last: str, events: int | None) -> tuple[Gathering, str, bool]:
        """So many events from after `last` on, or all; the last id, and whether it came to the end."""
        heard, whole = gathered, False
        headers = stack.headers | ({"last-event-id": last} if last else {})
        with httpx.stream(
            "POST", f"{stack.url}/v1/completions", json=body, headers=headers, timeout=60, trust_env=False
        ) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("id: "):
                    last = line.removeprefix("id: ")
                elif line.startswith("data: {"):
                    heard.take(json.loads(line[6:]))
                    events = None if events is None else events - 1
                    if events == 0:
                        break
                whole = whole or line == "data: [DONE]"
        return heard, last, whole

    gathered = Gathering()
    expected, _, whole = listen("", None)
    assert whole
    gathered = Gathering()
    last = ""
    for events in (3, 5):
        _, last, whole = listen(last, events)
        assert not whole
        until(lambda: stack.gauge("vllm:num_requests_running") == 0)  # nobody listens: nothing is held
    _, _, whole = listen(last, None)
    assert whole
    assert gathered.answer() == expected.answer()


def under_load(stack: Stack, act: Callable[[], subprocess.CompletedProcess[str]]) -> Story:
    """What clients saw, of streams that are open from before `act` until after it."""
    done: list[subprocess.CompletedProcess[str]] = []

    class Acting:
        """Strikes once, by `act`."""

        def sight(self) -> Sight:
            return Sight((), (Target("controller", 1, ""),) if not done else ())

        def strike(self, target: Target, how: signal.Signals) -> None:
            done.append(act())

        def still(self) -> list[str]:
            return []

        def counts(self) -> Counter[str]:
            return Counter()

    wanted = Wanted(named(["kill-controller"]), 1, minutes=0.0, streams=12, rate=5.0, stream_tokens=800)
    story = Run(Acting(), stack.url, stack.key, MODEL, wanted, print).go()
    (ended,) = done
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    print(json.dumps(summary(story), indent=2))
    return story


def command(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """`strata ...` with the settings of the stack."""
    line = [sys.executable, "-m", "pipelines.cli", *words, "-f", str(stack.clone / "strata.yaml")]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
