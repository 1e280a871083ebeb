"""What of gangs that wait is written into the log."""

from collections.abc import Collection

import pytest
from structlog.testing import capture_logs

from pipelines.lookout import LOST_LOOKS, Lasting, Lookout, Lost


def test_what_lasts_was_there_at_the_look_before() -> None:
    lasting = Lasting()
    assert lasting.of(["a: 1 CPU", "b: 2 CPU"]) == {}
    assert lasting.of(["a: 3 CPU"]) == {"a": "a: 3 CPU"}
    assert lasting.of([]) == {}
    assert lasting.of(["a: 1 CPU"]) == {}


def test_a_wait_is_told_once_with_its_reason_and_when_it_is_over() -> None:
    lookout = Lookout(list)
    with capture_logs() as logs:
        for said in (["a: why"], ["a: why", "b: why"], ["a: other", "b: why"], ["b: why"], [], ["a: why"], ["a: why"]):
            lookout.tell(said)
    assert [(each["event"], each["model"]) for each in logs] == [
        ("gangs_wait", "a"), ("gangs_wait", "b"), ("gangs_placed", "a"), ("gangs_placed", "b"), ("gangs_wait", "a"),
    ]  # fmt: skip
    assert logs[0]["why"] == "a: why"
    assert lookout.waiting() == {"a": "a: why"}


async def test_a_look_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    seen = asyncio.Event()
    loop, looks = asyncio.get_running_loop(), []

    def look() -> list[str]:
        looks.append(1)
        if len(looks) == 1:
            raise ConnectionError
        loop.call_soon_threadsafe(seen.set)
        return []

    lookout = Lookout(look, seconds=0.001)
    lookout.start()
    async with asyncio.timeout(20):
        await seen.wait()
    lookout.close()


async def test_what_gangs_are_made_from_is_held_at_once_and_with_every_look() -> None:
    import asyncio

    held, thrice = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        held.append(len(looks))
        if len(held) == 3:
            loop.call_soon_threadsafe(thrice.set)

    looks: list[int] = []
    lookout = Lookout(lambda: looks.append(1) or [], seconds=0.001, hold=hold)  # type: ignore[func-returns-value]
    lookout.start()
    async with asyncio.timeout(20):
        await thrice.wait()
    lookout.close()
    assert held[:3] == [0, 1, 2]


def test_a_group_is_lost_once_nobody_owned_it_in_looks_on_end() -> None:
    lost = Lost()
    for _ in range(LOST_LOOKS - 1):
        assert lost.of(["a", "b"]) == []
    assert lost.of(["a"]) == ["a"]
    assert lost.of(["a", "b"]) == ["a"], "the other had an owner in between"


def test_lost_groups_are_removed_and_told_once() -> None:
    left, removed = {"a", "b"}, []

    def sweep(names: Collection[str]) -> list[str]:
        gone = sorted(left & set(names))
        left.difference_update(gone)
        removed.extend(gone)
        return gone

    lookout = Lookout(list, leaked=lambda: left, sweep=sweep)
    with capture_logs() as logs:
        for _ in range(LOST_LOOKS + 2):
            lookout.tidy()
    assert removed == ["a", "b"]
    assert [(each["event"], each["group"]) for each in logs] == [("group_removed", "a"), ("group_removed", "b")]
