"""Few streams are written to at once, many together no more often than was set."""

import pytest

from pipelines.gateway.pace import Gait, Pace


def test_few_streams_never_wait() -> None:
    pace = Pace(3000)
    assert pace.seconds == 0.0
    with pace.stream(), pace.stream():
        assert pace.seconds == 0.0


def test_many_share_what_was_set() -> None:
    pace = Pace(1000)
    rows = [pace.stream() for _ in range(50)]
    for row in rows:
        row.__enter__()
    assert pace.seconds == pytest.approx(0.05)
    for row in rows:
        row.__exit__(None, None, None)
    assert pace.seconds == 0.0


async def test_a_gait_waits_only_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("pipelines.gateway.pace.time.monotonic", lambda: now[0])
    monkeypatch.setattr("pipelines.gateway.pace.asyncio.sleep", sleep)
    pace = Pace(25)
    with pace.stream() as gait:
        assert isinstance(gait, Gait)
        now[0] = 0.01
        await gait.rest()
        now[0] += 0.2
        await gait.rest()
    assert slept == [pytest.approx(0.03)]


def test_nobody_waits_so_long_that_it_is_seen() -> None:
    pace = Pace(10)
    with pace.stream():
        assert pace.seconds == pytest.approx(0.05)
