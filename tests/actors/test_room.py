"""How large a gang's KV cache is, and what can never fit."""

from dataclasses import replace

import pytest

from actors.gang import kv_blocks
from actors.messages import Assignment, ShardFacts
from actors.settings import Limits
from cluster.errors import ModelInvalid, SettingsInvalid

BYTES = 1024  # of one token, on each rank


def asked(tokens: int | None, device: str = "cpu") -> Assignment:
    return Assignment("m", "/m", "auto", 0, 2, device, 1, Limits(kv_cache_tokens=tokens, block_tokens=16))


def facts(free_bytes: int) -> tuple[ShardFacts, ...]:
    one = ShardFacts(0, 0, 10, 100, BYTES, free_bytes, (), 0.0, 0)
    return (one, replace(one, rank=1))


def test_what_is_asked_is_given_in_whole_blocks() -> None:
    assert kv_blocks(asked(17), facts(2**20), 100) == 2


@pytest.mark.parametrize(("device", "room"), [("cpu", 512), ("cuda:0", 1024)])
def test_more_than_there_is_memory_for_is_refused_with_what_fits(device: str, room: int) -> None:
    """Ranks on the processor share its memory; each GPU has its own."""
    assert kv_blocks(asked(room, device), facts(room * BYTES * (2 if device == "cpu" else 1)), 100) == room // 16
    with pytest.raises(SettingsInvalid, match=f"kv_cache_tokens: {2**30} is not .* memory for {room} beside"):
        kv_blocks(asked(2**30, device), facts(2**20), 100)


def test_without_memory_for_one_block_there_is_no_cache() -> None:
    with pytest.raises(ModelInvalid, match="no memory for a KV cache"):
        kv_blocks(asked(None), facts(1024), 100)


def test_what_no_machine_holds_is_refused_before_any_is_asked() -> None:
    with pytest.raises(ValueError, match="4294967296"):
        Limits(kv_cache_tokens=10**15)
