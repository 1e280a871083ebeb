"""Turns go where their prefix is, queues permitting, and what becomes of them is remembered once."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Load
from actors.routing import PIECE, Router, Ticket, queue_of
from cluster.scheduling.admission import Queue
from cluster.scheduling.outliers import Rules

LONG = tuple(range(10 * PIECE))


class World:
    """A router over replicas whose loads are as set."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        rolls = itertools.count()
        self.router = Router(lambda: self.now, Rules(errors=2), lambda: next(rolls))
        self.loads: dict[str, tuple[Load, int]] = {}
        for name in names:
            self.router.add(name, 100 * PIECE)
            self.loads[name] = (Load(), 0)

    def send(self, prompt: tuple[int, ...] = LONG, salt: str = "") -> Ticket:
        return self.router.choose(prompt, salt, self.loads)

    def whole(self, prompt: tuple[int, ...] = LONG, emitted: tuple[int, ...] = ()) -> str:
        ticket = self.send(prompt)
        self.now += 1e-3 * ticket.work
        ticket.first(PIECE * ticket.expected)
        ticket.ended(emitted)
        return ticket.replica


def test_a_conversation_stays_where_it_was() -> None:
    world = World("a", "b", "c", "d")
    home = world.whole(LONG, tuple(range(900, 900 + PIECE)))
    later = (*LONG, *range(900, 900 + PIECE), *range(20))
    ticket = world.send(later)
    assert ticket.replica == home
    assert ticket.uncached == 20  # what the answer added is known, too
    assert {world.whole((*later, 1, turn)) for turn in range(8)} == {home}


def test_another_tenant_s_prefix_is_not_its_own() -> None:
    world = World("a", "b")
    world.whole()
    assert world.send(salt="other").expected == 0


def test_it_moves_when_there_is_too_much_to_do() -> None:
    world = World("a", "b")
    home = world.whole()
    world.loads[home] = (Load(queued_tokens=5_000, running=4), 4)
    assert world.send().replica != home


def test_what_was_just_sent_counts_before_any_load_tells_of_it() -> None:
    world = World("a", "b")
    home = world.whole()
    sent = [world.send((*LONG, *range(5_000 + 1_000 * turn, 5_600 + 1_000 * turn))).replica for turn in range(6)]
    assert set(sent) == {"a", "b"}
    assert sent[0] == home


def test_waiting_is_taken_back_however_it_ends() -> None:
    world = World("a", "b")
    for end in ("first", "failed", "ended"):
        ticket = world.send((*range(hash(end) % 1000, hash(end) % 1000 + 500),))
        assert world.router._waiting[ticket.replica] == ticket.uncached
        ticket.first(0) if end == "first" else getattr(ticket, end)()
        ticket.ended()
        ticket.failed()  # told twice: counts once
        assert world.router._waiting == {"a": 0, "b": 0}


def test_a_loss_that_is_told_twice_is_one() -> None:
    world = World("a", "b")
    ticket = world.send()
    ticket.failed()
    ticket.failed()
    assert world.router.out() == []
    world.router._health.bad(ticket.replica, 0.0)
    assert world.router.out() == [ticket.replica]


def test_who_fails_gets_nothing_until_a_trial() -> None:
    world = World("a", "b")
    for _ in range(2):
        world.router._health.bad("a", 0.0)
    assert {world.send((turn,) * 100).replica for turn in range(20)} == {"b"}
    world.now = 31.0
    trial = world.send((7,) * 100)
    assert trial.replica == "a"
    assert {world.send((turn,) * 100).replica for turn in range(20)} == {"b"}
    trial.first(0)
    assert {world.send((turn,) * 100).replica for turn in range(20)} == {"a", "b"}


def test_one_that_is_not_known_yet_or_gone_does_no_harm() -> None:
    world = World("a")
    ticket = world.send()
    world.router.remove("a")
    ticket.first(0)
    ticket.ended((1, 2, 3))
    world.loads = {"stranger": (Load(), 0)}
    assert world.send().replica == "stranger"


def test_a_forgetful_cache_is_trusted_less() -> None:
    world = World("a", "b")
    home = world.whole()
    ticket = world.send()
    assert (ticket.replica, ticket.expected) == (home, 10)
    ticket.first(0)
    assert world.send().expected < 10


@pytest.mark.parametrize("count", [1, 3])
def test_a_short_prompt_needs_no_digest(count: int) -> None:
    world = World(*"abc"[:count])
    assert world.send((1, 2, 3)).digests == []


LOADED = Load(
    running=4,
    waiting=5,
    queued_tokens=700,
    places=4,
    stay_seconds=2.0,
    token_seconds=0.001,
    queue=((-5, 1, 100), (0, 2, 200), (7, 2, 300)),
)


@pytest.mark.parametrize(("priority", "ahead", "tokens"), [(-9, 0, 100), (-5, 1, 200), (0, 3, 400), (7, 5, 700)])
def test_only_what_has_its_turn_sooner_is_before_a_request(priority: int, ahead: int, tokens: int) -> None:
    """A hundred tokens are of those that run already: before all."""
    assert queue_of(LOADED, 9, 700, priority) == Queue(4, 4, ahead, tokens, 2.0, 0.001)


def test_what_the_load_does_not_know_yet_is_before_it() -> None:
    found = queue_of(LOADED, 12, 1_000, -9)
    assert (found.ahead, found.tokens) == (3, 400)


def test_places_are_of_no_use_where_the_cache_is_full() -> None:
    crowded = Load(running=2, waiting=1, kv_used=0.95, places=64, queue=((0, 1, 10),))
    assert queue_of(crowded, 3, 10, 0).places == 2
    assert queue_of(replace(crowded, kv_used=0.5), 3, 10, 0).places == 64
    assert queue_of(replace(crowded, running=0), 1, 10, 0).places == 1


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 50), st.integers(1, 5000)), max_size=7, unique_by=min),
    st.integers(0, 64),
    st.integers(0, 500),
    st.integers(0, 10**6),
)
def test_who_is_more_urgent_never_finds_more_before_it(
    waiting: list[tuple[int, int, int]], running: int, own: int, own_tokens: int
) -> None:
    load = Load(
        running=running,
        waiting=sum(count for _, count, _ in waiting),
        queued_tokens=sum(tokens for _, _, tokens in waiting),
        queue=tuple(waiting),
    )
    found = [queue_of(load, own, own_tokens, priority) for priority in range(-4, 5)]
    assert [queue.ahead for queue in found] == sorted(queue.ahead for queue in found)
    assert [queue.tokens for queue in found] == sorted(queue.tokens for queue in found)
    assert min(queue.tokens for queue in found) >= 0
