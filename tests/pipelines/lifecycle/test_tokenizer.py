import json

import pytest

from pipelines.lifecycle.conversation import spans
from pipelines.lifecycle.data.mixture import held_out_set
from pipelines.lifecycle.tokenizer import load_tokenizer, write_tokenizer


def test_every_digit_is_a_token(tokenizer):
    assert tokenizer.encode("1203 4").tokens == ["1", "2", "0", "3", "Ġ", "4"]


def test_a_name_has_the_same_tokens_wherever_it_stands(tokenizer):
    alone = tokenizer.encode("Zemiagraik").ids
    for text in ("call Zemiagraik", '{"name": "Zemiagraik"}', "Zemiagraik's"):
        ids = tokenizer.encode(text).ids
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), text


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n\t", "naïve 日本語 한국어 🙂‍🚀", "".join(map(chr, range(1, 400))), "鯴鳣"]
)
def test_any_text_comes_back_whole(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_pieces_are_encoded_as_the_whole_would_be(tokenizer):
    for example in held_out_set(10):
        pieces = [text for text, _ in spans(example.turns, None, example.tools)]
        joined = [i for piece in pieces for i in tokenizer.encode(piece).ids]
        assert joined == tokenizer.encode("".join(pieces)).ids


def test_marks_are_single_tokens_and_only_the_tags_of_a_call_are_visible(tokenizer):
    ids = tokenizer.encode("<|im_start|>a<tool_call>b</tool_call><|im_end|><|endoftext|>").ids
    assert len(ids) == 7
    assert tokenizer.decode(ids) == "a<tool_call>b</tool_call>"


def test_the_vocabulary_is_as_large_as_asked(tokenizer):
    assert tokenizer.get_vocab_size() == 1200


def test_a_folder_is_read_by_transformers(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(tokenizer, tmp_path, 512)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.apply_chat_template(
        [{"role": "user", "content": "12 + 3"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\n12 + 3<|im_end|>\n<|im_start|>assistant\n"
    assert theirs(text, add_special_tokens=False)["input_ids"] == load_tokenizer(tmp_path).encode(text).ids
    assert theirs.eos_token == "<|im_end|>"
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 512
