"""What both attack suites share: who must survive, and how an honest request looks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from cluster import runtime
from tests.system.conftest import MODEL, Stack, until
from tests.system.wire import Answer, ask, request

CHAT, TEXT, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
ROUTES = {CHAT: "POST", TEXT: "POST", MODELS: "GET", "/health": "GET", "/ready": "GET", "/metrics": "GET"}
HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
PROMPT: dict[str, Any] = {"model": MODEL, "prompt": "hello", "max_tokens": 2}
HONEST = {CHAT: json.dumps(HELLO).encode(), TEXT: json.dumps(PROMPT).encode()}
JSON = "Content-Type: application/json"
FRONT = ("ServeReplica:strata:gateway", "haproxy")


@dataclass
class Target:
    """The stack under attack and the processes that must be the same afterwards."""

    stack: Stack
    processes: list[psutil.Process]

    @property
    def port(self) -> int:
        return self.stack.settings.http_port

    @property
    def headers(self) -> list[str]:
        return ["Host: localhost", f"Authorization: Bearer {self.stack.key}"]

    @property
    def gateway(self) -> psutil.Process:
        (found,) = (process for process in self.processes if FRONT[0] in " ".join(process.cmdline()))
        return found

    def honest(self, route: str = CHAT) -> bytes:
        """A request that has to be answered with 200."""
        body = HONEST.get(route)
        return request(ROUTES[route], route, [*self.headers, *([JSON] if body else [])], body)

    def post(self, route: str, body: bytes, *more: str) -> Answer:
        """The answer to a body."""
        answer = ask(self.port, request("POST", route, [*self.headers, JSON, *more], body))
        assert answer is not None, "closed without a word"
        return answer

    def unharmed(self) -> None:
        """The same processes, and an honest request is answered."""
        assert all(process.is_running() for process in self.processes), "a process was lost or replaced"
        answer = ask(self.port, self.honest())
        assert answer is not None
        assert answer.status == 200


def named(process: psutil.Process) -> bool:
    """Whether it is one of those in front of the gangs."""
    line = " ".join(process.cmdline())
    return any(name in line for name in FRONT)


def target(stack: Stack) -> Iterator[Target]:
    """The stack, and after all attacks of a module: the same workers, and no more of them."""

    def workers() -> list[psutil.Process]:
        front = [process for process in map(psutil.Process, runtime.processes(stack.settings)) if named(process)]
        gangs = [pid for entry in stack.entries() for pid in (entry.leader_pid, *entry.shard_pids)]
        return sorted([*front, *map(psutil.Process, gangs)], key=lambda process: process.pid)

    until(lambda: len(stack.entries()) == 2)
    before = workers()
    assert len(before) >= 8, "two leaders, four shards, a gateway, HAProxy"
    yield Target(stack, before)
    assert workers() == before
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        until(lambda gauge=gauge: stack.gauge(f"vllm:{gauge}") == 0, 20)
