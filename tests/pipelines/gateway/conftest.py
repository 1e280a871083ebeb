"""The gateway before a fake model, called in process and over a real port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from actors.engine.tokens import Tokenizer
from cluster.security.keys import KeyRing, Principal
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served
from pipelines.gateway.app import create
from pipelines.gateway.asgi import App
from pipelines.gateway.desk import Registry
from pipelines.gateway.settings import GatewaySettings
from tests.pipelines.gateway.fakes import FakeClient, FakeReleases
from tests.pipelines.gateway.folder import write


@dataclass
class Stage:
    """All that a test sets up or looks into."""

    app: App
    client: FakeClient
    tokenizer: Tokenizer
    metrics: Metrics
    ring: KeyRing
    key: str

    def http(self, key: str | None = None) -> httpx.AsyncClient:
        held = {"authorization": f"Bearer {key or self.key}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost", headers=held)


async def agree(principal: Principal, act: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A registry that does as it is told."""
    return {"object": act, "by": principal.name, "revision": "r1", **given}


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(write(tmp_path_factory.mktemp("model")))


@pytest.fixture
def make_stage(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Stage]:
    def make(settings: GatewaySettings | None = None, registry: Registry | None = None, **how) -> Stage:
        client, metrics, ring = FakeClient(**how), Metrics(), KeyRing(tmp_path / "keys.json")
        key = ring.issue("tests", "acme", "admin", created=1)
        served = {"starter": Served("starter", client, tokenizer, created=5)}
        app = create(served, ring, settings, metrics, registry=registry or agree, releases=FakeReleases())
        return Stage(app, client, tokenizer, metrics, ring, key)

    return make


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    return make_stage()


class Server(uvicorn.Server):
    """Uvicorn, which says when it listens."""

    def __init__(self, app: App) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def listening(app: App) -> AsyncIterator[int]:
    """The app on a real loopback port."""
    server = Server(app)
    running = asyncio.create_task(server.serve())
    await server.listening.wait()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = server.force_exit = True
    await running


@pytest.fixture
async def port(stage: Stage) -> AsyncIterator[int]:
    async with listening(stage.app) as port:
        yield port


@pytest.fixture
async def ai(stage: Stage, port: int) -> AsyncIterator[openai.AsyncOpenAI]:
    """The unmodified OpenAI client."""
    client = openai.AsyncOpenAI(api_key=stage.key, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    async with client:
        yield client
