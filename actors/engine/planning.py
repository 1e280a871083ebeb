"""A scheduler's decision as the plan that goes to the ranks: what they have already is not said again."""

import numpy as np

from actors.engine.plan import INT32, Join, Plan
from actors.engine.sequence import Sequence
from actors.engine.step import Step


def plan_of(number: int, step: Step) -> Plan:
    """The plan `number` that carries `step` out."""
    works = step.works
    decodes = [work for work in works if work.count == 1]
    entered = tuple((sequence.slot, tuple(sequence.blocks)) for sequence in step.joined)
    return Plan(
        number=number,
        leaves=step.left,
        joins=tuple(_join(sequence) for sequence in step.joined),
        blocks=step.grown + entered,
        slots=np.array([work.sequence.slot for work in works], INT32),
        starts=np.array([work.start for work in works], INT32),
        counts=np.array([work.count for work in works], INT32),
        inputs=np.array([work.sequence.tokens[work.start] for work in decodes], INT32),
        samples=np.array([row for row, work in enumerate(works) if work.samples], INT32),
        steps=step.steps,
        rooms=np.array(step.rooms, INT32),
        saves=step.saves,
        loads=step.loads,
    )


def _join(sequence: Sequence) -> Join:
    submit = sequence.submit
    return Join(
        sequence.slot,
        submit.prompt,
        tuple(sequence.tokens[len(submit.prompt) :]),
        submit.params,
        submit.seed,
        submit.choice,
    )
