"""What is deployed no more is known while somebody waits, and nothing is concluded from silence."""

import asyncio

import pytest

from pipelines.withdrawal import LOOK_SECONDS, Withdrawal


class Serve:
    """What it says, how often it was asked, and time."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked, self.now = names, 0, 0.0
        self.fails: Exception | None = None

    def look(self) -> tuple[str, ...]:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return self.names


@pytest.fixture
def serve() -> Serve:
    return Serve("gateway", "model-a")


async def test_what_is_not_there_beside_the_gateway_was_taken_off(serve: Serve) -> None:
    seen = Withdrawal(serve.look, "gateway", lambda: serve.now)
    assert [await seen.of(name) for name in ("model-a", "model-b")] == [False, True]
    serve.names = ("gateway",)
    assert not await seen.of("model-a"), "it was looked a moment ago"
    serve.now += LOOK_SECONDS
    assert await seen.of("model-a")


async def test_many_who_wait_ask_once(serve: Serve) -> None:
    seen = Withdrawal(serve.look, "gateway", lambda: serve.now)
    assert await asyncio.gather(*(seen.of("model-b") for _ in range(50))) == [True] * 50
    assert serve.asked == 1


@pytest.mark.parametrize("fails", [None, ConnectionError("away")])
async def test_nothing_is_concluded_where_serve_does_not_tell(serve: Serve, fails: Exception | None) -> None:
    serve.names, serve.fails = (), fails
    assert not await Withdrawal(serve.look, "gateway", lambda: serve.now).of("model-a")
