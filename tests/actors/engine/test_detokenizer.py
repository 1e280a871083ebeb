"""Streams of tokens against the tokenizer's own decoding of the whole, and stop strings however they are cut."""

import codecs
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine.detokenizer import Detokenizer, Piece
from actors.engine.stops import StopWatch
from actors.messages import SamplingParams
from tests.actors.engine.tokenizers_made import KINDS, tokenizer

SCRIPTS = [
    "Hello, world! It's  fine.\n\n  indented",
    "你好,世界!龘靐齉爩 𠀀𠮷",
    "مرحبا بالعالم، كيف حالك؟",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇳 👍🏽 e\u0301 ज्ञ",
    "\x00\x07\ufeff\u200b�",
    " leading and trailing ",
]
SPELLED = [kind for kind in KINDS if kind != "wordpiece"]


def stream(kind, tokens, params=None, chunk=1, **options) -> tuple[str, list[Piece]]:
    detokenizer = Detokenizer(tokenizer(kind), params or SamplingParams(), **options)
    pieces = [detokenizer.push(tokens[start : start + chunk]) for start in range(0, len(tokens), chunk)]
    pieces.append(detokenizer.flush())
    return "".join(piece.text for piece in pieces), pieces


def plain(kind, text):
    return tokenizer(kind)._backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", SCRIPTS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_text_comes_out_as_it_is_decoded_whole(kind, text, chunk):
    tokens = plain(kind, text)
    said, _ = stream(kind, tokens, chunk=chunk)
    assert said == tokenizer(kind).decode(tokens)
    if kind in {"bytes", "gemma"}:
        assert said == (unicodedata.normalize("NFC", text) if kind == "bytes" else text)


@pytest.mark.parametrize("kind", KINDS)
def test_no_piece_ends_in_half_a_character(kind):
    for text in SCRIPTS[:4]:
        _, pieces = stream(kind, plain(kind, text))
        assert not any("�" in piece.text for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SPELLED), st.data(), st.booleans(), st.integers(1, 4))
def test_random_tokens_are_decoded_as_the_whole(kind, data, skip, chunk):
    """Invalid bytes too. Where a byte run is no UTF-8, a byte-fallback decoder spoils all of it, even what has been
    said: there the text is that of the bytes."""
    own = tokenizer(kind)
    tokens = data.draw(st.lists(st.integers(0, own.vocab_size + 3), max_size=30))
    said, _ = stream(kind, tokens, SamplingParams(skip_special_tokens=skip), chunk=chunk)
    whole = own.decode(tokens, skip_special_tokens=skip)
    if kind in {"bytes", "gemma"}:
        spelled = b"".join(own.bytes_of(t) for t in tokens if not (skip and t in own._special_ids))
        assert said == codecs.getincrementaldecoder("utf-8")("replace").decode(spelled)
    if kind == "bytes":
        assert spelled.decode("utf-8", "replace") == whole
    elif "�" not in whole + said:
        assert said == whole


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(KINDS)), st.text(alphabet="abc 你好é👍\n<|im_end>[INST]", max_size=40))
def test_random_texts(kind, text):
    tokens = plain(kind, text)
    assert stream(kind, tokens)[0] == tokenizer(kind).decode(tokens)


def test_half_a_character_at_the_end_is_left_out():
    tokens = plain("bytes", "a龘")
    assert len(tokens) == 4
    assert stream("bytes", tokens[:-1])[0] == "a"


def test_bytes_that_are_no_text_become_replacement_characters():
    own = tokenizer("gemma")._backend
    tokens = [own.token_to_id(piece) for piece in ("<0xE4>", "<0xBD>", "<0xFF>", "<0x41>")]
    assert stream("gemma", tokens)[0] == "��A"


@pytest.mark.parametrize("kind", ["llama", "metaspace"])
def test_a_completion_keeps_the_space_of_its_first_word(kind):
    tokens = plain(kind, "again and")
    assert stream(kind, tokens)[0] == "again and"
    assert stream(kind, tokens, continues=True)[0] == " again and"


def test_special_tokens_are_skipped_or_said():
    own = tokenizer("bytes")
    tokens = [*plain("bytes", "hi"), own._backend.token_to_id("<|im_end|>"), own._backend.token_to_id("<think>")]
    assert stream("bytes", tokens)[0] == "hi<think>"
    assert stream("bytes", tokens, SamplingParams(skip_special_tokens=False))[0] == "hi<|im_end|><think>"


def test_a_token_that_ends_the_sequence_says_nothing():
    own = tokenizer("bytes")
    tokens = plain("bytes", "again dog")
    shown = Detokenizer(own, SamplingParams(include_stop_str_in_output=True)).push(tokens, ended=True)
    hidden = Detokenizer(own, SamplingParams()).push(tokens, ended=True)
    assert (shown.text, hidden.text) == (own.decode(tokens), own.decode(tokens[:-1]))
    assert hidden.kept_tokens == len(tokens)


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Grow the text by a character until it ends in a stop string; the longest one counts."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.text(alphabet="ab", max_size=6), max_size=8),
    st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=3),
)
def test_stop_strings_do_not_care_how_a_text_is_cut(pieces, stops):
    watch, said, found = StopWatch(stops), "", None
    for piece in pieces:
        text, found = watch.feed(piece)
        said += text
        if found:
            break
        held = max(
            (
                n
                for s in stops
                for n in range(len(s))
                if said + watch._held != "" and (said + watch._held).endswith(s[:n])
            ),
            default=0,
        )
        assert len(watch._held) == held
    said += "" if found else watch.drain()
    assert (said, found) == naive("".join(pieces), stops)


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_stop_string_over_token_borders(include, chunk):
    tokens = plain("bytes", "The quick brown fox jumps over the lazy dog")
    params = SamplingParams(stop=["n fox j", "zebra"], include_stop_str_in_output=include)
    said, pieces = stream("bytes", tokens, params, chunk=chunk)
    assert said == "The quick brow" + ("n fox j" if include else "")
    assert pieces[-1].stop == "n fox j"
    assert pieces[-1].stopped
    kept = sum(piece.kept_tokens for piece in pieces)
    own = tokenizer("bytes")
    assert "n fox j" in own.decode(tokens[:kept])
    assert "n fox j" not in own.decode(tokens[: kept - 1])


def test_after_the_stop_nothing_comes():
    detokenizer = Detokenizer(tokenizer("bytes"), SamplingParams(stop="fox"))
    assert detokenizer.push(plain("bytes", "a fox")).text == "a "
    assert detokenizer.push(plain("bytes", "more")) == Piece("", 0, "fox")
    assert detokenizer.flush() == Piece("", 0, "fox")


def test_only_what_may_become_a_stop_is_held():
    detokenizer = Detokenizer(tokenizer("bytes"), SamplingParams(stop=["\nUser:"]))
    assert detokenizer.push(plain("bytes", "hi\nUs")).text == "hi"
    assert detokenizer.push(plain("bytes", "ually\n")).text == "\nUsually"
    assert detokenizer.flush().text == "\n"


def test_a_stop_string_before_min_tokens_does_not_count():
    tokens = plain("bytes", "a.b.c.d")
    assert len(tokens) == 7
    params = SamplingParams(stop=".", min_tokens=4)
    assert stream("bytes", tokens, params)[0] == "a.b"
    assert stream("bytes", tokens, SamplingParams(stop=".", min_tokens=5))[0] == "a.b.c"


def test_stops_in_scripts_beyond_ascii():
    tokens = plain("bytes", "今天天气很好。明天")
    assert stream("bytes", tokens, SamplingParams(stop=["。", "🙂"]))[0] == "今天天气很好"
