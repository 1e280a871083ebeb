"""Faults of every kind under live streams and short requests: no answer fails, is cut or says another thing."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from pipelines.chaos.asks import TEXT, Answer, Gathering, live
from pipelines.chaos.faults import HARMLESS, Sight, Target, named
from pipelines.chaos.run import Run, Wanted
from pipelines.chaos.stage import Stage
from pipelines.chaos.story import Story, summary
from pipelines.cli import serving
from tests.system.conftest import MODEL, Stack, cores_held, holders, submit, until
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
    assert not story.refused
    assert not story.leaks


def test_processes_die_and_freeze_and_clients_see_pauses(stack: Stack) -> None:
    check(strike(stack, Wanted(named(HARMLESS), FAULTS, minutes=0.0, streams=16, rate=10.0)), FAULTS)


def test_all_gangs_die_and_clients_wait_for_new_ones(stack: Stack) -> None:
    check(strike(stack, Wanted(named(["kill-leader"]), 4, minutes=0.0, streams=8, rate=5.0, spare=0)), 4)


def test_a_node_is_lost_and_clients_see_a_pause(stack: Stack, machines: Machines) -> None:
    story = strike(stack, Wanted(named(["kill-node"]), 1, minutes=0.0, streams=16, rate=10.0))
    until(lambda: not all(there(name) for name in ("b", "c")))
    machines.start("b" if there("c") else "c")
    check(story, 1)


def test_a_drained_node_s_streams_move_and_go_on(stack: Stack, machines: Machines) -> None:
    """Each stream is longer than the 2 s that a gang has to end its own."""
    import ray

    until(lambda: len(stack.entries()) == 2)
    until(lambda: cores_held() == 4, what=holders)
    heads = {node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"]}
    victim = next(entry.node for entry in stack.entries() if entry.node not in heads)
    name = next(
        each for node in ray.nodes() if node["NodeID"] == victim for each in ("b", "c") if each in node["Resources"]
    )
    story = under_load(stack, lambda: command(stack, "drain", victim[:12]))
    assert not [(record.name, record.verdict, record.why) for record in story.bad]
    assert not story.refused
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
    assert not story.refused
    until(lambda: not before & {entry.replica for entry in stack.entries()})
    until(lambda: len(stack.entries()) == 2)


class Listener:
    """A client that comes again after the last event that it has, as often as its connection is cut."""

    def __init__(self, stack: Stack, path: str, body: Mapping[str, Any]) -> None:
        self._stack, self._path, self._body = stack, path, body
        self._gathering = Gathering()
        self.events, self.whole, self.last = 0, False, ""

    def listen(self, most: int | None = None) -> None:
        """Until so many events came, or the connection ends in whatever way."""
        until_event = None if most is None else self.events + most
        headers = self._stack.headers | ({"last-event-id": self.last} if self.last else {})
        lines: list[str] = []
        with httpx.stream(
            "POST", self._stack.url + self._path, json=self._body, headers=headers, timeout=60, trust_env=False
        ) as response:
            assert response.status_code in (200, 503), response.read()
            for line in response.iter_lines():
                if line:
                    lines.append(line)
                    continue
                self._take(lines)
                lines.clear()
                if self.events == until_event:
                    return

    def follow(self) -> Answer:
        """To the end, through whatever happens."""
        while not self.whole:
            with suppress(httpx.TransportError):
                self.listen()
        return self._gathering.answer()

    def _take(self, lines: list[str]) -> None:
        for line in lines:
            if line.startswith("id: "):
                self.last = line.removeprefix("id: ")
            elif line.startswith("data: {"):
                self._gathering.take(json.loads(line[6:]))
                self.events += 1
            elif line == "data: [DONE]":
                self.whole = True


@pytest.mark.parametrize("choices", [1, 2])
def test_a_cut_connection_is_made_again_after_the_last_event(stack: Stack, choices: int) -> None:
    until(lambda: len(stack.entries()) == 2)
    body = {
        "model": MODEL, "prompt": "On and on", "seed": 4, "n": choices, "max_tokens": 1500, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    expected = Listener(stack, TEXT, body).follow()
    client = Listener(stack, TEXT, body)
    for events in (3, 5):
        client.listen(events)
        assert not client.whole
        until(lambda: stack.gauge("vllm:num_requests_running") == 0)  # nobody listens: nothing is held
    assert client.follow() == expected


def test_a_gateway_dies_and_another_goes_on_with_its_streams(stack: Stack) -> None:
    until(lambda: len(stack.entries()) == 2)
    asks = [ask for ask in live(MODEL, 1000) if ask.leaves is None]
    expected = [Listener(stack, ask.path, ask.body).follow() for ask in asks]
    clients = [Listener(stack, ask.path, ask.body) for ask in asks]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = [pool.submit(client.follow) for client in clients]
        until(lambda: all(client.events > 3 for client in clients))
        assert not all(client.whole for client in clients)
        os.kill(gateway(), signal.SIGKILL)
        found = [answer.result() for answer in answers]
    assert found == expected


def gateway() -> int:
    """The process of the gateway that answers."""
    from ray.serve.context import _get_global_client

    details = _get_global_client().get_serve_details()["applications"]["strata"]["deployments"]["gateway"]
    (pid,) = {replica["pid"] for replica in details["replicas"] if replica["state"] == "RUNNING"}
    return pid


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
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
