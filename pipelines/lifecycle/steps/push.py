"""Push what was trained as a candidate, on a branch of the run that begins where training began.

A folder that is the tip of its branch already stays that version: pushed twice it is there once.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.registry.stages import Stage, Stages
from cluster.errors import Conflict
from pipelines.lifecycle.work import Outcome, Work


def work(at: Work) -> Outcome:
    """Push, and call it a candidate."""
    push, model, base = at.pipeline.push, at.run.model, str(at.run.made("base"))
    assert push is not None
    with suppress(Conflict):  # it is there, by a driver that died
        at.registry.branch(model, at.run.branch, base)
    folder = Path(at.run.made("model"))
    adapter = at.folder / "adapter"
    if push.adapter and adapter.is_dir():
        shutil.copytree(adapter, folder / "adapter", dirs_exist_ok=True)
    made = at.registry.push(
        model, folder, author=at.author, branch=at.run.branch, message=push.message or f"{at.run.id}: {at.run.why}",
        metadata=lineage(at),
    )  # fmt: skip
    stages = Stages(at.registry)
    if stages.of(model, made.commit) is Stage.DRAFT:
        stages.move(model, made.commit, Stage.CANDIDATE, author=at.author, reason=f"{at.run.id} made it")
    return Outcome(f"{model}@{made.version}", {"bytes": made.size}, {"commit": made.commit, "version": made.version})


def lineage(at: Work) -> dict[str, Any]:
    """What the registry is told of where a version comes from; the same whenever it is asked."""
    train, base = at.pipeline.train, str(at.run.made("base"))
    assert train is not None
    inherited = at.registry.show(at.run.model, base).metadata
    kept = {name: inherited[name] for name in ("license",) if name in inherited}
    recipe = train.model_dump(mode="json", exclude={"data", "start"})
    metrics = {name: value for name, value in at.run.step("evaluate").numbers.items() if not name.startswith("live.")}
    return {
        **kept,
        "lineage": {"run": at.run.id, "pipeline": at.pipeline.name, "why": at.run.why, "base": base},
        "data": {"digest": at.run.made("data"), "examples": at.run.made("examples"), "name": Path(train.data).name},
        "recipe": {name: value for name, value in recipe.items() if value is not None},
        "metrics": {**metrics, "train_loss": at.run.step("train").numbers.get("loss", 0.0)},
    }
