"""A stream that a gateway lost is made again by another, from where its reader was."""

import json
from collections.abc import Callable

import pytest

from cluster.errors import InvalidRequest
from pipelines.chat import Cut
from pipelines.gateway.regain import MOST, Last, Mark, Place
from pipelines.gateway.settings import GatewaySettings
from tests.pipelines.gateway.conftest import Stage
from tests.pipelines.gateway.test_shelf import ASK, USAGE, Line

UNSEEDED = {key: value for key, value in ASK.items() if key != "seed"} | {"temperature": 1}
TEXT = {"model": "starter", "prompt": ["one", "two"], "max_tokens": 9, "seed": 5, "stream": True, "echo": True}


def cut_events(line: Line) -> list[dict]:
    return [json.loads(each[6:]) for each in line.text.splitlines() if each.startswith("data: {")]


def probabilities(line: Line) -> list[str]:
    found = []
    for event in cut_events(line):
        for choice in event["choices"]:
            found += [one["token"] for one in (choice.get("logprobs") or {}).get("content") or ()]
    return found


@pytest.mark.parametrize(("burst", "other"), [(1, 1), (3, 2), (5, 1), (1, 7)])
@pytest.mark.parametrize(
    "body",
    [
        ASK | USAGE,
        ASK | USAGE | {"n": 3},
        ASK | {"logprobs": True},
        ASK | {"stop": ["q"]},
        UNSEEDED,
        TEXT,
        ASK | {"max_tokens": 5},
    ],
)
async def test_another_gateway_goes_on_after_the_last_event(
    make_stage: Callable[..., Stage], body: dict, burst: int, other: int
) -> None:
    first = make_stage(resumable=True, burst=burst)
    events = 0
    while True:
        events += 1
        cut = await Line(first, body, events).run()
        if cut.said[-1] == "done":
            break
        if "~" not in cut.ids[-1]:
            continue
        whole = Line(first, body, last=cut.ids[-1])  # the gateway that has it tells the rest
        await whole.run()
        second = make_stage(resumable=True, burst=other)
        rest = await Line(second, body, last=cut.ids[-1], key=first.key).run()
        assert rest.status == 200, rest.text
        assert {event["id"] for event in cut_events(rest)} <= {event["id"] for event in cut_events(cut)}
        assert {event["created"] for event in cut_events(rest)} <= {event["created"] for event in cut_events(cut)}
        whole.text, rest.text = cut.text + whole.text, cut.text + rest.text
        assert rest.said == whole.said
        assert probabilities(rest) == probabilities(whole)
        numbers = [int(each.rpartition("-")[2].partition("~")[0]) for each in rest.ids]
        assert numbers == list(range(1, len(numbers) + 1))
    assert events > 2


async def test_it_may_be_lost_again_by_the_next(make_stage: Callable[..., Stage]) -> None:
    stages = [make_stage(resumable=True, burst=burst) for burst in (1, 2, 3)]
    whole = await Line(stages[0], ASK | USAGE).run()
    text, last = "", ""
    for stage in stages:
        line = await Line(stage, ASK | USAGE, 3, last, key=stages[0].key).run()
        text, last = text + line.text, line.ids[-1]
    line = await Line(stages[0], ASK | USAGE, last=last).run()
    line.text = text + line.text
    assert line.said == whole.said


async def test_what_would_go_on_as_another_answer_is_refused(make_stage: Callable[..., Stage]) -> None:
    first = make_stage(resumable=True)
    cut = await Line(first, ASK, 5).run()
    second = make_stage(resumable=True, script=(70,) * 40)
    other = await Line(second, ASK, last=cut.ids[-1], key=first.key).run()
    assert other.status == 400
    assert "that answer cannot be made again; ask from the start" in other.text
    assert second.client.running == 0
    ends = make_stage(resumable=True, script=(70,), end=70)
    early = await Line(ends, ASK, last=cut.ids[-1], key=first.key).run()
    assert early.status == 400


async def test_only_whose_it_is_has_it_made_again(make_stage: Callable[..., Stage]) -> None:
    first, second = make_stage(resumable=True), make_stage(resumable=True)
    last = (await Line(first, ASK, 3).run()).ids[-1]
    for line in (
        Line(second, ASK, last=last),  # by another key
        Line(second, ASK | {"seed": 4}, last=last, key=first.key),
        Line(second, ASK, last=last.partition("~")[0], key=first.key),
        Line(second, ASK, last=last + ".1.1", key=first.key),
    ):
        await line.run()
        assert line.status == 404
        assert "no stream" in line.text


async def test_more_choices_than_an_id_has_room_for_have_plain_ids(make_stage: Callable[..., Stage]) -> None:
    line = await Line(make_stage(resumable=True), ASK | {"n": MOST + 1}, 4).run()
    assert not any("~" in each for each in line.ids)


async def test_what_is_not_kept_any_more_is_made_again(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(GatewaySettings(resumable_streams=1), resumable=True)
    first = await Line(stage, ASK, 3).run()
    await Line(stage, ASK, 3).run()
    asked = len(stage.client.streams)
    rest = await Line(stage, ASK, last=first.ids[-1]).run()
    assert (rest.status, len(stage.client.streams)) == (200, asked + 1)


def test_a_mark_is_read_as_it_was_written() -> None:
    mark = Mark(2**63 - 1, 1_800_000_000, "0123456789ab", (Place(Cut(17, False), 2**32 - 1), Place(Cut(3, True), 0)))
    assert Mark.read(str(mark)) == mark
    least = Mark(-(2**63), 1, "0123456789ab", (Place(Cut(1, False), 1),))
    assert Last.read(f"x-1~{least}").mark == least, "a seed may be negative"
    most = Mark(2**63 - 1, 2**40, "0123456789ab", (Place(Cut(2**24, True), 2**32 - 1),) * MOST)
    assert Last.read(f"{'x' * 64}-999999999~{most}").mark == most


@pytest.mark.parametrize(
    "text", ["", "1", "1.2.3", "1.2.3.4", "z.2.3.4.5", "1.2.3.z.5", "1.2.3.4z4.5", "1.2.3" + ".1.1" * 9]
)
def test_what_is_no_mark_is_none(text: str) -> None:
    assert Mark.read(text) is None


@pytest.mark.parametrize("text", ["x", "x-", "-1", "x-1~", "x-1~g", "x-1~" + "1" * 300, "x y-1"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="send the last `id`"):
        Last.read(text)
