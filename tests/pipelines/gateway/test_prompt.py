"""Texts that are too long are refused before all of them is tokenized."""

import pytest

from actors.engine.tokens import Tokenizer
from cluster.errors import ContextTooLong, InvalidRequest
from pipelines.chat import Served
from pipelines.gateway.prompt import AT_ONCE, chat_tokens, text_tokens
from tests.pipelines.gateway.fakes import FakeClient


class Counting:
    """A tokenizer that says how much it was given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def encode(self, text: str, *, field: str = "prompt") -> list[int]:
        self.characters += len(text)
        return self.tokenizer.encode(text, field=field)

    def chat(self, messages: list[dict[str, str]], tools: object = None) -> list[int]:
        self.characters += sum(len(message["content"]) for message in messages)
        return self.tokenizer.chat(messages)


@pytest.fixture
def counting(tokenizer: Tokenizer) -> Counting:
    return Counting(tokenizer)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]


async def test_what_fits_becomes_the_same_tokens_however_long(counting: Counting):
    served = Served("m", FakeClient(context_tokens=20_000), counting)
    for text in ("hello", "hello " * 2000):
        assert list(await text_tokens(served, text)) == counting.tokenizer.encode(text)
        assert list(await chat_tokens(served, said(text))) == counting.tokenizer.chat(said(text))
    assert await text_tokens(served, (1, 2)) == (1, 2)


@pytest.mark.parametrize("size", [20_000, 1_000_000, 4_000_000])
async def test_what_cannot_fit_costs_little(counting: Counting, size: int):
    served = Served("m", FakeClient(context_tokens=1024), counting)
    with pytest.raises(ContextTooLong) as told:
        await text_tokens(served, "x" * size)
    assert told.value.field == "prompt"
    with pytest.raises(ContextTooLong) as told:
        await chat_tokens(served, said("x" * size))
    assert told.value.field == "messages"
    assert counting.characters <= 2 * AT_ONCE


async def test_what_may_fit_is_tokenized(counting: Counting):
    """Longer than eight characters a token is unusual and yet no reason to refuse."""
    served = Served("m", FakeClient(context_tokens=1500), counting)
    assert len(await text_tokens(served, "é" * 1000)) == 2000
    with pytest.raises(InvalidRequest):
        await text_tokens(served, "")
