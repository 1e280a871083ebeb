"""The spine without HTTP: fitting, merging, stopping, counting and letting go."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from actors.engine.tokens import Tokenizer
from actors.messages import Delta, SamplingParams
from cluster.errors import ContextTooLong, Overloaded, ReplicaLost, Unavailable
from pipelines.chat import Answer, Cut, Part, Served, Turn, answer, fit
from tests.pipelines.gateway.fakes import FakeClient, full
from tests.pipelines.gateway.folder import write

PROMPT = tuple(range(64, 84))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("model")
    return Tokenizer.from_folder(write(folder))


class Ledger:
    """A meter that writes everything down."""

    def __init__(self) -> None:
        self.deltas: list[tuple[int, Delta]] = []
        self.ends: list[tuple[int, str, int]] = []

    def heard(self, choice: int, delta: Delta) -> None:
        self.deltas.append((choice, delta))

    def ended(self, choice: int, finish: str, tokens: int) -> None:
        self.ends.append((choice, finish, tokens))


def turn(*prompts: tuple[int, ...], seed: int = 1, **params) -> Turn:
    return Turn(prompts or (PROMPT,), SamplingParams(**{"max_tokens": 8, **params}), seed)


async def collect(begun: Answer) -> list[list[Part]]:
    async with asyncio.timeout(20), aclosing(begun.parts()) as batches:
        return [batch async for batch in batches]


def texts(batches: list[list[Part]]) -> dict[int, str]:
    heard: dict[int, str] = {}
    for part in (part for batch in batches for part in batch):
        heard[part.choice] = heard.get(part.choice, "") + part.text
    return heard


@pytest.mark.parametrize(
    ("prompt", "wanted", "least", "fitted", "field"),
    [
        (20, None, 0, 236, None), (20, 236, 0, 236, None), (255, None, 0, 1, None), (255, 1, 1, 1, None),
        (256, None, 0, None, "messages"), (1000, 1, 0, None, "messages"), (20, 237, 0, None, "max_tokens"),
        (20, None, 237, None, "min_tokens"), (20, None, 236, 236, None),
    ],
)  # fmt: skip
def test_fit(prompt: int, wanted: int | None, least: int, fitted: int | None, field: str | None):
    asked = Turn(((1,), (1,) * prompt), SamplingParams(max_tokens=wanted, min_tokens=least), 1)
    if field is None:
        assert fit(asked, 256).max_tokens == fitted
        return
    with pytest.raises(ContextTooLong) as told:
        fit(asked, 256)
    assert told.value.field == field


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("burst", [1, 3, 100])
async def test_every_token_becomes_text_once(tokenizer: Tokenizer, n: int, burst: int):
    client, ledger = FakeClient(burst=burst, cached=5), Ledger()
    begun = await answer(Served("m", client, tokenizer), turn(PROMPT, PROMPT[:7], n=n), ledger)
    heard = texts(await collect(begun))
    expected = ["".join(map(tokenizer.text_of, map(stream.token, range(8)))) for stream in client.streams]
    assert [heard[choice] for choice in range(2 * n)] == expected
    assert (begun.usage.prompt, begun.usage.completion, begun.usage.cached) == (27, 16 * n, 10)
    assert sorted(ledger.ends) == [(choice, "length", 8) for choice in range(2 * n)]
    assert client.running == client.cancels == 0


async def test_what_one_step_made_comes_in_one_part(tokenizer: Tokenizer):
    begun = await answer(Served("m", FakeClient(burst=4), tokenizer), turn())
    assert [len(part.text) for batch in await collect(begun) for part in batch] == [4, 4]


async def test_a_reader_who_falls_behind_gets_it_together(tokenizer: Tokenizer):
    """What the choices brought in the meantime is one batch with one part for each, so that it is one write."""
    begun = await answer(Served("m", FakeClient(), tokenizer), turn(n=3, logprobs=0))
    batches = []
    async with aclosing(begun.parts()) as coming:
        async for batch in coming:
            batches.append(batch)
            for _ in range(4):
                await asyncio.sleep(0)
    assert all(len({part.choice for part in batch}) == len(batch) for batch in batches)
    assert max(len(part.text) for batch in batches for part in batch) > 1
    assert [len(text) for text in texts(batches).values()] == [8, 8, 8]
    assert sum(len(part.logprobs) for batch in batches for part in batch) == 24


async def test_half_a_character_waits(tokenizer: Tokenizer):
    script = tuple(tokenizer.encode("é你😀"))
    begun = await answer(Served("m", FakeClient(script=script), tokenizer), turn(max_tokens=len(script)))
    assert [part.text for batch in await collect(begun) for part in batch] == ["é", "你", "😀"]


async def test_what_is_held_for_a_stop_string_comes_at_the_end(tokenizer: Tokenizer):
    script = tuple(tokenizer.encode("abc STO"))
    begun = await answer(Served("m", FakeClient(script=script), tokenizer), turn(max_tokens=7, stop="STOP"))
    parts = [part for batch in await collect(begun) for part in batch]
    assert "".join(part.text for part in parts) == "abc STO"
    assert parts[-1].finish == "length"


@pytest.mark.parametrize(("include", "text"), [(False, "ab"), (True, "ab##")])
@pytest.mark.parametrize("burst", [1, 2, 50])
async def test_a_stop_string(tokenizer: Tokenizer, include: bool, text: str, burst: int):
    script = tuple(tokenizer.encode("ab## and on and on"))
    client, ledger = FakeClient(script=script, burst=burst), Ledger()
    asked = turn(max_tokens=50, stop=["##", "zz"], include_stop_str_in_output=include, logprobs=0)
    begun = await answer(Served("m", client, tokenizer), asked, ledger)
    parts = [part for batch in await collect(begun) for part in batch]
    assert "".join(part.text for part in parts) == text
    assert parts[-1].finish == "stop"
    assert sum(len(part.logprobs) for part in parts) == 4  # a, b, #, #: what came after is no part of the answer
    assert client.running == 0
    assert [finish for _, finish, _ in ledger.ends] == ["stop"]


async def test_an_end_token_says_nothing(tokenizer: Tokenizer):
    script = (*tokenizer.encode("ok"), 256)
    client = FakeClient(script=script, end=256)
    begun = await answer(Served("m", client, tokenizer), turn())
    batches = await collect(begun)
    assert texts(batches) == {0: "ok"}
    assert batches[-1][-1].finish == "stop"
    assert begun.usage.completion == 3


@pytest.mark.parametrize("n", [1, 3])
async def test_a_reader_who_goes_away_frees_everything(tokenizer: Tokenizer, n: int):
    client, ledger = FakeClient(free_deltas=2), Ledger()
    begun = await answer(Served("m", client, tokenizer), turn(n=n), ledger)
    batches = begun.parts()
    await anext(batches)
    await batches.aclose()
    assert client.running == 0
    assert client.cancels == n
    assert {finish for _, finish, _ in ledger.ends} == {"abort"}
    begun.cancel()
    assert client.cancels == len(ledger.ends) == n


@pytest.mark.parametrize("n", [1, 3])
async def test_a_reader_whose_task_is_cancelled_frees_everything(tokenizer: Tokenizer, n: int):
    client = FakeClient(free_deltas=0)
    begun = await answer(Served("m", client, tokenizer), turn(n=n))
    reading = asyncio.create_task(collect(begun))
    for _ in range(5):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert client.running == 0


@pytest.mark.parametrize("n", [1, 3])
async def test_a_lost_replica_ends_the_turn(tokenizer: Tokenizer, n: int):
    client = FakeClient(breaks_after=2, breaks_with=ReplicaLost("m", "gone"))
    begun = await answer(Served("m", client, tokenizer), turn(n=n))
    with pytest.raises(ReplicaLost, match="gone"):
        await collect(begun)
    assert client.running == 0


@pytest.mark.parametrize("n", [1, 2])
async def test_a_sequence_that_others_cancel_is_no_answer(tokenizer: Tokenizer, n: int):
    client = FakeClient(free_deltas=1)
    begun = await answer(Served("m", client, tokenizer), turn(n=n))
    async with aclosing(begun.parts()) as batches:
        await anext(batches)
        client.streams[0].cancel()
        with pytest.raises(Unavailable, match="ended early"):
            while True:
                await anext(batches)
    assert client.running == 0


class Silent:
    """A stream that breaks the contract: it ends without a word."""

    def __aiter__(self):
        return self

    async def __anext__(self) -> Delta:
        raise StopAsyncIteration

    def drain(self) -> list[Delta]:
        return []

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("n", [1, 2])
async def test_a_stream_without_an_end_is_an_error_and_no_hang(tokenizer: Tokenizer, n: int):
    client = FakeClient()

    async def submit(*args, **more):
        return Silent()

    client.submit = submit
    begun = await answer(Served("m", client, tokenizer), turn(n=n))
    with pytest.raises(Unavailable, match="without a reason"):
        await collect(begun)


async def test_a_choice_that_finds_no_room_takes_the_others_along(tokenizer: Tokenizer):
    client = FakeClient()
    submit, count = client.submit, 0

    async def third_is_refused(*args, **more):
        nonlocal count
        count += 1
        if count == 3:
            raise full()
        return await submit(*args, **more)

    client.submit = third_is_refused
    with pytest.raises(Overloaded):
        await answer(Served("m", client, tokenizer), turn(n=4))
    assert client.running == 0
    assert client.cancels == len(client.streams)


async def test_a_reader_who_goes_away_while_choices_are_submitted(tokenizer: Tokenizer):
    client = FakeClient()
    submit, blocked = client.submit, asyncio.Event()

    async def second_hangs(*args, choice: int, **more):
        if choice == 1:
            blocked.set()
            await asyncio.Event().wait()
        return await submit(*args, choice=choice, **more)

    client.submit = second_hangs
    asking = asyncio.create_task(answer(Served("m", client, tokenizer), turn(n=3)))
    await blocked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(client.streams) >= 1
    assert client.running == 0


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("burst", [1, 100])
async def test_a_reader_who_goes_in_the_midst_of_a_batch_loses_nothing(tokenizer: Tokenizer, n: int, burst: int):
    client = FakeClient(burst=burst, resumable=True)
    begun = await answer(Served("m", client, tokenizer), turn(n=n))
    begun.keeps, begun.cuts = True, {choice: Cut(5 - choice, ended=False) for choice in range(n)}
    asked: list[Part] = []
    begun.lacking = lambda part: asked.append(part) or True
    heard = []
    while not begun.over:
        async with asyncio.timeout(20), aclosing(begun.parts()) as batches:
            heard.append(await anext(batches))
    expected = ["".join(map(tokenizer.text_of, map(stream.token, range(8)))) for stream in client.streams]
    assert [texts(heard)[choice] for choice in range(n)] == expected
    assert len(asked) > n
    assert (begun.lacking is None) == (burst == 1), "beyond its cuts nothing is looked at piece by piece"
