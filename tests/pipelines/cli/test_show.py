"""Tables in terminals of all widths."""

import json

import pytest
from rich.markup import escape

from cluster.errors import Unavailable
from pipelines.cli import show

ROWS = [["version", "who", "why"], ["v1", "ann", "x" * 90], ["v2", "somebody with a long name", "y"]]


@pytest.mark.parametrize(("width", "gone"), [(80, []), (51, []), (50, ["who"]), (10, ["who"])])
def test_a_spare_column_goes_where_the_others_have_no_room(width, gone):
    assert show.left_out(ROWS, ["who"], width) == gone


NASTY = "a\x1b[31m\x9b2J\x07\x7f\u202eb\ud800 [/x] :smile: \u0646\u200c\u0645 \n\tc"


def test_nothing_that_a_terminal_obeys_reaches_it(capsys):
    show.line(escape(NASTY))
    show.words(NASTY)
    show.progress(escape(NASTY))
    show.warning(NASTY)
    show.table(("",), [(NASTY,)])
    show.failure(Unavailable(NASTY, NASTY), as_json=False)
    show.document({"a": NASTY})
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert not any(letter in said for letter in "\x1b\x9b\x07\x7f\u202e\ud800")
    assert said.count("\u0646\u200c\u0645") == 8
    assert said.count("[/x] :smile:") == 8
    assert r"a\x1b[31m\x9b2J\x07\x7f\u202eb\ud800 " in said
    assert json.loads(captured.out[captured.out.index("{") :]) == {"a": NASTY}


def test_nothing_is_cut(monkeypatch, capsys):
    monkeypatch.setattr(show.out, "width", 30)
    show.table(("", ""), [("k" * 40, "one two three four five six seven"), ("key", "[bold]")])
    said = capsys.readouterr().out
    assert said.count("k") == 41
    assert all(word in said for word in ("seven", "[bold]"))
    show.table(("", ""), [("key", "one two three four five six seven")])
    assert capsys.readouterr().out.split() == ["key", "one", "two", "three", "four", "five", "six", "seven"]
