from pathlib import Path

import pytest

from cluster.document import FILE_BYTES, parse, read, value, written
from cluster.errors import SettingsInvalid


def test_values_and_lines_come_out() -> None:
    document = parse("# settings\ncluster:\n  http_port: 9000\nmodels:\n  - name: a\n    replicas: 2\n", "s.yaml")
    assert document.values == {"cluster": {"http_port": 9000}, "models": [{"name": "a", "replicas": 2}]}
    assert document.lines["cluster", "http_port"] == 3
    assert document.lines["models", 0, "replicas"] == 6


def test_comments_alone_are_no_settings() -> None:
    assert parse("# nothing yet\n", "s.yaml").values == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),  # not 750
        ("2024-01-01", "2024-01-01"),  # not a date
        ("yes", True),
        ("~", None),
        ("1_000", 1000),
        ("'7'", "7"),
        ("1.5", 1.5),
        ("1e-6", 1e-6),
        ("1E5", 1e5),
        ("-.5e+3", -500.0),
        ("1.e2", 100.0),
        ("2.5e-3", 2.5e-3),
        ("'1e-6'", "1e-6"),
        ('"1E5"', "1E5"),
        ("!!str 1e-6", "1e-6"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e-6s", "1e-6s"),
        (".e5", ".e5"),
        ("1_0e5", "1_0e5"),
        ("0x1e5", 0x1E5),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert parse(f"key: {text}", "s.yaml").values["key"] == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cluster:\n  host: a\n  host: b\n", "s.yaml:3: a second 'host' is not accepted; it stands on line 2"),
        ("cluster:\n\thost: a\n", "tab"),
        ("- a\n- b\n", "s.yaml:1: a list"),
        ("just words", "s.yaml:1: a single value"),
        ("a: &x [1]\nb: *x\n", "an alias"),
        ("a: {b: 1", "s.yaml:1"),
        ("a: !!python/object:os.system x", "tag"),
        ("a: .inf", "finite"),
        ("a: 1e999", "finite"),
        ("a: !!int abc", "quote"),
        ("? [1, 2]\n: 3\n", "plain word"),
        ("base: &b {x: 1}\na:\n  <<: *b\n", "plain word"),
        ("a: " + "[" * 60 + "]" * 60, "deep nesting"),
        ("a: " + "[" * 5000, "deep nesting"),
        ("a: \x01", "UTF-8"),
        ("a: 1\n---\nb: 2\n", "another document"),
    ],
)
def test_what_nobody_means_is_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsInvalid) as wrong:
        parse(text, "s.yaml")
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_key_that_looks_like_a_number_is_a_text() -> None:
    assert parse("weights: {1e5: 100}", "s.yaml").values == {"weights": {"1e5": 100}}


@pytest.mark.parametrize("text", ["1e-6", "1E5", "12:30", "7", "yes", "", "ä", "2024-01-01", ".5e3"])
def test_what_is_written_is_read_again(text: str) -> None:
    values = {"b": [text, 1e-6], "a": 1e22}
    assert parse(written(values), "s.yaml").values == values == value(written(values))


def test_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(SettingsInvalid):
        parse("\n".join(lines), "s.yaml")


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    empty, binary, huge = tmp_path / "empty.yaml", tmp_path / "binary.yaml", tmp_path / "huge.yaml"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with huge.open("wb") as file:
        file.truncate(FILE_BYTES * 1024)  # a gigabyte that takes no room
    for path, says in (
        (empty, "empty"),
        (binary, "UTF-8"),
        (huge, "bytes"),
        (tmp_path, "not a file"),
        (Path("/dev/zero"), "not a file"),
        (tmp_path / "none.yaml", "no such file"),
    ):
        with pytest.raises(SettingsInvalid, match=says):
            read(path)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("a: 1", "utf-8-sig")
    assert read(path).values == {"a": 1}
