"""Lines to train on: what one is, in which order they are taken, and what of them is learnt."""

import json

import numpy as np
import pytest

from cluster.errors import InvalidRequest
from pipelines.lifecycle import examples
from pipelines.lifecycle.encoding import turns
from pipelines.lifecycle.examples import Encoded, batch, conversation, order, write

TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def test_both_forms_of_a_line_are_one_conversation():
    assert conversation({"prompt": "a", "answer": "b"}, "x") == conversation(TALK, "x") == TALK["messages"]


@pytest.mark.parametrize("line", [
    {}, {"prompt": "a"}, {"messages": "a"}, {"messages": TALK["messages"][:1]}, {"messages": [*TALK["messages"], 7]},
    {"messages": TALK["messages"] + TALK["messages"][:1]}, {"prompt": "a", "answer": 7},
])  # fmt: skip
def test_what_is_no_conversation(line):
    with pytest.raises(InvalidRequest, match="the assistant has the last word"):
        conversation(line, "train.data (a.jsonl:3)")


def test_a_line_that_is_no_json_is_named_with_its_place(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(TALK) + "\n\n{oops\n")
    with pytest.raises(InvalidRequest, match=r"train.data \(a.jsonl:3\)"):
        list(examples.lines(tmp_path, "train.data"))
    with pytest.raises(InvalidRequest, match="there is no such file or folder"):
        list(examples.lines(tmp_path / "b", "train.data"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match=r"it holds no \.jsonl file"):
        list(examples.lines(tmp_path / "empty", "train.data"))


def test_a_line_that_is_not_in_utf_8_is_named_with_its_place(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(TALK).encode() + b'\r\n{"prompt": "caf\xe9", "answer": "yes"}\n')
    with pytest.raises(
        InvalidRequest, match=r"train.data \(a.jsonl:2\): .*caf\ufffd.* it is not in UTF-8; save .*a.jsonl"
    ):
        list(examples.lines(tmp_path, "train.data"))
    file.write_text(
        json.dumps({"prompt": "caf\xe9 \U0001f600", "answer": "\ufffd"}, ensure_ascii=False), encoding="utf-8"
    )
    assert len(list(examples.lines(tmp_path, "train.data"))) == 1


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_data_without_a_line_are_refused_with_what_a_line_is(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InvalidRequest, match=r"^train.data: .*a.jsonl is not accepted; no line is in it; each line is"):
        list(examples.conversations(tmp_path / "a.jsonl", "train.data"))


def test_data_are_new_when_what_they_hold_is(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    before = examples.digest(tmp_path, "x")
    (tmp_path / "a.jsonl").touch()
    assert examples.digest(tmp_path, "x") == before
    (tmp_path / "b.jsonl").write_text("{}")
    assert examples.digest(tmp_path, "x") != before


def test_every_line_is_taken_once_before_any_comes_again():
    taken = [line for step in range(6) for rank in range(2) for line in order(12, 7, step, 2, rank, 2)]
    assert sorted(taken[:12]) == sorted(taken[12:]) == list(range(12))
    assert taken[:12] != taken[12:]
    assert order(12, 7, 4, 2, 1, 2) == taken[18:20], "a run that is cut goes on where it was"


def test_only_what_the_assistant_says_is_learnt(tmp_path):
    write(tmp_path / "data.npz", [Encoded((1, 2, 3), (False, True, True)), Encoded((4, 5), (False, True))])
    with np.load(tmp_path / "data.npz") as file:
        tokens, mask, labels = batch(file, [1, 0])
    assert tokens.tolist() == [[4, 5, 0], [1, 2, 3]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert labels.tolist() == [[-100, 5, -100], [-100, 2, 3]]


def test_each_turn_of_the_assistant_is_an_example_that_ends():
    from actors.engine.tokens import Tokenizer
    from pipelines.settings import HOME

    tokenizer = Tokenizer.from_folder(HOME / "models" / "starter")
    messages = [*TALK["messages"], {"role": "user", "content": "c"}, {"role": "assistant", "content": "dd"}]
    one, two = turns(messages, tokenizer)
    assert list(one.tokens[: one.learnt.index(True)]) == tokenizer.chat(messages[:1])
    assert list(two.tokens[: two.learnt.index(True)]) == tokenizer.chat(messages[:3])
    said = [token for token, learnt in zip(two.tokens, two.learnt, strict=True) if learnt]
    assert said[-1] in tokenizer.end_tokens
    assert tokenizer.decode(said[:-1]) == "dd"
