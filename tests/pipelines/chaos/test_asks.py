from dataclasses import replace

import pytest

from pipelines.chaos.asks import CUT, FAILED, OK, USAGE, WRONG, Answer, Gathering, Heard, judge, live, plain

MEANT = Answer(("one", "two"), ("length", "stop"), (0, 0), 4, 9)
WHOLE = Heard(200, True, "", MEANT)


@pytest.mark.parametrize(
    ("heard", "verdict"),
    [
        (WHOLE, OK),
        (replace(WHOLE, status=0, whole=False), FAILED),
        (replace(WHOLE, status=503), FAILED),
        (replace(WHOLE, whole=False), CUT),
        (replace(WHOLE, answer=replace(MEANT, texts=("one", "tw"))), WRONG),
        (replace(WHOLE, answer=replace(MEANT, texts=("one",))), WRONG),
        (replace(WHOLE, answer=replace(MEANT, finishes=("length", None))), WRONG),
        (replace(WHOLE, answer=replace(MEANT, logprobs=(0, 1))), WRONG),
        (replace(WHOLE, answer=replace(MEANT, completion_tokens=10)), USAGE),
        (replace(WHOLE, answer=replace(MEANT, prompt_tokens=8)), USAGE),
        (Heard(200, answer=Answer(("on",)), left=True), OK),
        (Heard(200, left=True), OK),
        (Heard(200, answer=Answer(("on", "tow")), left=True), WRONG),
        (Heard(200, answer=Answer(("one", "two", "three")), left=True), WRONG),
    ],
)
def test_an_answer_is_judged_by_what_it_should_have_been(heard: Heard, verdict: str) -> None:
    assert judge(MEANT, heard) == verdict


def test_pieces_of_a_stream_are_gathered_by_choice() -> None:
    gathering = Gathering()
    first = {"index": 0, "delta": {"content": "on"}, "logprobs": {"content": [{}, {}]}, "finish_reason": None}
    assert gathering.take({"choices": [first, {"index": 1, "delta": {"role": "assistant"}}]}) == 2
    gathering.take({"choices": [{"index": 1, "delta": {"content": "two"}, "finish_reason": "stop"}]})
    gathering.take({"choices": [{"index": 0, "delta": {"content": "e"}, "finish_reason": "length"}]})
    gathering.take({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 9}})
    assert gathering.answer() == replace(MEANT, logprobs=(2, 0))


def test_a_whole_body_is_one_piece() -> None:
    gathering = Gathering()
    message = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
    gathering.take({"choices": [message], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    assert gathering.answer() == Answer(("yes",), ("stop",), (0,), 1, 2)
    gathering = Gathering()
    told = {"index": 0, "text": "ab", "logprobs": {"tokens": ["a", "b"]}, "finish_reason": "length"}
    gathering.take({"choices": [told]})
    assert gathering.answer() == Answer(("ab",), ("length",), (2,))


def test_calls_of_tools_are_gathered_from_their_pieces() -> None:
    gathering = Gathering()
    for function in ({"name": "paint", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}):
        gathering.take({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function}]}}]})
    assert gathering.answer().texts == ('paint{"a":1}',)


def test_every_request_has_one_answer() -> None:
    for ask in [*live("m", 50), *plain("m", 5)]:
        assert ask.body.get("temperature") == 0 or "seed" in ask.body
        assert ask.streams == ("stream_options" in ask.body)
    names = [ask.name for ask in [*live("m", 50), *plain("m", 5)]]
    assert len(names) == len(set(names))
