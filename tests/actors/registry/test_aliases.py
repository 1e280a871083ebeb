"""Where an alias was, and the way back."""

import pytest
import torch

from actors.registry.aliases import Aliases
from actors.registry.moves import Move, way
from actors.registry.service import Place, Service
from cluster.errors import Barred, Conflict, ModelInvalid, NotFound
from tests.actors.registry.conftest import write_model


@pytest.mark.parametrize(
    ("moves", "found"),
    [
        ([], ""),
        ([(None, "a")], "a"),
        ([(None, "a"), ("a", "b"), ("b", "c")], "abc"),
        ([(None, "a"), ("a", "b"), ("b", "c"), ("c", "b", True)], "ab"),
        ([(None, "a"), ("a", "b"), ("b", "c"), ("c", "b", True), ("b", "a", True)], "a"),
        ([(None, "a"), ("a", "b"), ("b", "a", True), ("a", "c")], "ac"),
        ([(None, "a"), ("a", "b"), ("b", "c", True)], "abc"),
        ([(None, "a"), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a", True)], "aba"),
        ([("a", "b")], "ab"),
    ],
)
def test_the_way_to_where_it_is(moves, found):
    assert way(Move("prod", *move) for move in moves) == list(found)


@pytest.fixture
def aliases(registry, model):
    for value in range(3):
        write_model(model, {"a": torch.full((8,), float(value))})
        registry.push("chat", model, author="ada")
    made = Aliases(registry)
    for name, before in (("v1", None), ("v2", "v1"), ("v3", "v2")):
        made.move("chat", "prod", name, before, author="ada", reason=f"Release {name}")
    return made


def at(aliases):
    return aliases._registry.number("chat", "prod")


def test_back_and_further_back_and_on(aliases):
    assert at(aliases) == "v3"
    for version in ("v2", "v1"):
        moved = aliases.rollback("chat", "prod", author="bob")
        assert (at(aliases), aliases._registry.number("chat", moved.commit)) == (version, version)
        assert moved.was != moved.commit
    with pytest.raises(Conflict, match="chat@prod is at its first version, v1"):
        aliases.rollback("chat", "prod", author="bob")
    aliases.rollback("chat", "prod", "v3", author="bob")
    assert at(aliases) == "v3"
    said = [(entry.author, entry.message, move.back) for entry, move in aliases.log("chat", "prod")]
    assert said[0] == ("bob", "Roll prod back to v3", True)
    assert said[-1] == ("ada", "Release v1", False)
    assert len(said) == 6
    assert aliases._registry.fsck() == []
    assert aliases._registry.gc() == 0


def test_who_comes_second_is_told(aliases):
    with pytest.raises(Conflict):
        aliases.move("chat", "prod", "v1", "v2", author="bob")
    with pytest.raises(Conflict):
        aliases.move("chat", "prod", "v2", "v2", author="bob")
    with pytest.raises(Conflict):
        aliases.rollback("chat", "prod", expected="v1", author="bob")
    assert aliases.move("chat", "prod", "v3", "v3", author="bob").commit == aliases.at("chat", "prod")
    assert len(aliases.log("chat", "prod")) == 3
    with pytest.raises(NotFound, match=r"no alias chat@canary; there is prod"):
        aliases.rollback("chat", "canary", author="bob")


def test_a_move_from_elsewhere_is_told_where_from(aliases):
    at = aliases._registry.number("chat", "prod")
    other = "v1" if at != "v1" else "v2"
    for expected, problem in ((None, "not new"), (other, f"not at {other}")):
        with pytest.raises(Barred, match=rf"chat@prod is at {at} and {problem}; move it from there \(--from {at}\)"):
            aliases.move("chat", "prod", "v3", expected, author="bob")
    with pytest.raises(Barred, match=r"chat@new is not there yet; make it without .*\(--from\)"):
        aliases.move("chat", "new", "v1", "v1", author="bob")
    aliases.move("chat", "new", "v1", author="bob")
    with pytest.raises(Barred, match=r"chat@new is at its first version, v1; name the version .*\(--to\)"):
        aliases.rollback("chat", "new", author="bob")


def test_who_moved_is_told_the_revision_of_its_own_move(aliases, monkeypatch):
    service, move = Service(Place(str(aliases._registry.folder))), Aliases.move

    def followed(self, model, alias, name, **more):
        moved = move(self, model, alias, name, **more)
        move(self, model, alias, "v2", author="eve", revision=moved.revision)
        return moved

    monkeypatch.setattr(Aliases, "move", followed)
    told = service.move_alias("bob", "chat", "prod", "v1", aliases.revision("chat", "prod"))
    moves = service.alias_history("bob", "chat", "prod")["data"]
    assert (told["version"], told["revision"]) == ("v1", moves[1]["revision"])
    assert [move["author"] for move in moves[:2]] == ["eve", "bob"]


def test_an_alias_without_a_history(aliases):
    """As it was made before moves were kept."""
    history = aliases._registry.history("chat")
    history.move("refs/aliases/old", history.resolve("v1"), None)
    assert aliases.log("chat", "old") == []
    aliases.move("chat", "old", "v2", "v1", author="ada")
    aliases.rollback("chat", "old", author="ada")
    assert aliases._registry.number("chat", "old") == "v1"


def test_an_alias_that_was_moved_past_its_signed_moves_is_not_followed(aliases, registry):
    history = registry.history("chat")
    v1, v3 = history.resolve("v1"), history.resolve("v3")
    history.move("refs/aliases/prod", v1, v3)
    for ask in (lambda: registry.trusted("chat", "prod"), lambda: aliases.rollback("chat", "prod", author="bob")):
        with pytest.raises(ModelInvalid, match="moved it past Strata"):
            ask()
    (fault,) = registry.fsck()
    assert "chat prod" in str(fault) and v3[:12] in str(fault)
    aliases.move("chat", "prod", "v1", "v1", author="bob")  # where it is by now, and this time signed
    assert registry.trusted("chat", "prod") == v1
    history.move("refs/aliases/new", v3, None)
    with pytest.raises(ModelInvalid, match="by no signed move"):
        registry.pin("chat", "new")
