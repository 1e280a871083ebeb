"""Ask the candidate what the sets ask, compare it with what is live, and stop the run where it is not good enough."""

from pathlib import Path

from pipelines.lifecycle import exam, measured
from pipelines.lifecycle.declared import Evaluate
from pipelines.lifecycle.run import Event
from pipelines.lifecycle.work import Outcome, Work

CANDIDATE = "the candidate"


def work(at: Work) -> Outcome:
    """Measure both, and judge."""
    evaluate = at.pipeline.evaluate
    assert evaluate is not None
    file = at.folder / "evaluation.json"
    made = _candidate(at)
    if not file.exists():
        commit = made.get("commit")
        found = (
            measured.version(at, evaluate, str(commit), CANDIDATE, 0.0)
            if commit
            else measured.folder(at, evaluate, Path(at.run.made("model")), CANDIDATE, 0.0)
        )
        measured.write(file, found)
    found = measured.read(file)
    mine = found["metrics"]
    live = f"{at.run.model}@{at.pipeline.alias}"
    there = measured.resolve(at, at.pipeline.alias)
    beside = measured.version(at, evaluate, there, "what is live", 0.5)["metrics"] if there else None
    wanted = exam.rules(evaluate.require, sorted(mine))
    broken, unasked = exam.verdict(wanted, mine, beside, live)
    if at.run.request is not None:
        at.desk.evaluate(at.run.model, at.run.request, figures(mine), principal=at.author)
    numbers = {**mine, **{f"live.{name}": value for name, value in (beside or {}).items()}}
    note = "; ".join([f"{name} {value:.4g}" for name, value in sorted(mine.items()) if "." not in name] + unasked)
    made = {**made, "wrong": found["wrong"][: exam.SHOWN]}
    if broken:
        return Outcome(note, numbers, made, Event.REFUSED, f"stopped at evaluation: {'; '.join(broken)}")
    return Outcome(note, numbers, made)


def figures(metrics: dict[str, float]) -> dict[str, float]:
    """As merge requests and their conditions name them."""
    return {f"eval.{name}": value for name, value in metrics.items()}


def target(at: Work, evaluate: Evaluate, commit: str) -> dict[str, float]:
    """The same of the version that a merge request leads to."""
    return figures(measured.version(at, evaluate, commit, "what it goes into", 0.0)["metrics"])


def _candidate(at: Work) -> dict[str, str]:
    """Of a run for a merge request the version that its source is at, the same one however often one looks."""
    if at.run.request is None:
        return {}
    there = at.run.step("evaluate").made.get("commit")
    if there is None:
        found, _ = at.desk.show(at.run.model, at.run.request)
        there = at.registry.history(at.run.model).resolve(found.source)
        at.keep({"commit": there})
    return {"commit": str(there)}
