import json
from pathlib import Path

import pytest

from cluster.errors import InvalidRequest, NotFound
from pipelines.routing import cases
from pipelines.routing.casebook import Casebook
from pipelines.routing.cases import Case

ONE = {"prompt": "7 x 8?", "answer": "56"}


@pytest.mark.parametrize(
    ("grade", "wanted", "said", "right"),
    [
        ("exact", "56", " 56\n", True),
        ("exact", "56", "It is 56", False),
        ("contains", "Paris", "It is paris.", True),
        ("contains", "Paris", "Rome", False),
        ("number", "1,250.0", "So 50 times 25 is 1250", True),
        ("number", "56", "56 or 57", False),
        ("number", "56", "fifty-six", False),
        ("number", "-3", "it is -3.0", True),
    ],
)
def test_what_is_right(grade, wanted, said, right):
    assert Case(({"role": "user", "content": "?"},), ("no such", wanted), grade).right(said) is right


def test_a_file_has_a_question_a_line(tmp_path: Path):
    file = tmp_path / "chat.jsonl"
    talk = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
    rows = [ONE, talk | {"answer": ["Hi", "Hello"], "grade": "contains", "max_tokens": 9, "tools": [{"type": "x"}]}]
    file.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    found = cases.read(file)
    assert [case.answers for case in found.cases] == [("56",), ("Hi", "Hello")]
    assert found.cases[0].messages == ({"role": "user", "content": "7 x 8?"},)
    assert cases.of(json.loads(found.text), "x") == found
    assert cases.of(json.loads(found.text), "x").digest == found.digest


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (5, "evals.a[0]"),
        ({"prompt": "x"}, "evals.a[0].answer"),
        ({"prompt": "x", "answer": []}, "evals.a[0].answer"),
        ({"prompt": "x", "answer": [5]}, "evals.a[0].answer"),
        ({"answer": "x"}, "evals.a[0].prompt"),
        ({**ONE, "messages": []}, "evals.a[0].prompt"),
        ({"messages": [{"role": "robot", "content": "x"}], "answer": "x"}, "evals.a[0].messages"),
        ({"messages": "hello", "answer": "x"}, "evals.a[0].messages"),
        ({"prompt": 5, "answer": "x"}, "evals.a[0].prompt"),
        ({"prompt": "x" * 40_000, "answer": "x"}, "evals.a[0].prompt"),
        ({**ONE, "grade": "fuzzy"}, "evals.a[0].grade"),
        ({**ONE, "max_tokens": 0}, "evals.a[0].max_tokens"),
        ({**ONE, "tools": "x"}, "evals.a[0].tools"),
        ({**ONE, "weight": 2}, "evals.a[0].weight"),
    ],
)
def test_a_bad_question_is_named(row, field):
    with pytest.raises(InvalidRequest) as wrong:
        cases.of([row], "evals.a")
    assert wrong.value.field == field


@pytest.mark.parametrize("text", ["", "x", '{"prompt": "a"}', "[" * 10 + "]" * 10])
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InvalidRequest, match=r"bad\.jsonl"):
        cases.read(tmp_path / "bad.jsonl")


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InvalidRequest, match=r"none\.jsonl: a file that cannot be read \(No such file"):
        cases.read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("rows", [[], "x", {"a": 1}, [ONE] * 1_001])
def test_a_set_has_questions_and_not_too_many(rows):
    with pytest.raises(InvalidRequest, match=r"evals\.a: .* 1 to 1000 questions"):
        cases.of(rows, "evals.a")


def test_what_is_kept_is_found_until_nobody_wants_it(tmp_path: Path):
    book, found = Casebook(tmp_path / "evals"), cases.of([ONE], "x")
    book.sweep(())
    book.keep(found)
    book.keep(found)
    assert book.find(found.digest) == found
    book.sweep((found.digest,))
    assert book.find(found.digest) == found
    book.sweep(())
    with pytest.raises(NotFound):
        book.find(found.digest)
