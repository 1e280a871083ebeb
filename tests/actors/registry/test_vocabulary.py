import json

import pytest

from actors.registry.vocabulary import compared


def bpe(vocab, merges=(), added=()):
    return json.dumps({"model": {"vocab": vocab, "merges": list(merges)}, "added_tokens": list(added)}).encode()


def test_tokens_come_go_and_get_other_numbers():
    before = bpe({"a": 0, "b": 1, "c": 2}, ["a b"], [{"content": "<s>", "id": 3}])
    after = bpe({"a": 0, "b": 2, "d": 1}, ["a b", "b d"], [{"content": "<s>", "id": 3, "special": True}])
    assert compared(before, after) == {"tokens": (1, 1, 1), "added tokens": (0, 0, 1), "merges": (1, 0, 0)}
    assert compared(before, before) == {}


def test_both_ways_to_write_a_merge_are_the_same():
    assert compared(bpe({}, ["a b"]), bpe({}, [["a", "b"]])) == {}


def test_a_vocabulary_in_order():
    before = json.dumps({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]]}}).encode()
    after = json.dumps({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]}}).encode()
    assert compared(before, after) == {"tokens": (1, 0, 1)}


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[]", b"{}", b'{"model": {}}', b'{"model": {"vocab": 5}}', b"[" * 10**6, b"null",
             b'{"model": {"vocab": [["a", 1, 2]]}}', b'{"model": {"vocab": [[["a"], 1]]}}'],
)  # fmt: skip
def test_what_is_no_tokenizer_has_no_entries(text):
    assert compared(text, bpe({})) is None
    assert compared(bpe({}), text) is None
