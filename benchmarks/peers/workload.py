"""What every engine is asked, and how it answers. Plain Python: peers import it in their own environments.

An engine is a function `generate(prompts, new_tokens)` that answers greedily, ignores end tokens and gives the new
tokens. Its process reads one JSON line for each thing to do and writes one back:

    {"load": {"path": ..., "threads": 2, ...}}    ->  {"versions": {...}, "seconds": ...}
    {"prompts": [[...], ...], "new_tokens": 128}  ->  {"tokens": [[...], ...], "seconds": ...}
"""

import ctypes
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
PREFILL_TOKENS = 512
PROMPT_TOKENS = 64
NEW_TOKENS = 128
BATCHES = (1, 8, 32)
COLUMNS = ("prefill", *(f"b{batch}" for batch in BATCHES))

Prompts = Sequence[Sequence[int]]
Generate = Callable[[Prompts, int], list[list[int]]]


@dataclass(frozen=True)
class Order:
    """What an engine is to load, on how many threads it may compute, and what it has to have room for."""

    path: str
    threads: int
    quantization: str | None = None  # for engines that quantize while they load
    sequences: int = max(BATCHES)  # at a time
    longest: int = PREFILL_TOKENS + NEW_TOKENS  # tokens of one of them, in and out
    cached: int = max(BATCHES) * (PROMPT_TOKENS + NEW_TOKENS + 64)  # tokens of all together

    def cache_gib(self) -> int:
        """Whole GiB of bf16 keys and values, for engines that take no less."""
        return max(1, -(-self.cached * self._token_bytes // 2**30))

    def cache_tokens(self) -> int:
        """How many tokens that has room for."""
        return self.cache_gib() * 2**30 // self._token_bytes

    @property
    def _token_bytes(self) -> int:
        """A token's keys and values in bf16."""
        config: dict[str, Any] = json.loads((Path(self.path) / "config.json").read_text())
        heads: int = config["num_attention_heads"]
        wide: int = config.get("head_dim") or config["hidden_size"] // heads
        return 4 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads", heads)) * wide


def shape(column: str) -> tuple[int, int, int]:
    """(sequences, tokens in, tokens out) of a column of the table."""
    return (1, PREFILL_TOKENS, 1) if column == "prefill" else (int(column[1:]), PROMPT_TOKENS, NEW_TOKENS)


def counted(column: str) -> int:
    """Tokens of a column that a second's rate is of: those read for prefill, those made for the others."""
    sequences, tokens_in, tokens_out = shape(column)
    return tokens_in if column == "prefill" else sequences * tokens_out


def prompts(sequences: int, tokens: int, roll: random.Random, vocabulary: int = VOCABULARY) -> list[list[int]]:
    """Random ids, so that no prefix cache helps anyone. The first ids are left to those that mean something."""
    return [[roll.randrange(10, vocabulary) for _ in range(tokens)] for _ in range(sequences)]


def serve(load: Callable[[Order], tuple[Generate, dict[str, str]]]) -> None:
    """Answer lines of standard input until it ends."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print to standard output is no answer
    generate: Generate | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        begun = time.perf_counter()
        if "load" in asked:
            generate, versions = load(Order(**asked["load"]))
            answer: dict = {"versions": versions}
        else:
            assert generate is not None, "nothing is loaded yet"
            answer = {"tokens": generate(asked["prompts"], asked["new_tokens"])}
        answer["seconds"] = time.perf_counter() - begun
        print(json.dumps(answer), file=answers, flush=True)


def _end_with_parent() -> None:
    """A benchmark that is killed leaves nothing behind, not even stopped; where Linux' libc is not found it may."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return
