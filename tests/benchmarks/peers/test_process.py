"""The protocol between the benchmark and an engine, with an engine of a few lines in a real process."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.peers.process import Engine, EngineFailed
from benchmarks.peers.workload import Order

ROOT = Path(__file__).parents[3]
COUNTER = """
import os, sys, threading, time
from benchmarks.peers.workload import Order, serve

def spin():
    while True:
        pass

def load(order):
    if order.path == "broken":
        raise ValueError("no such weights")
    print("a library greets")  # goes where nobody takes it for an answer
    def generate(prompts, new_tokens):
        if new_tokens == 99:
            time.sleep(60)
        if new_tokens == 97:
            threading.Thread(target=spin, daemon=True).start()
        if new_tokens == 98:
            new_tokens = 3
        return [[sum(prompt) + i for i in range(new_tokens)] for prompt in prompts]
    return generate, {"counter": "1"}

serve(load)
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("counter", [sys.executable, "-c", COUNTER], {"PATH": "/usr/bin:/bin"}, ROOT) as started:
        yield started


def test_an_engine_loads_and_answers_every_prompt(engine: Engine) -> None:
    versions, seconds = engine.load(Order("weights", 2), 30)
    assert versions == {"counter": "1"}
    tokens, inside = engine.generate([[1, 2], [3, 4]], 3, 30)
    assert tokens == [[3, 4, 5], [7, 8, 9]]
    assert 0 < inside < seconds + 30
    assert engine.peak_mb() > 1


def test_who_waits_is_stopped_and_goes_on_when_asked(engine: Engine) -> None:
    engine.load(Order("weights", 2), 30)
    assert os.waitid(os.P_PID, engine._process.pid, os.WSTOPPED | os.WNOWAIT).si_status == signal.SIGSTOP
    assert engine.generate([[5]], 1, 30)[0] == [[5]]


def test_what_an_engine_does_unasked_goes_on_until_it_rests_or_for_so_long(engine: Engine) -> None:
    engine.load(Order("weights", 2), 30)
    engine.generate([[5]], 97, 30)  # and spins from then on
    before = psutil.Process(engine.pid).cpu_times().user
    engine.rest(1.0)
    assert psutil.Process(engine.pid).cpu_times().user > before
    assert os.waitid(os.P_PID, engine.pid, os.WSTOPPED | os.WNOWAIT).si_status == signal.SIGSTOP


def test_an_engine_that_fails_says_its_last_error(engine: Engine) -> None:
    with pytest.raises(EngineFailed, match="counter ended with 1: ValueError: no such weights"):
        engine.load(Order("broken", 2), 30)


def test_an_engine_that_hangs_is_given_up(engine: Engine) -> None:
    engine.load(Order("weights", 2), 30)
    with pytest.raises(EngineFailed, match="no answer within 0 s"):
        engine.generate([[1]], 99, 0.0)


def test_fewer_tokens_than_asked_for_are_no_measurement(engine: Engine) -> None:
    engine.load(Order("weights", 2), 30)
    with pytest.raises(EngineFailed, match="1 times 98"):
        engine.generate([[1]], 98, 30)


def test_leaving_ends_what_waits(engine: Engine) -> None:
    engine.load(Order("weights", 2), 30)
    pid = engine._process.pid
    engine.close()
    assert not psutil.pid_exists(pid)
