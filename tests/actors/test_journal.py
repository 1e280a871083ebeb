"""Streams that outlive their replicas: every token once and in order, whatever dies when; and what replicas die of."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from actors.directory import Directory, Entry
from actors.gateway_link import Link, LinkStream
from actors.journal import DEADLY, Asked, Journal
from actors.messages import Delta, SamplingParams
from actors.replicas import Replicas
from actors.roster import Roster
from cluster.errors import (
    DeadlineExceeded,
    GivenUp,
    InvalidRequest,
    Overloaded,
    ReplicaLost,
    StrataError,
    SuspectLost,
    Unavailable,
)
from tests.actors.engine.remembering import continuation
from tests.actors.test_link import MODEL, lead, until_ready
from tests.contracts.client import PROMPT, collect, greedy, still, tokens

LOST = ReplicaLost("a replica", "it died")
BEGUN = SuspectLost("a replica", "it died", 1)
BESIDE = SuspectLost("a replica", "it died", 2)
ANSWER = tuple(range(100, 140))


class Told:
    """A stream that tells what it was given and ends with an error or a finish."""

    def __init__(self, deltas: list[Delta], error: StrataError | None) -> None:
        self.deltas, self.error, self.cancelled = deltas, error, False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while self.deltas and not self.cancelled:
            yield self.deltas.pop(0)
        if self.error is not None and not self.cancelled:
            raise self.error

    def drain(self) -> list[Delta]:
        waiting, self.deltas = self.deltas, []
        return waiting

    def cancel(self) -> None:
        self.cancelled = True


def life(asked: Asked, steps: list[int], error: StrataError | None) -> Told:
    """A replica's answer from where the last one ended: `steps` are how many tokens come at a time."""
    at, deltas = len(asked.emitted), []
    for count in steps:
        deltas.append(Delta(1, ANSWER[at : at + count], cached_tokens=3 if not deltas else 0))
        at += count
    if error is None:
        rest = ANSWER[at:]
        deltas.append(Delta(1, rest, finish="length", cached_tokens=0 if deltas else 3))
    return Told(deltas, error)


def asked_for() -> Asked:
    return Asked(PROMPT, SamplingParams(max_tokens=len(ANSWER)), 1, 0, "", None, 600.0)


def journal(lives: list[tuple[list[int], StrataError | None]], most: int = 16) -> Journal:
    asked, left = asked_for(), list(lives)

    async def resume(again: Asked) -> Told:
        assert again is asked
        await asyncio.sleep(0)
        return life(asked, *left.pop(0))

    return Journal(asked, life(asked, *left.pop(0)), resume, most)


@pytest.mark.parametrize("seed", range(300))
async def test_every_token_once_and_in_order_whatever_dies_when(seed: int) -> None:
    chance = random.Random(seed)
    lives: list[tuple[list[int], StrataError | None]] = []
    left = len(ANSWER)
    while left > 6:
        steps = [chance.randint(1, 3) for _ in range(chance.randint(1, 2))]
        left -= sum(steps)
        lives.append((steps, chance.choice([LOST, Unavailable("the replica", "it is shutting down")])))
    stream = journal([*lives, ([], None)], most=1000)
    deltas: list[Delta] = []
    async for delta in stream:
        deltas.append(delta)
        if chance.random() < 0.3:
            deltas += stream.drain()
    assert tuple(tokens(deltas)) == ANSWER
    assert [delta.finish for delta in deltas if delta.finish] == ["length"]
    assert sum(delta.cached_tokens for delta in deltas) == 3, "the prompt counts once"
    assert stream.lost == sum(error is LOST for _, error in lives)


async def test_what_replicas_die_of_is_given_up() -> None:
    lives: list[tuple[list[int], StrataError | None]] = [([2, 1], LOST), ([], BEGUN), ([], BESIDE), ([], BEGUN)]
    with pytest.raises(GivenUp) as caught:
        await collect(journal(lives))
    assert caught.value.replicas == DEADLY
    assert caught.value.tokens == 3
    assert not caught.value.retryable


async def test_who_was_beside_it_or_only_waited_is_not_given_up() -> None:
    deltas = await collect(journal([([2, 1], LOST), *[([], LOST), ([], BESIDE)] * 4, ([], None)]))
    assert tuple(tokens(deltas)) == ANSWER


async def test_one_that_gets_on_between_deaths_is_not_given_up() -> None:
    deltas = await collect(journal([([], BEGUN), ([1], LOST)] * 7 + [([], None)]))
    assert tuple(tokens(deltas)) == ANSWER


async def test_there_are_as_many_lives_as_allowed() -> None:
    with pytest.raises(ReplicaLost):
        await collect(journal([([1], LOST)] * 10, most=3))


@pytest.mark.parametrize("error", [InvalidRequest("structured_outputs", "x", "y"), StrataError("a fault of the model")])
async def test_what_is_no_loss_ends_it(error: StrataError) -> None:
    with pytest.raises(type(error)):
        await collect(journal([([1], error), ([], None)]))


async def test_who_goes_while_it_is_moved_cancels_it() -> None:
    asked, moved = asked_for(), life(asked_for(), [1], None)
    searched, found = asyncio.Event(), asyncio.Event()

    async def resume(again: Asked) -> Told:
        searched.set()
        await found.wait()
        return moved

    stream = Journal(asked, life(asked, [1], LOST), resume, 16)
    reading = asyncio.create_task(collect(stream))
    await searched.wait()
    stream.cancel()
    found.set()
    assert len(tokens(await reading)) == 1
    assert moved.cancelled


class Dying(Link):
    """A leader whose gang dies of whatever it is given, before it could say that it has it."""

    asked = 0

    def submit(self, prompt: tuple[int, ...], params: SamplingParams, **more: object) -> LinkStream:
        Dying.asked += 1
        assert more["suspect"] == (Dying.asked > 1)
        stream = LinkStream(self, 1)
        stream.fail(BEGUN)
        return stream


async def test_who_kills_before_it_is_accepted_is_given_up_too() -> None:
    replicas = Replicas(MODEL)
    for name in ("one", "two", "three"):
        replicas.adopt(name, Dying(name), Entry(MODEL, name, "", 0, "", 100, 100, 0, (), (), 0.0))
    with pytest.raises(GivenUp):
        await replicas.submit(PROMPT, greedy(), seed=1)
    assert Dying.asked == DEADLY


async def crowd(directory: Directory, count: int) -> tuple[Replicas, Roster, list]:
    leaders = [await lead(directory, f"replica-{index}") for index in range(count)]
    replicas = Replicas(MODEL)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas, count)
    return replicas, roster, leaders


async def test_streams_go_on_at_another_replica() -> None:
    directory = Directory()
    replicas, roster, leaders = await crowd(directory, 2)
    count = 12
    wanted = [tuple(range(10 + index, 30 + index)) for index in range(count)]
    params = greedy(max_tokens=400)
    streams = [await replicas.submit(prompt, params, seed=1) for prompt in wanted]
    reading = [asyncio.create_task(collect(stream)) for stream in streams]
    await asyncio.sleep(0)
    leaders[0].close()
    for prompt, task in zip(wanted, reading, strict=True):
        deltas = await task
        assert tokens(deltas) == continuation(prompt, 400)
        assert sum(delta.finish is not None for delta in deltas) == 1
    await still(replicas)
    await roster.close()
    leaders[1].close()


async def test_who_pauses_holds_nothing_and_goes_on_later() -> None:
    directory = Directory()
    replicas, roster, leaders = await crowd(directory, 1)
    stream = await replicas.submit(PROMPT, greedy(max_tokens=3000), seed=1)
    heard: list[Delta] = []
    async for delta in stream:
        heard.append(delta)
        if len(tokens(heard)) > 20:
            break
    assert stream.pause()
    await still(replicas)
    heard += await collect(stream)
    assert tokens(heard) == continuation(PROMPT, 3000)
    assert [delta.finish for delta in heard if delta.finish] == ["length"]
    await still(replicas)
    await roster.close()
    leaders[0].close()


async def test_streams_wait_for_the_new_one_and_go_first() -> None:
    directory = Directory()
    replicas, roster, leaders = await crowd(directory, 1)
    params = greedy(max_tokens=300, temperature=1.0)
    whole = tokens(await collect(await replicas.submit(PROMPT, params, seed=5)))
    stream = await replicas.submit(PROMPT, params, seed=5)
    deltas = [await anext(aiter(stream))]
    leaders[0].close()
    reading = asyncio.create_task(collect(stream))
    while replicas.ready:
        await asyncio.sleep(0.005)
    with pytest.raises(Unavailable, match="none of its replicas"):
        await replicas.submit(PROMPT, params, seed=5)
    again = await lead(directory, "another", running_sequences=1, queued_sequences=0)
    assert tokens(deltas + await reading) == whole
    await roster.close()
    again.close()


async def test_where_none_comes_the_deadline_ends_it() -> None:
    directory = Directory()
    replicas, roster, leaders = await crowd(directory, 1)
    stream = await replicas.submit(PROMPT, greedy(max_tokens=90_000), seed=1, deadline=0.3)
    leaders[0].close()
    with pytest.raises((DeadlineExceeded, Overloaded)):
        await collect(stream)
    await roster.close()
