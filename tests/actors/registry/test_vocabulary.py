import json

import pytest

from actors.registry.vocabulary import compared


def bpe(vocab, merges=(), added=()):
    return json.dumps({"model": {"vocab": vocab, "merges": list(merges)}, "added_tokens": list(added)}).encode()


def counts(before, after):
    found = compared(before, after)
    return {part: count for part, (count, _) in found.items()}


def test_tokens_come_go_and_get_other_numbers():
    before = bpe({"a": 0, "b": 1, "c": 2}, ["a b"], [{"content": "<s>", "id": 3}])
    after = bpe({"a": 0, "b": 2, "d": 1}, ["a b", "b d"], [{"content": "<s>", "id": 3, "special": True}])
    assert counts(before, after) == {"tokens": (1, 1, 1), "added tokens": (0, 0, 1), "merges": (1, 0, 0)}
    assert compared(before, after)["tokens"][1] == (("d",), ("c",), ("b",))
    assert compared(before, before) == {}


def test_both_ways_to_write_a_merge_are_the_same():
    assert compared(bpe({}, ["a b"]), bpe({}, [["a", "b"]])) == {}


def test_a_vocabulary_in_order():
    before = json.dumps({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]]}}).encode()
    after = json.dumps({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]}}).encode()
    assert counts(before, after) == {"tokens": (1, 0, 1)}


def test_the_first_are_named_and_settings_too():
    before, after = (json.loads(bpe({f"t{number}": number for number in range(size)})) for size in (1, 9))
    after["normalizer"], after["model"]["dropout"] = {"type": "NFC"}, 0.1
    found = compared(json.dumps(before).encode(), json.dumps(after).encode())
    assert found["tokens"] == ((8, 0, 0), (("t1", "t2", "t3", "t4", "t5"), (), ()))
    assert found["settings"] == ((2, 0, 0), (("normalizer", "model.dropout"), (), ()))


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[]", b"{}", b'{"model": {}}', b'{"model": {"vocab": 5}}', b"[" * 10**6, b"null",
             b'{"model": {"vocab": [["a", 1, 2]]}}', b'{"model": {"vocab": [[["a"], 1]]}}'],
)  # fmt: skip
def test_what_is_no_tokenizer_has_no_entries(text):
    assert compared(text, bpe({})) is None
    assert compared(bpe({}), text) is None
