"""Fine-tune a version. Done is what has left its folder: a driver that comes after one that died finds it there."""

from collections.abc import Callable
from pathlib import Path

from actors.registry.history import MAIN
from cluster.errors import NotFound
from pipelines.lifecycle import measured, progress, waiting
from pipelines.lifecycle.declared import Train
from pipelines.lifecycle.encoding import encode
from pipelines.lifecycle.examples import digest, write
from pipelines.lifecycle.work import Outcome, Work


def work(at: Work) -> Outcome:
    """Train, unless that is done."""
    train = at.pipeline.train
    assert train is not None
    out = at.folder
    if not (out / "model").exists():
        base = _base(at, train)
        file = out / "data.npz"
        if not file.exists():
            at.tell(0.0, "reading the data")
            found, longer = encode(Path(train.data), base, train.width)
            at.keep({"data": digest(Path(train.data), "train.data"), "examples": len(found), "longer": longer})
            write(file, found)
        config = {"train": train.model_dump(mode="json"), "base": str(base), "data": str(file), "out": str(out)}
        share = at.run.step("train").share  # what an earlier driver came to
        with waiting.handed(at, at.hands.needs(train), "loading the model", share, _teller(at, train)):
            at.hands.tune(config)
    told = measured.read(out / "model" / "training.json")
    numbers = {name: float(told[name]) for name in ("loss", "steps", "examples") if told.get(name) is not None}
    return Outcome(f"{told['steps']} steps, loss {told['loss']:.4f}", numbers, {"model": str(out / "model")})


def _base(at: Work, train: Train) -> Path:
    """The folder to begin with, the same one however often the step is taken up."""
    commit = at.run.step("train").made.get("base")
    if commit is None:
        name = train.start or at.pipeline.alias
        commit = measured.resolve(at, name) or (measured.resolve(at, MAIN) if train.start is None else None)
        if commit is None:
            raise NotFound("version", f"{at.run.model}@{name}")
        at.keep({"base": commit})
    return measured.checkout(at, commit)


def _teller(at: Work, train: Train) -> Callable[[], None]:
    """Tells how far it is, where there is news of that."""
    seen = 0

    def look() -> None:
        nonlocal seen
        fresh, seen = progress.read(at.folder / "progress.jsonl", seen)
        if fresh:
            last = fresh[-1]
            said = f"step {last['step'] + 1} of {train.steps}, loss {last['loss']:.3f}, "
            at.tell((last["step"] + 1) / train.steps, said + f"{last['tokens_per_second']} tokens/s")

    return look
