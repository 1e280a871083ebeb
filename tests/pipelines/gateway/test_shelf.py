"""A stream that was cut is taken up again where it was, by whose it is."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from actors.directory import Directory
from actors.replicas import Replicas
from actors.roster import Roster
from cluster.errors import ReplicaLost
from pipelines.chat import Served
from pipelines.gateway.app import create
from pipelines.gateway.settings import GatewaySettings
from pipelines.gateway.shelf import TAIL_BYTES, Kept
from tests.actors.test_link import MODEL, lead, until_ready
from tests.contracts.client import PROMPT, still
from tests.pipelines.gateway.conftest import Stage

ASK = {
    "model": "starter",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 12,
    "seed": 3,
    "stream": True,
}
USAGE = {"stream_options": {"include_usage": True}}


class Line:
    """One connection: it is cut once `events` have come through; None for never."""

    def __init__(self, stage: Stage, body: dict, events: int | None = None, last: str = "", key: str = "") -> None:
        self._stage, self._events = stage, events
        self._asked = iter([{"type": "http.request", "body": json.dumps(body).encode()}])
        self._gone = asyncio.Event()
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key or stage.key}".encode())]
        headers += [(b"last-event-id", last.encode())] if last else []
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        self._scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        self.status = 0
        self.text = ""

    async def run(self) -> "Line":
        await self._stage.app(self._scope, self._receive, self._send)
        return self

    async def _receive(self):
        for message in self._asked:
            return message
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not self._gone.is_set():
            self.text += message["body"].decode()
            if self._events is not None and len(self.ids) >= self._events:
                self._gone.set()
                await asyncio.sleep(0)

    @property
    def ids(self) -> list[str]:
        return [line.removeprefix("id: ") for line in self.text.splitlines() if line.startswith("id: ")]

    @property
    def said(self) -> list[str]:
        """What each choice says, the usage and whether it came to the end, as a client reads them."""
        texts: dict[int, str] = {}
        ends = []
        for line in self.text.splitlines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                for choice in event.get("choices", ()):
                    texts[choice["index"]] = texts.get(choice["index"], "") + (
                        choice.get("text") or choice.get("delta", {}).get("content") or ""
                    )
                ends += [event["usage"]] if event.get("usage") else []
            elif line == "data: [DONE]":
                ends.append("done")
        return [*(texts[index] for index in sorted(texts)), *ends]


@pytest.mark.parametrize("more", [USAGE, USAGE | {"n": 2}, {"logprobs": True}])
@pytest.mark.parametrize("events", [1, 4, 9])
async def test_a_stream_goes_on_after_the_last_event_that_came(
    make_stage: Callable[..., Stage], events: int, more: dict
) -> None:
    stage = make_stage(resumable=True)
    body = ASK | more
    whole = await Line(stage, body).run()
    assert whole.said[-1] == "done"
    cut = await Line(stage, body, events).run()
    asked = len(stage.client.streams)
    rest = await Line(stage, body, last=cut.ids[-1]).run()
    assert rest.status == 200
    rest.text = cut.text + rest.text
    assert rest.said == whole.said
    numbers = [int(each.rpartition("-")[2].partition("~")[0]) for each in rest.ids]
    assert numbers == list(range(1, len(whole.ids) + 1))
    assert len(stage.client.streams) == asked, "it is the same turn, counted once"


@pytest.mark.parametrize("choices", [1, 3])
async def test_with_a_real_engine_nothing_is_held_in_between(make_stage: Callable[..., Stage], choices: int) -> None:
    """Journals over real links: what goes on is the unbroken answer, and the engine is empty while nobody reads."""
    directory = Directory()
    leader = await lead(directory, "one")
    replicas = Replicas(MODEL)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas)
    stage = make_stage()
    served = {"starter": Served("starter", replicas, stage.tokenizer)}
    stage.app = create(served, stage.ring, GatewaySettings(request_seconds=1e6))  # that engine's clock is fast
    body = {"model": "starter", "prompt": [*PROMPT], "seed": 3, "n": choices, "max_tokens": 600, "stream": True}
    body |= USAGE | {"temperature": 1, "ignore_eos": True}
    whole = await Line(stage, body).run()
    assert whole.status == 200, whole.text
    assert whole.said[-1] == "done"
    text, last = "", ""
    for events in (2, 2):
        line = await Line(stage, body, events, last).run()
        assert line.said[-1] != "done"
        await still(replicas)
        text, last = text + line.text, line.ids[-1]
    rest = await Line(stage, body, last=last).run()
    rest.text = text + rest.text
    assert rest.said[:choices] == whole.said[:choices]
    assert rest.said[-2]["completion_tokens"] == whole.said[-2]["completion_tokens"] == 600 * choices
    assert rest.said[-1] == "done"
    await roster.close()
    leader.close()


async def test_it_may_be_cut_again_and_at_the_very_end(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(resumable=True)
    whole = await Line(stage, ASK).run()
    got, last = "", ""
    for events in (2, 3, 5):
        line = await Line(stage, ASK, events, last).run()
        got, last = got + line.text, line.ids[-1]
    rest = await Line(stage, ASK, last=last).run()
    again = await Line(stage, ASK, last=last).run()
    assert again.text == rest.text, "what is over is told as often as it is asked for"
    rest.text = got + rest.text
    assert rest.said == whole.said


async def test_an_old_connection_that_is_not_known_to_be_dead_gives_way(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(resumable=True, free_deltas=4)
    old = Line(stage, ASK)
    running = asyncio.create_task(old.run())
    while len(old.ids) < 3:
        await asyncio.sleep(0)
    new = Line(stage, ASK, last=old.ids[1])
    taking = asyncio.create_task(new.run())
    await running
    stage.client.gate.set()
    await taking
    new.text = "".join(f"{event}\n\n" for event in old.text.split("\n\n")[:2]) + new.text
    assert new.said[-1] == "done"
    assert len(new.said[0]) == ASK["max_tokens"]


async def test_only_whose_it_is_takes_it_up_with_the_same_request(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(resumable=True)
    cut = await Line(stage, ASK, 3).run()
    stranger = stage.ring.issue("other", "acme", "admin", created=1)
    for line in (
        Line(stage, ASK, last=cut.ids[-1], key=stranger),
        Line(stage, ASK | {"seed": 4}, last=cut.ids[-1]),
        Line(stage, ASK, last="nobody-3"),
    ):
        await line.run()
        assert line.status == 404
        assert "no stream" in line.text
    for last in ("x", cut.ids[-1].replace("-3~", "-3000~")):
        line = await Line(stage, ASK, last=last).run()
        assert line.status == 400
        assert "Last-Event-ID" in line.text


async def test_what_failed_or_is_too_old_or_too_many_is_not_kept(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(GatewaySettings(resumable_streams=1), resumable=True)
    first, second = await Line(stage, ASK, 3).run(), await Line(stage, ASK, 3).run()
    assert (await Line(stage, ASK, last=plain(first)).run()).status == 404
    assert (await Line(stage, ASK, last=plain(second)).run()).status == 200
    stage = make_stage(resumable=True, breaks_after=3, breaks_with=ReplicaLost("r", "gone"))
    broken = await Line(stage, ASK).run()
    assert "replica_lost" in broken.text
    assert (await Line(stage, ASK, last=plain(broken)).run()).status == 404
    stage = make_stage(GatewaySettings(resume_seconds=0.001), resumable=True)
    cut = await Line(stage, ASK, 3).run()
    while not stage.client.cancels:
        await asyncio.sleep(0.001)
    assert (await Line(stage, ASK, last=plain(cut)).run()).status == 404


def plain(line: Line) -> str:
    """The last id without what the answer could be made again by."""
    return line.ids[-1].partition("~")[0]


async def test_without_it_events_have_no_numbers(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(GatewaySettings(resume_seconds=0))
    assert (await Line(stage, ASK).run()).ids == []
    async with stage.http() as http:
        answer = await http.post("/v1/chat/completions", json=ASK, headers={"last-event-id": "a-1"})
    assert isinstance(answer, httpx.Response)
    assert answer.status_code == 404


def test_a_tail_is_bounded() -> None:
    kept = Kept("x", ("p", b""), None, None)  # type: ignore[arg-type]
    for _ in range(40):
        kept.number(b"data: " + b"y" * (TAIL_BYTES // 16) + b"\n\n")
    assert len(kept.after(39)) < len(kept.after(30)) <= TAIL_BYTES
    with pytest.raises(Exception, match="ask again from the start"):
        kept.after(3)
