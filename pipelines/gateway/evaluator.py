"""Ask the versions of a rollout the questions that it is judged by, each of both, and say whether they were right.

One question at a time, least urgent, in an order of chance: so what was asked stands for the whole set at any time.
Knows turns and questions. Knows nothing of HTTP, and what follows from the answers is the controller's.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.messages import SamplingParams
from cluster.errors import InvalidRequest, Overloaded, StrataError, Unavailable
from cluster.scheduling.admission import LEAST_URGENT
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served, Turn, answer
from pipelines.gateway.meter import TurnMeter
from pipelines.gateway.mirror import SECONDS, heard
from pipelines.gateway.prompt import chat_tokens
from pipelines.routing import cases
from pipelines.routing.cases import Case, Cases
from pipelines.routing.guide import Exam, Guide, full

log = logging.getLogger("strata.gateway")

TRIES = 3  # before a question that fails is one that was answered wrongly
REST_SECONDS = 0.5  # where there is nothing to ask, or nobody who can be asked
SALT = "\0evals"  # no tenant's: what is cached of questions is nobody's

Task = tuple[str, int, Case]  # the set, the place in it, the question


@dataclass(slots=True)
class Evaluator:
    """One gateway's. `fetch`: the questions of a digest, as the controller keeps them."""

    models: Mapping[str, Served]
    metrics: Metrics
    clock: Callable[[], float]
    guide: Guide
    fetch: Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]
    dice: random.Random = field(default_factory=random.Random)
    _left: dict[tuple[str, int], list[Task]] = field(default_factory=dict)  # by rollout and step
    _sets: dict[str, Cases] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask from now on."""
        self._task = asyncio.ensure_future(self._run())

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def turn(self) -> bool:
        """Ask one question of each exam; whether there was any."""
        exams = self.guide.exams
        now = {(exam.rollout, exam.step) for exam in exams}
        self._left = {key: left for key, left in self._left.items() if key in now}
        asked = [await self._one(exam) for exam in exams]
        return any(asked)

    async def _run(self) -> None:
        while True:
            try:
                if await self.turn():
                    continue
            except Unavailable:
                pass  # the controller's process is being started again
            except Exception:  # whoever asks must not end with one question
                log.exception("no_question")
            await asyncio.sleep(REST_SECONDS)

    async def _one(self, exam: Exam) -> bool:
        left = await self._tasks(exam)
        versions = exam.old, exam.new
        served = {version: self.models.get(full(exam.model, version)) for version in versions}
        if not left or not all(each is not None and each.client.ready for each in served.values()):
            return False
        name, place, case = left[-1]
        grades = await asyncio.gather(*(self._grade(each, case) for each in served.values() if each is not None))
        if None in grades:  # there is better to do: it is asked later
            return False
        left.pop()
        for version, right in zip(versions, grades, strict=True):
            self.guide.graded(exam, version, name, place, bool(right))
            self.metrics.evaluated(full(exam.model, version), bool(right))
        return True

    async def _tasks(self, exam: Exam) -> list[Task]:
        key = exam.rollout, exam.step
        if key not in self._left:
            tasks: list[Task] = []
            for name, digest in exam.sets.items():
                tasks += [(name, place, case) for place, case in enumerate((await self._cases(digest)).cases)]
            self.dice.shuffle(tasks)
            self._left[key] = tasks
        return self._left[key]

    async def _cases(self, digest: str) -> Cases:
        if digest not in self._sets:
            self._sets = {digest: cases.of(await self.fetch(digest), digest)} | (self._sets if self._left else {})
        return self._sets[digest]

    async def _grade(self, served: Served, case: Case) -> bool | None:
        """Whether it answers rightly; None where it has better to do."""
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(SECONDS):
                    return case.right(await self._ask(served, case))
            except Overloaded:
                return None
            except (InvalidRequest, TimeoutError):  # too long for it, say
                return False
            except StrataError:  # its gang was lost, say
                continue
        return False

    async def _ask(self, served: Served, case: Case) -> str:
        prompt = await chat_tokens(served, case.messages, case.tools)
        room = served.client.context_tokens - len(prompt)
        params = SamplingParams(temperature=0.0, max_tokens=max(1, min(case.max_tokens, room)))
        turn = Turn((prompt,), params, 0, salt=SALT, priority=LEAST_URGENT, deadline_seconds=SECONDS)
        return await heard(await answer(served, turn, TurnMeter(self.metrics.model(served.name), self.clock)))
