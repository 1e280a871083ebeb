"""Each task's answers, worked out again by other means."""

import json
import re
from datetime import datetime

import pytest

from pipelines.lifecycle.data import (
    about,
    arithmetic,
    classification,
    dates,
    dialogue,
    extraction,
    refusals,
    smalltalk,
    tools,
    units,
)
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import held_out, wording


def drawn(task, count=400, seed=9):
    dice = Dice(seed)
    return [task.draw(dice) for _ in range(count)]


def question(example):
    return example.turns[-2][1]


@pytest.mark.parametrize(
    "task",
    [about, arithmetic, classification, dates, dialogue, extraction, refusals, smalltalk, tools, units],
    ids=lambda module: module.__name__.rsplit(".", 1)[-1],
)
def test_a_conversation_ends_with_an_answer_to_a_question(task):
    for example in drawn(task):
        assert example.turns[-1][0] == "assistant"
        assert example.turns[-2][0] in ("user", "tool")
        assert all(content.strip() for _, content in example.turns)
        assert example.key.startswith(f"{example.task}:")
        assert example.task == task.__name__.rsplit(".", 1)[-1]


def test_arithmetic_is_right():
    for example in drawn(arithmetic):
        left, result = example.answer.split(": ")[-1].split(" = ")
        assert eval(left.replace("×", "*")) == int(result)
        for step in example.answer.split(": ")[0].split(", ") if ": " in example.answer else []:
            total, value = step.split("=")
            assert eval(total) == int(value)


def test_a_sum_is_one_instance_whichever_way_round():
    assert arithmetic.plus_key(3, 12) == arithmetic.plus_key(12, 3)


def test_worked_sums_carry():
    assert arithmetic.worked(472, 389) == "2+9=11, 7+8+1=16, 4+3+1=8: 472 + 389 = 861"


def test_units_are_exact():
    factors = {
        (large[i], small[i]): factor
        for table in (units.TENS, units.TABLES)
        for large, small, factor, *_ in table
        for i in (0, 1)
    }
    for example in drawn(units):
        value, source, result, target = re.fullmatch(r"(\d+) (\S+) = (\d+) (\S+)", example.answer).groups()
        if (source, target) in factors:
            assert int(value) * factors[source, target] == int(result)
        else:
            assert int(result) * factors[target, source] == int(value)


def test_dates_are_the_same_day():
    forms = ("%Y-%m-%d", "%B %d, %Y", "%Y年%m月%d日", "%d/%m/%Y")
    pattern = r"\d{4}-\d\d-\d\d|[A-Z][a-z]+ \d+, \d{4}|\d{4}年\d+月\d+日|\d\d/\d\d/\d{4}"

    def day(text):
        for form in forms:
            try:
                return datetime.strptime(re.search(pattern, text).group(), form)
            except ValueError:
                continue
        raise AssertionError(text)

    for example in drawn(dates):
        assert day(question(example)) == day(example.answer)


def test_extraction_copies_what_the_sentence_says():
    for example in drawn(extraction):
        for value in json.loads(example.answer).values():
            assert str(value) in question(example)


def test_labels_are_among_those_that_exist():
    labels = {*classification.SENTIMENTS, *classification.TOPICS, *(intent[0] for intent in classification.INTENTS)}
    labels |= {*classification.SENTIMENTS.values(), *classification.TOPIC_NAMES.values()}
    labels |= {intent[1] for intent in classification.INTENTS}
    assert {example.answer for example in drawn(classification, 2000)} == labels


def test_a_tool_call_names_an_offered_tool_and_all_its_arguments():
    called = 0
    for example in drawn(tools):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
        if example.answer in (tools.NONE_ENGLISH, tools.NONE_CHINESE):
            continue
        call = json.loads(example.answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        assert set(call["arguments"]) == set(offered[call["name"]]["required"])
        assert all(str(value) in question(example) for value in call["arguments"].values())
        called += 1
    assert 240 < called < 320


def test_a_running_sum_uses_the_sum_before():
    for example in (dialogue.running_sum(Dice(seed), seed % 2 == 0) for seed in range(100)):
        assert example.turns[3][1].startswith(example.turns[1][1].split(" = ")[1] + " + ")


def test_a_conversation_that_gives_a_held_out_sum_away_is_not_trained_on():
    leaking = [
        example
        for example in (dialogue.running_sum(Dice(seed), False) for seed in range(500))
        if not held_out(example.key) and any(held_out(key) for key in example.also)
    ]
    assert leaking
    assert not any(example.trainable for example in leaking)


def test_answers_come_in_the_language_of_the_question():
    for task in (about, refusals, smalltalk):
        for example in drawn(task):
            assert question(example).isascii() == example.answer.isascii(), question(example)


def test_wording_keeps_letters_and_digits_alone():
    assert wording("What's 3 + 4? 等于几？") == "whats34等于几"
