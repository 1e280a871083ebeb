"""Ask that the candidate go in, with what was measured of it; merge it when nothing is missing, or wait for people."""

from actors.registry.history import HEADS
from actors.registry.requests import State
from pipelines.lifecycle.run import Event, waits
from pipelines.lifecycle.steps import evaluate
from pipelines.lifecycle.work import Outcome, Work


def work(at: Work) -> Outcome:
    """Open it or find it, evaluate both sides, merge."""
    wanted, model, desk = at.pipeline.merge_request, at.run.model, at.desk
    assert wanted is not None
    number = at.run.request if at.run.request is not None else _opened(at, wanted.into, wanted.title)
    found, _ = desk.show(model, number)
    if found.state is State.OPEN:
        _evaluate(at, number, found.target)
        found, missing = desk.show(model, number)
        if missing:
            return Outcome(made={"request": number}, event=Event.WAITS, reason=waits(at.run.id, number, missing))
        desk.merge(model, number, principal=at.author)
        found, _ = desk.show(model, number)
    if found.state is State.CLOSED:
        return Outcome(made={"request": number}, event=Event.REFUSED, reason=f"merge request !{number} was closed")
    return _done(at, number, found.merged_as)


def _opened(at: Work, into: str, title: str) -> int:
    """The merge request of this run's branch; one, however often a driver died on the way."""
    there = [number for number, each in at.desk.all(at.run.model) if each.source == at.run.branch]
    if there:
        return there[-1]
    said = title or f"{at.run.id}: {at.run.why}"
    return at.desk.open(at.run.model, at.run.branch, said, author=at.author, target=into)


def _evaluate(at: Work, number: int, target: str) -> None:
    declared = at.pipeline.evaluate
    if declared is None:
        return
    metrics = {name: value for name, value in at.run.step("evaluate").numbers.items() if not name.startswith("live.")}
    at.desk.evaluate(at.run.model, number, evaluate.figures(metrics), principal=at.author)
    if any("baseline" in text for text in at.settings.registry.conditions):
        tip = at.registry.history(at.run.model).refs(HEADS)[target]
        there = evaluate.target(at, declared, tip)
        at.desk.evaluate(at.run.model, number, there, principal=at.author, of="target")


def _done(at: Work, number: int, commit: str) -> Outcome:
    version = at.registry.number(at.run.model, commit)
    made = {"request": number, "commit": commit, "version": version}
    return Outcome(f"!{number} is merged as {at.run.model}@{version}", made=made)
