"""Versions found by what is known of them, in either database, always as the history has it."""

import tempfile
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from actors.registry.aliases import Aliases
from actors.registry.catalogue import Catalogue
from actors.registry.desk import Desk
from actors.registry.registry import Registry
from actors.registry.requests import Requirements
from actors.registry.stages import Stage, Stages
from cluster.errors import ExtraMissing, InvalidRequest, SettingsInvalid, Unavailable
from cluster.storage.tables import open_tables
from tests.actors.registry.conftest import write_model
from tests.actors.registry.databases import postgresql, programs

CARD = "---\nlicense: apache-2.0\ntags: [tiny, bilingual]\n---\n# A model\n"


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("psycopg")
    if programs() is None:
        pytest.skip("there are no programs of PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="strata-pg") as folder, postgresql(Path(folder)) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogue(request, registry):
    if request.param == "sqlite":
        yield Catalogue(registry)
        return
    made = Catalogue(registry, request.getfixturevalue("server"))
    yield made
    with made._engine.begin() as connection:
        for table in ("versions", "facts", "marks"):
            connection.execute(text(f"drop table if exists strata_{table}"))
    made._engine.dispose()


@pytest.fixture
def versions(registry, model):
    """v1 to v3 of chat, and one of another model."""
    facts = (
        {"license": "mit", "metrics": {"exact_match": 0.89}, "data": {"sets": ["a", "b"], "rows": 1000}},
        {"license": "mit", "metrics": {"exact_match": 0.93}, "hyperparameters": {"lr": 1e-4}, "checked": True},
        {"metrics": {"exact_match": 0.95}},
    )
    for number, metadata in enumerate(facts):
        write_model(model, {"a": torch.full((8,), float(number))}, hidden_size=64 * (number + 1))
        if number == 2:
            (model / "README.md").write_text(CARD)
        registry.push("chat", model, author="ada", metadata=metadata, message=f"Push {number}")
    registry.push("other", model, author="bob", branch="tuned", metadata={"metrics.exact_match": 0.5})
    return registry


def names(catalogue, query):
    return [f"{each.model}@{each.version}" for each in catalogue.search(query)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metrics.exact_match > 0.9 and license = mit", ["chat@v2"]),
        ("metrics.exact_match > 90%", ["chat@v3", "chat@v2"]),
        ("metrics.exact_match <= 0.5", ["other@v1"]),
        ("license = mit", ["chat@v2", "chat@v1"]),
        ("license != mit", ["chat@v3", "other@v1"]),
        ("license = apache-2.0 and model = chat", ["chat@v3"]),
        ("card.tags = tiny and not model = chat", ["other@v1"]),
        ("data.sets = b", ["chat@v1"]),
        ("hyperparameters.lr < 1e-3", ["chat@v2"]),
        ("checked = true", ["chat@v2"]),
        ("config.hidden_size >= 128 and author = ada", ["chat@v3", "chat@v2"]),
        ("message ~ 'PUSH 1'", ["chat@v2"]),
        ("message ~ '%'", []),
        ("stage = draft and model = chat and parent = v1", ["chat@v2"]),
        ("branch = main", ["chat@v3"]),
        ("license = 'mit'' or 1=1'", []),
        ("model = 'x; drop table strata_versions'", []),
        ("nothing = x or version = v1", ["chat@v1", "other@v1"]),
    ],
)
@pytest.mark.usefixtures("versions")
def test_what_a_search_finds(catalogue, query, found):
    if "''" in query:
        with pytest.raises(InvalidRequest):
            names(catalogue, query)
        return
    assert names(catalogue, query) == found


def test_it_follows_the_history(catalogue, versions, model):
    assert names(catalogue, "stage = live") == []
    stages = Stages(versions)
    for to in (Stage.CANDIDATE, Stage.CANARY, Stage.LIVE):
        stages.move("chat", "v2", to, author="ada")
    Aliases(versions).move("chat", "prod", "v1", author="ada")
    assert names(catalogue, "stage = live") == ["chat@v2"]
    assert names(catalogue, "alias = prod") == ["chat@v1"]
    Aliases(versions).move("chat", "prod", "v2", "v1", author="ada")
    assert names(catalogue, "alias = prod") == ["chat@v2"]
    write_model(model, {"a": torch.zeros(3)})
    versions.push("chat", model, author="eve", branch="tuned")
    assert names(catalogue, "author = eve") == ["chat@v4"]
    desk = Desk(versions, Requirements())
    number = desk.open("chat", "tuned", "Better", author="eve")
    desk.evaluate("chat", number, {"eval.exact_match": 0.97}, principal="bob")
    assert names(catalogue, "eval.exact_match > 0.96") == ["chat@v4"]
    assert catalogue.check() == []


def test_what_it_says_of_one(catalogue, versions):
    (found,) = catalogue.search("version = v3 and model = chat")
    assert (found.license, found.stage, found.author, found.message) == ("apache-2.0", "draft", "ada", "Push 2")
    facts = catalogue.facts("chat", found.commit)
    assert (facts["card.tags"], facts["metrics.exact_match"]) == (["tiny", "bilingual"], [0.95])


def test_what_was_changed_or_lost_is_found_and_made_again(catalogue, versions):
    catalogue.refresh()
    with catalogue._engine.begin() as connection:
        connection.execute(text("update strata_facts set text = 'gpl', number = null where key = 'license'"))
        connection.execute(text("delete from strata_versions where version = 'v3'"))
        connection.execute(text("update strata_versions set model = 'gone' where version = 'v2'"))
    problems = catalogue.check()
    assert str(problems[0]).startswith("chat v1-v3; other v1: ")
    assert [place.model for place in problems[1].places] == ["gone"]
    assert catalogue.rebuild() == 4
    assert catalogue.check() == []
    assert names(catalogue, "license = mit") == ["chat@v2", "chat@v1"]


def test_a_model_that_is_gone_is_forgotten(catalogue, versions, tmp_path):
    catalogue.refresh()
    (tmp_path / "registry" / "models" / "other.git").rename(tmp_path / "away")
    assert names(catalogue, "metrics.exact_match > 0") == ["chat@v3", "chat@v2", "chat@v1"]


def test_what_would_break_a_database_is_kept_as_it_can_be(catalogue, registry, model):
    (model / "config.json").write_text('{"model_type": "llama", "odd": "a\\ud800b", "nul": "x\\u0000y", "big": 1e999}')
    registry.push("chat", model, author="ada", metadata={"long": "x" * 5000, "many": list(range(5000))})
    assert names(catalogue, "config.nul = xy") == ["chat@v1"]
    assert names(catalogue, "many = 7") == ["chat@v1"]
    assert catalogue.check() == []


def test_nobody_says_what_the_registry_says(registry, model):
    for key in ("stage", "alias.x", "author"):
        with pytest.raises(InvalidRequest, match=f"metadata: {key} is not accepted; is what the registry"):
            registry.push("chat", model, author="ada", metadata={key: "live"})
    with pytest.raises(InvalidRequest, match="metadata"):
        registry.push("chat", model, author="ada", metadata={"x": "\ud800"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:secret@h/d", "write sqlite:///FILE or postgresql"),
        ("sqlite://", "name a file"),
        ("nonsense", "is no URL"),
        ("postgresql+asyncpg://h/d", "write sqlite:///FILE"),
    ],
)
def test_a_database_that_is_none(url, said):
    with pytest.raises(SettingsInvalid, match=said) as wrong:
        open_tables(url, "registry.metadata")
    assert "secret" not in str(wrong.value)


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch):
    def missing(*_given, **_more):
        raise ModuleNotFoundError("psycopg")

    monkeypatch.setattr("cluster.storage.tables.create_engine", missing)
    with pytest.raises(ExtraMissing, match=r"pip install 'strata\[postgresql\]'") as wrong:
        open_tables("postgresql://u:secret@h/d", "registry.metadata")
    assert "secret" not in str(wrong.value)


def test_a_database_that_does_not_answer_is_unavailable(registry, tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(Unavailable, match=r"the metadata in postgresql.*see registry\.metadata"):
        Catalogue(registry, f"postgresql://u:secret@/d?host={tmp_path}").search("a = b")
    (tmp_path / "registry" / "metadata.db").write_text("no database at all, and more than that")
    with pytest.raises(
        Unavailable, match=r"file is not a database; where .*metadata\.db is broken, strata models reindex"
    ):
        Catalogue(Registry(tmp_path / "registry")).refresh()
