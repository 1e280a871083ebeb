"""Tables in terminals of all widths."""

import pytest

from pipelines.cli import show

ROWS = [["version", "who", "why"], ["v1", "ann", "x" * 90], ["v2", "somebody with a long name", "y"]]


@pytest.mark.parametrize(("width", "gone"), [(80, []), (51, []), (50, ["who"]), (10, ["who"])])
def test_a_spare_column_goes_where_the_others_have_no_room(width, gone):
    assert show.left_out(ROWS, ["who"], width) == gone


def test_nothing_is_cut(monkeypatch, capsys):
    monkeypatch.setattr(show.out, "width", 30)
    show.table(("", ""), [("k" * 40, "one two three four five six seven"), ("key", "[bold]")])
    said = capsys.readouterr().out
    assert said.count("k") == 41
    assert all(word in said for word in ("seven", "[bold]"))
    show.table(("", ""), [("key", "one two three four five six seven")])
    assert capsys.readouterr().out.split() == ["key", "one", "two", "three", "four", "five", "six", "seven"]
