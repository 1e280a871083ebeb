import asyncio
import json
import signal
from collections import Counter

import httpx
import pytest

from cluster.errors import Unavailable
from pipelines.chaos.faults import Gang, Sight, Target, named
from pipelines.chaos.run import Run, Wanted
from pipelines.chaos.story import Story

REFUSED = 7
KINDS = named(["kill-shard", "freeze-leader"])


class Stack:
    """Two gangs that come again at once, and a gateway that answers by its own rule while it is `well`."""

    def __init__(self, spoils: str = "", leaves: bool = False) -> None:
        self.spoils, self.leaves = spoils, leaves
        self.struck: list[tuple[Target, signal.Signals]] = []
        self.refused = 0

    def sight(self) -> Sight:
        life = len(self.struck)
        if self.spoils == "refused" and life and self.refused < REFUSED:
            return Sight(())  # nobody to strike until all of them were told to come again
        return Sight(tuple(Gang("m", f"m#{each}{life}", each, 100 + life, (200 + life,)) for each in "ab"))

    def strike(self, target: Target, how: signal.Signals) -> None:
        self.struck.append((target, how))

    def still(self) -> list[str]:
        return ["shard 7 was struck and is still there"] if self.leaves else []

    def counts(self) -> Counter[str]:
        return Counter({"placement groups": 2 + (self.leaves and len(self.struck))})

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Choices that say the request's own body, in two events where it wants a stream."""
        await asyncio.sleep(0.001)  # as a network does, it lets others run
        assert request.headers["authorization"] == "Bearer k"
        body = json.loads(request.content)
        if body.get("tools"):
            return httpx.Response(400, json={"error": {"message": "this model knows no tools"}})
        spoilt = self.spoils if self.struck else ""
        if spoilt == "refused" and self.refused < REFUSED:
            self.refused += 1
            return httpx.Response(429, text="later", headers={"retry-after": "0"})
        if spoilt == "failed":
            return httpx.Response(503, text="none is up")
        text = f"{body.get('seed')} {'other' if spoilt == 'wrong' else 'same'}"
        usage = {"prompt_tokens": 3, "completion_tokens": 9 if spoilt == "usage" else 8}
        if not body.get("stream"):
            return httpx.Response(200, json={"choices": [{"index": 0, "text": text}], "usage": usage})
        events = [
            {"choices": [{"index": 0, "delta": {"content": text}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": usage},
        ]
        if spoilt == "cut":
            events[1] = {"error": {"message": "lost"}}
        return httpx.Response(
            200, text="".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
        )


def run(stack: Stack, **wanted: float) -> tuple[Story, list[str]]:
    said: list[str] = []
    asked = Wanted(KINDS, **{"faults": 5, "minutes": 0.0, "streams": 3, "rate": 50.0, "left_seconds": 0.0, **wanted})
    transport = httpx.MockTransport(stack.answer)
    return Run(stack, "http://gateway", "k", "m", asked, said.append, transport=transport).go(), said


def test_who_is_told_to_come_again_does_and_is_counted() -> None:
    story, _ = run(Stack("refused"))
    assert (story.stopped, story.bad, story.refused) == ("", [], REFUSED)


def test_all_faults_strike_and_nothing_is_bad() -> None:
    stack = Stack()
    story, said = run(stack)
    assert (story.stopped, story.bad, story.leaks) == ("", [], [])
    assert [(fault.kind, fault.pid) for fault in story.faults] == [
        ("kill-shard" if how == signal.SIGKILL else "freeze-leader", target.pid) for target, how in stack.struck
    ]
    assert len(stack.struck) == 5
    assert {record.streams for record in story.records} == {True, False}
    assert "the model does not take, and is not asked: tools" in said
    assert "tools" not in {record.name for record in story.records}
    assert said[-1].endswith("5 of 5")


@pytest.mark.parametrize("spoils", ["failed", "cut", "wrong", "usage"])
def test_it_stops_when_the_error_budget_is_gone(spoils: str) -> None:
    story, _ = run(Stack(spoils), budget=2, minutes=60.0)  # the second fault would come minutes later
    assert story.stopped.startswith("the error budget is gone")
    assert {record.verdict for record in story.bad} <= {spoils}
    assert all(record.why for record in story.bad)


def test_what_is_left_behind_is_told() -> None:
    story, _ = run(Stack(leaves=True))
    assert story.leaks == ["placement groups: 2 before, 7 after", "shard 7 was struck and is still there"]


def test_a_stack_that_does_not_answer_is_not_struck() -> None:
    stack = Stack("failed")
    stack.struck.append((Target("shard", 1, "a"), signal.SIGKILL))
    with pytest.raises(Unavailable, match="chat-greedy"):
        run(stack)
    assert len(stack.struck) == 1


def test_it_does_not_wait_for_ever() -> None:
    stack = Stack()
    stack.sight = Sight  # type: ignore[method-assign]
    story, _ = run(stack, patience_seconds=0.2)
    assert story.stopped.startswith("nothing was left that ")
    assert story.stopped.endswith(" may befall for 0.2 s")
    assert not stack.struck
