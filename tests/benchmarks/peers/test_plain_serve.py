"""What stands for plain Ray Serve answers as our own replicas do: else a benchmark would compare something else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.engine import LLM
from benchmarks.peers.plain_serve import Near
from tests.contracts.client import ClientContract

STARTER = Path(__file__).parents[3] / "models" / "starter"


@pytest.fixture
async def client() -> AsyncIterator[Near]:
    near = Near(await asyncio.to_thread(LLM, str(STARTER), kv_cache_tokens=8192))
    yield near
    near.thread.close()


class TestNear(ClientContract):
    """The contract that the gateway relies on."""
