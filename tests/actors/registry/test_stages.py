"""The life of a version, every stage with every other, and of many who move it one."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product

import pytest

from actors.registry.registry import Registry
from actors.registry.stages import MOVES, Stage, Stages, event, parse
from cluster.errors import Conflict, IllegalMove, InvalidRequest, NotFound


@pytest.mark.parametrize(("at", "to"), [*product(Stage, Stage)])
def test_every_stage_with_every_other(at, to):
    legal = {then for (stage, _), then in MOVES.items() if stage is at}
    if to in legal:
        assert MOVES[at, event("chat@v1", at, to)] is to
        return
    with pytest.raises(IllegalMove) as wrong:
        event("chat@v1", at, to)
    assert (wrong.value.status, wrong.value.legal) == (409, tuple(each for each in wrong.value.legal if each in legal))
    assert f"chat@v1 is {at}; from there it goes to" in str(wrong.value)
    assert str(wrong.value).endswith(f"not to {to}")


def test_every_stage_can_be_reached_and_left():
    assert set(MOVES.values()) == set(Stage)
    assert {stage for stage, _ in MOVES} == set(Stage)


@pytest.fixture
def stages(registry, model):
    registry.push("chat", model, author="ada")
    return Stages(registry)


def test_a_version_from_draft_to_live(stages, registry):
    assert (stages.of("chat", "v1"), stages.all("chat")) == (Stage.DRAFT, {})
    walk = (Stage.DRAFT, Stage.CANDIDATE, Stage.CANARY, Stage.LIVE)
    for at, to in pairwise(walk):
        assert stages.move("chat", "main", to, author="bob") == ("v1", at, to)
    assert stages.all("chat") == {"v1": Stage.LIVE}
    history = registry.history("chat")
    said = [(entry.author, entry.message) for entry in history.log(history.refs("refs/stages/")["v1"])]
    assert said == [
        ("bob", f"chat@v1 is {what}") for what in ("released: live", "tried: canary", "proposed: candidate")
    ]
    assert registry.fsck() == []
    assert registry.gc() == 0


def test_what_is_not_there_or_not_as_expected(stages):
    with pytest.raises(NotFound, match="v9; there is v1, main"):
        stages.move("chat", "v9", Stage.CANDIDATE, author="bob")
    with pytest.raises(Conflict, match="chat@v1 is draft and not canary"):
        stages.move("chat", "v1", Stage.LIVE, author="bob", expected=Stage.CANARY)
    with pytest.raises(InvalidRequest, match="take one of draft, candidate, canary, live, retired"):
        parse("prod")


def test_of_many_at_once_one_moves_it(stages, tmp_path):
    def move(number):
        try:
            own = Stages(Registry(tmp_path / "registry"))
            return own.move("chat", "v1", Stage.CANDIDATE, author="bob", expected=Stage.DRAFT)
        except Conflict as lost:
            return lost

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(move, range(40)))
    assert sum(isinstance(each, tuple) for each in ended) == 1
