"""Point the alias that users have at the new version, and retire the one that it replaces."""

from actors.registry.aliases import Aliases
from actors.registry.stages import MOVES, Stage, Stages
from pipelines.lifecycle import measured
from pipelines.lifecycle.run import Event
from pipelines.lifecycle.work import Outcome, Work


def work(at: Work) -> Outcome:
    """Move alias and stages, those that are not there yet."""
    model, alias, commit = at.run.model, at.pipeline.alias, str(at.run.made("commit"))
    if at.pipeline.canary is not None:
        return _released(at)
    before = at.run.step("live").made.get("before") or measured.resolve(at, f"{alias}")
    at.keep({"before": before})
    stages = Stages(at.registry)
    for stage in way(stages.of(model, commit)):
        stages.move(model, commit, stage, author=at.author, reason=at.run.id)
    now = measured.resolve(at, alias)
    if now != commit:
        Aliases(at.registry).move(model, alias, commit, now, author=at.author, reason=f"{at.run.id} is live")
    if before and before != commit and stages.of(model, before) is Stage.LIVE:
        stages.move(model, before, Stage.RETIRED, author=at.author, reason=f"{at.run.id} replaces it")
    version = at.registry.number(model, commit)
    return Outcome(f"{model}@{alias} is {version}", made={"version": version})


def _released(at: Work) -> Outcome:
    """Its release has moved the alias, unless somebody else has meanwhile: that counts."""
    model, alias, commit = at.run.model, at.pipeline.alias, str(at.run.made("commit"))
    history = at.registry.history(model)
    now = history.resolve(alias)
    version = at.registry.number(model, now)
    if all(each.id != commit for each in history.log(now)):
        return Outcome(event=Event.REFUSED, reason=f"{model}@{alias} was moved to {version} meanwhile, and stays there")
    return Outcome(f"{model}@{alias} is {version}", made={"version": version})


def way(at: Stage) -> list[Stage]:
    """The stages on the shortest way from one to live, by the table of moves; none for one that is."""
    ways: list[list[Stage]] = [[]]
    seen = {at}
    for path in ways:
        stage = path[-1] if path else at
        if stage is Stage.LIVE:
            return path
        for (start, _), then in MOVES.items():
            if start is stage and then not in seen:
                seen.add(then)
                ways.append([*path, then])
    return []
