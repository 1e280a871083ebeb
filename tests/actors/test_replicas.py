"""Who may wait at a model's replicas, and how often what they refuse is tried again."""

import pytest

from actors.directory import Entry
from actors.gateway_link import Link, LinkStream
from actors.messages import Load, SamplingParams
from actors.replicas import Replicas
from cluster.errors import Overloaded, StrataError
from cluster.scheduling.admission import Rules
from cluster.scheduling.retries import Budget
from tests.contracts.client import PROMPT, greedy

MODEL = "m"
FULL = Load(
    running=4, places=4, stay_seconds=8.0, token_seconds=0.001, waiting=1, queue=((0, 1, 10),), queued_tokens=10
)


class Answering(Link):
    """A leader that says the same to all that it is asked; `asked` are the priorities in their order."""

    def __init__(self, name: str, load: Load, refuses: StrataError | None = None) -> None:
        super().__init__(name)
        self.load, self._refuses = load, refuses
        self.asked: list[object] = []

    def submit(self, prompt: tuple[int, ...], params: SamplingParams, **more: object) -> LinkStream:
        self.asked.append(more["priority"])
        stream = LinkStream(self, 1)
        if self._refuses is not None:
            stream.fail(self._refuses)
        return stream


def over(*links: Link, **more: object) -> Replicas:
    made = Replicas(MODEL, clock=lambda: 0.0, roll=lambda: 0, **more)  # type: ignore[arg-type]
    for link in links:
        made.adopt(link.name, link, Entry(MODEL, link.name, "", 0, "", 100, 1_000, 0, (), (), 0.0))
    return made


def test_who_would_wait_too_long_is_told_when_to_come_again() -> None:
    replicas = over(Answering("one", FULL), rules=Rules(1.5))
    with pytest.raises(Overloaded) as caught:  # two places of four that are kept for 8 s each
        replicas.admit(20)
    assert caught.value.args == (MODEL, 1, 3)
    over(Answering("one", FULL), rules=Rules(4.0)).admit(20)
    over(Answering("one", FULL), Answering("two", Load()), rules=Rules(1.5)).admit(20)


def test_a_more_urgent_one_has_less_before_it() -> None:
    replicas = over(Answering("one", FULL), rules=Rules(2.0))
    replicas.admit(20, priority=-1)
    with pytest.raises(Overloaded):
        replicas.admit(20, priority=0)


def test_one_whose_deadline_comes_first_is_not_let_in() -> None:
    replicas = over(Answering("one", FULL), rules=Rules(60.0))
    replicas.admit(20, deadline=5.0)
    with pytest.raises(Overloaded):
        replicas.admit(2_000, deadline=5.0)


async def test_it_goes_where_it_does_not_wait_too_long() -> None:
    """However good the full one looks to the router, and anywhere where all are full by now."""
    full, free = Answering("one", FULL, Overloaded(MODEL, 1, 1)), Answering("two", Load(), Overloaded(MODEL, 1, 1))
    replicas = over(full, free, rules=Rules(1.5))
    for _ in range(5):
        with pytest.raises(Overloaded):
            await replicas.submit(PROMPT, greedy(), seed=1)
    assert (len(full.asked), len(free.asked)) == (0, 5)
    free.load = FULL
    with pytest.raises(Overloaded):
        await replicas.submit(PROMPT, greedy(), seed=1)
    assert (len(full.asked), len(free.asked)) == (1, 6)


def test_one_that_gets_nothing_for_a_while_lets_nobody_in() -> None:
    idle = Answering("idle", Load(places=4))
    replicas = over(Answering("one", FULL), idle, Answering("two", FULL), rules=Rules(1.5))
    replicas.admit(20)
    for _ in range(5):
        replicas._router._health.bad("idle", 0.0)
    with pytest.raises(Overloaded):
        replicas.admit(20)


def test_where_no_replica_is_left_that_is_for_another_to_say() -> None:
    over(rules=Rules(0.0)).admit(20)


async def test_what_is_refused_is_tried_again_only_as_the_budget_lets_it() -> None:
    links = [Answering(name, Load(), Overloaded(MODEL, 9, 1)) for name in ("one", "two", "three")]
    replicas, count = over(*links), 1_000
    for _ in range(count):
        with pytest.raises(Overloaded):
            await replicas.submit(PROMPT, greedy(), seed=1, priority=3)
    asked = sum(len(link.asked) for link in links)
    rules = Budget().rules
    assert count < asked <= count * (1 + rules.share) + rules.free * rules.seconds
    assert {level for link in links for level in link.asked} == {3}


async def test_a_spare_replica_gets_nothing_until_one_is_lost() -> None:
    refusing = [Answering(name, Load(), Overloaded(MODEL, 1, 1)) for name in ("one", "two", "three")]
    replicas = over(*refusing, serving=2)

    async def ask() -> None:
        with pytest.raises(Overloaded):
            await replicas.submit(PROMPT, greedy(), seed=1)

    await ask()
    assert [len(link.asked) for link in refusing] == [1, 1, 0]
    replicas.drop("one")
    await ask()
    assert [len(link.asked) for link in refusing] == [1, 2, 1]
    replicas.adopt("four", Answering("four", Load()), Entry(MODEL, "four", "", 0, "", 100, 1_000, 0, (), (), 0.0))
    await ask()  # the new one is spare now
    assert [len(link.asked) for link in refusing] == [1, 3, 2]


def test_what_a_spare_replica_could_take_lets_nobody_in() -> None:
    replicas = over(Answering("one", FULL), Answering("two", Load()), serving=1, rules=Rules(1.5))
    with pytest.raises(Overloaded):
        replicas.admit(20)
    replicas.drop("one")
    replicas.admit(20)
