"""Questions to both versions of a rollout, with fake models that say what a test wants."""

import asyncio
import random

import pytest

from actors.engine.tokens import Tokenizer
from cluster.errors import ContextTooLong, NotFound, Overloaded, Unavailable
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served
from pipelines.gateway.evaluator import TRIES, Evaluator
from pipelines.routing import cases
from pipelines.routing.guide import Guide
from pipelines.routing.route import first
from pipelines.routing.settings import RouteSettings
from tests.pipelines.gateway.fakes import FakeClient

SAID = "abc"  # what the old version says to everything
QUESTIONS = cases.of([{"prompt": str(place), "answer": SAID, "max_tokens": 3} for place in range(5)], "x")


class Stand:
    """An evaluator, its guide, and two versions."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.old, self.new = FakeClient(), FakeClient()
        self.old.script = tuple(tokenizer.encode(SAID))
        self.new.script = tuple(tokenizer.encode("xyz"))
        served = {
            f"chat@{name}": Served(f"chat@{name}", client, tokenizer, 5)
            for name, client in (("v6", self.old), ("v7", self.new))
        }
        self.metrics, self.fetched = Metrics(), 0
        self.guide = Guide({"chat": first("chat", RouteSettings(), ("v6", "v7"))})
        self.evaluator = Evaluator(served, self.metrics, lambda: 0.0, self.guide, self.fetch, random.Random(3))

    async def fetch(self, digest: str):
        self.fetched += 1
        if digest != QUESTIONS.digest:
            raise NotFound("set of questions", digest)
        return QUESTIONS.plain

    def tell(self, step: int = 0, *, evals: bool = True) -> None:
        sets = {"sums": QUESTIONS.digest}
        route = {
            "weights": {"v6": 100}, "seeds": {}, "settings": {}, "ramp": {"old": "v6", "new": "v7", "share": 1},
            "evals": {"rollout": "chat-v7", "step": step, "sets": sets} if evals else None,
        }  # fmt: skip
        self.guide.take({"revision": 7 + step, "routes": {"chat": route}})

    @property
    def grades(self):
        return [(each["version"], each["case"], each["right"]) for each in self.guide.report()["grades"]]


@pytest.fixture
def stand(tokenizer: Tokenizer) -> Stand:
    return Stand(tokenizer)


async def test_each_question_is_asked_of_both_once_a_step(stand):
    assert not await stand.evaluator.turn()
    stand.tell()
    turns = [await stand.evaluator.turn() for _ in range(7)]
    assert turns == [True] * 5 + [False] * 2
    grades = stand.grades
    assert sorted(grades) == sorted((version, place, version == "v6") for version in ("v6", "v7") for place in range(5))
    assert [case for _, case, _ in grades][::2] != [0, 1, 2, 3, 4], "in an order of chance"
    assert stand.new.priorities == stand.old.priorities == [100] * 5
    assert 'strata_evals_total{model_name="chat",outcome="wrong",version="v7"} 5.0' in stand.metrics.text().decode()
    stand.tell(step=1)
    assert await stand.evaluator.turn()
    assert stand.fetched == 1
    stand.tell(evals=False)
    assert not await stand.evaluator.turn()


@pytest.mark.parametrize("who", ["old", "new"])
async def test_who_has_better_to_do_is_asked_later(stand, who):
    stand.tell()
    client = getattr(stand, who)
    client.full = Overloaded("chat", 9, 1)
    assert not await stand.evaluator.turn()
    client.full, client.ready = None, False
    assert not await stand.evaluator.turn()
    client.ready = True
    while await stand.evaluator.turn():
        pass
    assert len(stand.guide.report()["grades"]) == 10


@pytest.mark.parametrize(
    ("wrong", "tries"), [(Unavailable("chat@v7", "gone"), TRIES), (ContextTooLong("messages", "x", "less"), 1)]
)
async def test_a_question_that_is_not_answered_is_wrong(stand, wrong, tries):
    stand.tell()
    asked = 0

    async def submit(*given, **more):
        nonlocal asked
        asked += 1
        raise wrong

    stand.new.submit = submit
    assert await stand.evaluator.turn()
    assert sorted(right for _, _, right in stand.grades) == [False, True]
    assert asked == tries


async def test_it_goes_on_where_the_controller_is_away(stand, monkeypatch):
    monkeypatch.setattr("pipelines.gateway.evaluator.REST_SECONDS", 0.0)
    stand.tell()
    answer, times = stand.evaluator.fetch, []

    async def fetch(digest: str):
        times.append(digest)
        if len(times) < 3:
            raise Unavailable("the releases' controller", "its process is being started again")
        stand.evaluator.fetch = answer
        return QUESTIONS.plain

    stand.evaluator.fetch = fetch
    stand.evaluator.start()
    try:
        while len(stand.guide._grades) < 10:
            await asyncio.sleep(0)
    finally:
        stand.evaluator.close()
