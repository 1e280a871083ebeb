from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.errors import SettingsInvalid
from cluster.layers import load, refused, settle


class Engine(BaseModel):
    """One of several."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    size: int = Field(1, ge=1, description="how many")
    mode: Literal["auto", "fast"] = "auto"
    note: str | None = None


class Place(BaseModel):
    """Where."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    port: int = Field(80, ge=1, le=65535)
    folder: Path = Path("here")
    ratio: float = 0.5
    open: bool = False
    names: tuple[str, ...] = ()


class Tree(BaseModel):
    """The root."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    place: Place = Place()
    engines: tuple[Engine, ...] = (Engine(name="first", size=2),)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text("place:\n  port: 81\n  ratio: 2\nengines:\n  - name: a\n  - name: b\n    size: 3\n")
    return path


class Ruled(BaseModel):
    """One with a rule of its own."""

    place: Place = Place()

    @model_validator(mode="after")
    def _is_open(self) -> "Ruled":
        if not self.place.names:
            raise refused("place.names", None, "name one: {it: x}")
        if not self.place.open:
            raise refused("place.open", self.place.names, "open it")
        return self


def test_a_rule_of_a_branch_names_the_key_below_it(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("place:\n  port: 81\n")
    with pytest.raises(SettingsInvalid) as wrong:
        load(Ruled, path)
    assert str(wrong.value) == "place.names (s.yaml:1): nothing is not accepted; name one: {it: x}"
    path.write_text("place:\n  names: [a]\n  open: false\n")
    with pytest.raises(SettingsInvalid, match=r"place\.open \(s\.yaml:3\): \('a',\) is not accepted; open it"):
        load(Ruled, path)


def source(tree: Any, key: str) -> tuple[Any, str]:
    (found,) = tree.explain(key)
    return found.value, found.source


def test_flag_beats_environment_beats_file_beats_default(file: Path) -> None:
    names = {"STRATA_PLACE__PORT": "82", "STRATA_PLACE__RATIO": "35e-1", "STRATA_ENGINES__1__SIZE": "4"}
    tree = load(Tree, file, names, {"place.port": 83, "place.folder": None})
    assert source(tree, "place.port") == (83, "flag --port")
    assert source(tree, "place.ratio") == (3.5, "environment STRATA_PLACE__RATIO")
    assert source(tree, "engines.1.size") == (4, "environment STRATA_ENGINES__1__SIZE")
    assert source(tree, "engines.1.name") == ("b", "s.yaml:6")
    assert source(tree, "engines.0.size") == (1, "default")
    assert source(tree, "place.folder") == (Path("here"), "default")


def test_the_environment_changes_one_field_of_a_default_list() -> None:
    tree = load(Tree, None, {"STRATA_ENGINES__0__MODE": "fast"})
    assert tree.settings.engines == (Engine(name="first", size=2, mode="fast"),)


def test_the_environment_adds_an_element_and_may_give_a_branch_as_json() -> None:
    tree = load(Tree, None, {"STRATA_ENGINES__1__NAME": "second", "STRATA_PLACE": '{"names": ["x"], "port": 8}'})
    assert [engine.name for engine in tree.settings.engines] == ["first", "second"]
    assert tree.settings.place.names == ("x",)
    assert source(tree, "place.port") == (8, "environment STRATA_PLACE")
    assert source(tree, "place.ratio") == (0.5, "default")


@pytest.mark.parametrize(
    ("text", "name"), [("123", "123"), ("true", "true"), ("null", "null"), ("1e5", "1e5"), ("", "")]
)
def test_a_text_from_the_environment_stays_a_text(text: str, name: str) -> None:
    assert load(Tree, None, {"STRATA_ENGINES__0__NAME": text}).settings.engines[0].name == name


def test_null_empties_what_may_be_empty() -> None:
    assert load(Tree, None, {"STRATA_ENGINES__0__NOTE": "null"}).settings.engines[0].note is None


def test_variables_of_others_are_left_alone() -> None:
    names = {"STRATA_API_KEY": "x", "STRATA_URL": "y", "PLACE__PORT": "1", "STRATA": "z"}
    assert load(Tree, None, names).settings == Tree()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"STRATA_PLACE__PROT": "1"}, "place.prot (environment STRATA_PLACE__PROT): an unknown key"),
        ({"STRATA_PLACE__PROT": "1"}, "did you mean place.port?"),
        ({"STRATA_PLAICE__PORT": "1"}, "plaice (environment STRATA_PLAICE__PORT): an unknown key"),
        ({"STRATA_PLAICE__PORT": "1"}, "did you mean place?"),
        ({"STRATA_ENGINES__0__XYZZY": "1"}, "engines.0 knows name, size, mode, note"),
        ({"STRATA_PLACE__PORT": "many"}, 'place.port (environment STRATA_PLACE__PORT): "many" is not accepted'),
        ({"STRATA_PLACE__PORT": "70000"}, "65535"),
        ({"STRATA_PLACE__PORT": "true"}, "whole number"),
        ({"STRATA_PLACE__PORT": "1.5"}, "whole number"),
        ({"STRATA_PLACE__OPEN": "1"}, "true or false"),
        ({"STRATA_ENGINES__0__MODE": "slow"}, "'auto' or 'fast'"),
        ({"STRATA_ENGINES__5__NAME": "x"}, "a list of 1"),
        ({"STRATA_ENGINES__99999999999__NAME": "x"}, "it is a list"),
        ({"STRATA_ENGINES__NAME": "x"}, "engines"),
        ({"STRATA_ENGINES__1__SIZE": "1"}, "engines.1.name"),
        ({"STRATA_PLACE__PORT__X": "1"}, "place.port"),
        ({"STRATA_PLACE": "3"}, "place (environment STRATA_PLACE)"),
        ({"STRATA___": "3"}, "unknown key"),
    ],
)
def test_errors_name_the_key_the_source_and_a_remedy(names: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsInvalid) as wrong:
        load(Tree, None, names)
    assert says in str(wrong.value)


def test_a_wrong_type_in_the_file_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("place:\n  port: '81'\n")
    with pytest.raises(SettingsInvalid, match=r'place.port \(s.yaml:2\): "81" is not accepted; it is a whole number'):
        load(Tree, path)
    for given, said in (("[1]", "a list"), ("{a: 1}", "a mapping")):
        path.write_text(f"place: {{port: {given}}}\n")
        with pytest.raises(SettingsInvalid, match=rf"place.port \(s.yaml:1\): {said} is not accepted; it is a whole"):
            load(Tree, path)
    path.write_text("place: yes\n")
    with pytest.raises(SettingsInvalid, match=r"place \(s.yaml:1\)"):
        load(Tree, path)


def test_explain_refuses_unknown_keys_with_the_nearest() -> None:
    tree = load(Tree)
    for key, says in (
        ("place.prot", "did you mean place.port?"),
        ("engines.9.name", "has 1 elements"),
        ("place.port.x", "nothing below"),
        ("zzz", "knows place, engines"),
    ):
        with pytest.raises(SettingsInvalid) as wrong:
            tree.explain(key)
        assert says in str(wrong.value)


def test_explain_shows_a_whole_branch() -> None:
    assert [one.key for one in load(Tree).explain("engines")] == [
        "engines.0.name", "engines.0.size", "engines.0.mode", "engines.0.note",
    ]  # fmt: skip
    assert {one.source for one in load(Tree).explain("")} == {"default"}


def test_plain_values_are_settled_like_a_file() -> None:
    assert settle(Tree, {"place": {"port": 5}}).place.port == 5
    for values in ({"place": {"port": object()}}, {1: 2, "place": {1, 2}}):
        with pytest.raises(SettingsInvalid):
            settle(Tree, values)  # type: ignore[arg-type]


def test_no_library_s_words_reach_people() -> None:
    class Words(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")

        whole: int = Field(1, ge=1, le=9)
        share: float = Field(0.5, gt=0, lt=1)
        name: str = Field("a", min_length=1, max_length=3, pattern="^[a-z]*$")
        kind: Literal["x", "y"] = "x"
        flag: bool = False
        names: tuple[str, ...] = ()

    wrong: dict[str, tuple[Any, ...]] = {
        "whole": (0, 10, "1", 1.5, None, True),
        "share": (0, 1, "a", None),
        "name": ("", "abcd", "A", 5),
        "kind": ("z", 1),
        "flag": ("yes", 1),
        "names": ("a", 5, [1]),
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(SettingsInvalid) as told:
                settle(Words, {name: value})
            assert "should" not in str(told.value).lower()
            assert "; it " in str(told.value)
    with pytest.raises(SettingsInvalid, match=r"it has to match \^\[a-z\]\*\$"):
        settle(Words, {"name": "A"})
