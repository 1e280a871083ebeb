"""What does a long prompt cost those who read along, and what does a second turn of a long conversation cost?

    python -m benchmarks.long_prompts [--model M | FOLDER] [--quantization int8] [--ranks 1] [--rounds N]

Streams: sixteen answers run, a prompt of 4,000 tokens (or what the model takes) arrives. The gaps between an answer's
tokens, in milliseconds, before it arrives and until its first token; by a fixed budget of tokens and by the pace.
Second turn: a conversation of 2,000 tokens, its answer of 64 and 32 more; seconds to the first token of that beside
those of the first turn. Writes results/long_prompts_MODEL_QUANTIZATION_tpRANKS.json.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from actors.engine import LLM, SamplingParams
from actors.engine.loop import Engine
from actors.messages import Submit
from benchmarks.peers.checkpoint import SHAPES, checkpoint
from benchmarks.record import quiet, write

STREAMS, SHORT = 16, 64
CALM = 120  # tokens of each stream without a prompt, to compare with
FIXED = 512  # tokens in a step, as a server has it
ANSWER, NEXT = 64, 32
CACHE_TOKENS = 65_536
VOCABULARY = 3_000  # the smallest model's
PACES: dict[str, float | None] = {"fixed": None, "paced": 2.0}


@dataclass
class Heard:
    """When tokens of each sequence came, and how many at a time."""

    at: dict[int, list[tuple[float, int]]] = field(default_factory=dict)

    def step(self, engine: Engine) -> None:
        """Let the engine make one and note what it brought."""
        deltas = engine.step()
        now = time.perf_counter()
        for key, delta in deltas:
            assert delta.error is None, delta.error
            if delta.tokens:
                self.at.setdefault(key, []).append((now, len(delta.tokens)))

    def tokens(self, key: int) -> int:
        """How many came of one."""
        return sum(count for _, count in self.at.get(key, ()))

    def gaps(self, keys: Sequence[int], since: float, until: float) -> list[tuple[float, int]]:
        """Milliseconds that `keys` waited for what came in that time, and how many tokens it was."""
        return [
            (1e3 * (after - before), count)
            for key in keys
            for (before, _), (after, count) in zip(self.at[key], self.at[key][1:], strict=False)
            if since < after <= until
        ]


@dataclass
class Arrival:
    """Gaps before and while a long prompt is computed, and its first token's seconds."""

    calm: list[tuple[float, int]]
    busy: list[tuple[float, int]]
    first_token: float


class Bench:
    """One engine; prompts are fresh random tokens, so that nothing is found in a cache but what is meant to be."""

    def __init__(self, folder: Path, stretch: float | None, options: argparse.Namespace) -> None:
        self.llm = LLM(
            folder,
            dtype="bfloat16",
            quantization=options.quantization,
            tensor_parallel_size=options.ranks,
            max_num_seqs=STREAMS + 2,
            max_num_batched_tokens=FIXED,
            kv_cache_tokens=CACHE_TOKENS,
            speculation="off",
            gap_stretch=stretch,
        )
        self._engine = self.llm.engine
        self._chance = random.Random(options.seed)

    def arrival(self, tokens: int) -> Arrival:
        """Let `tokens` arrive among the streams; ends when their first token is there."""
        streams = [self._add(self._prompt(SHORT), tokens - SHORT) for _ in range(STREAMS)]
        heard = Heard()
        while min(map(heard.tokens, streams)) < CALM:
            heard.step(self._engine)
        first = max(heard.at[key][0][0] for key in streams)
        came = time.perf_counter()
        late = self._add(self._prompt(tokens), 1)
        while late not in heard.at:
            heard.step(self._engine)
        done = heard.at[late][0][0]
        for key in streams:
            self._engine.cancel(key)
        return Arrival(heard.gaps(streams, first, came), heard.gaps(streams, came, done), done - came)

    def turns(self, tokens: int) -> tuple[float, float, int]:
        """Seconds to the first token of a conversation's first and second turn; tokens that the second found."""
        prompt = self._prompt(tokens)
        first, answer, _ = self._turn(prompt, ANSWER)
        second, _, cached = self._turn([*prompt, *answer, *self._prompt(NEXT)], 1)
        return first, second, cached

    def _turn(self, prompt: Sequence[int], answer: int) -> tuple[float, list[int], int]:
        began = time.perf_counter()
        self._add(prompt, answer)
        tokens: list[int] = []
        took, cached = 0.0, 0
        while self._engine.busy:
            for _, delta in self._engine.step():
                took = took or time.perf_counter() - began
                cached = cached or delta.cached_tokens
                tokens += delta.tokens
        return took, tokens, cached

    def _add(self, prompt: Sequence[int], answer: int) -> int:
        params = SamplingParams(temperature=0.0, max_tokens=answer, ignore_eos=True)
        return self._engine.add(Submit(0, tuple(prompt), params, seed=0))

    def _prompt(self, tokens: int) -> list[int]:
        return [self._chance.randrange(10, VOCABULARY) for _ in range(tokens)]


def percentile(values: Sequence[float], share: float) -> float:
    """Of `values`, the one that `share` of them are below."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(arrivals: Sequence[Arrival]) -> dict[str, float]:
    """Gaps of all arrivals together; the first token's median.

    A gap is what a reader waits for the next tokens, as clients measure it; where short steps run several to a plan,
    that brings more than one. `token`: the same, shared out among them.
    """
    row: dict[str, float] = {}
    for name in ("calm", "busy"):
        found: list[tuple[float, int]] = [gap for arrival in arrivals for gap in getattr(arrival, name)]
        waited = [milliseconds for milliseconds, _ in found]
        shared = [milliseconds / count for milliseconds, count in found for _ in range(count)]
        row |= {
            f"{name}_p50_ms": percentile(waited, 0.5),
            f"{name}_p99_ms": percentile(waited, 0.99),
            f"{name}_token_p50_ms": percentile(shared, 0.5),
            f"{name}_token_p99_ms": percentile(shared, 0.99),
        }
    return row | {
        "p99_ratio": row["busy_p99_ms"] / row["calm_p99_ms"],
        "token_p99_ratio": row["busy_token_p99_ms"] / row["calm_token_p99_ms"],
        "p50_ratio": row["busy_p50_ms"] / row["calm_p50_ms"],
        "first_token_seconds": statistics.median(arrival.first_token for arrival in arrivals),
    }


def streams(benches: dict[str, Bench], tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Both ways in turns; the first of each warms up."""
    arrivals: dict[str, list[Arrival]] = {name: [] for name in benches}
    for number in range(rounds + 1):
        for name in sorted(benches, reverse=bool(number % 2)):
            arrival = benches[name].arrival(tokens)
            if number:
                arrivals[name].append(arrival)
    print(f"{STREAMS} streams, then {tokens} tokens: gaps in ms, 99th percentile's ratio also by token")
    print(
        f"{'':8}" + "".join(f"{name:>12}" for name in ("calm p50", "p99", "busy p50", "p99", "ratio", "by token", ""))
    )
    rows = {name: summary(found) for name, found in arrivals.items()}
    for name, row in rows.items():
        gaps = "".join(f"{row[f'{when}_ms']:12.2f}" for when in ("calm_p50", "calm_p99", "busy_p50", "busy_p99"))
        ratios = f"{row['p99_ratio']:11.2f}x{row['token_p99_ratio']:11.2f}x"
        print(f"{name:8}{gaps}{ratios}   first token {row['first_token_seconds']:.3f} s", flush=True)
    return rows


def second_turns(bench: Bench, tokens: int, rounds: int) -> dict[str, float]:
    """Medians; the share is that of each conversation."""
    turns = [bench.turns(tokens) for _ in range(rounds + 1)][1:]
    row = {
        "first_turn_seconds": statistics.median(first for first, _, _ in turns),
        "second_turn_seconds": statistics.median(second for _, second, _ in turns),
        "share": statistics.median(second / first for first, second, _ in turns),
        "second_turn_tokens": float(tokens + ANSWER + NEXT),
        "cached_tokens": statistics.median(cached for _, _, cached in turns),
    }
    print(
        f"a conversation of {tokens} tokens: first token after {row['first_turn_seconds']:.4f} s, of the second turn "
        f"after {row['second_turn_seconds']:.4f} s: {row['share']:.1%}"
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="M", help="a size of the random checkpoints, or a folder")
    parser.add_argument("--quantization", choices=("int8", "int4"))
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    quiet()
    torch.set_num_threads(options.threads)
    folder = checkpoint(options.model) if options.model in SHAPES else Path(options.model)
    benches = {name: Bench(folder, stretch, options) for name, stretch in PACES.items()}
    context = benches["paced"].llm.engine.capacity
    long, talk = min(4_000, context - 16), min(2_000, context - ANSWER - NEXT - 16)
    result: dict[str, Any] = {
        "model": folder.name,
        "quantization": options.quantization,
        "ranks": options.ranks,
        "threads": options.threads,
        "prompt_tokens": long,
        "streams": streams(benches, long, options.rounds),
        "conversation_tokens": talk,
        "second_turn": second_turns(benches["paced"], talk, options.rounds),
    }
    for bench in benches.values():
        bench.llm.close()
    name = options.model if options.model in SHAPES else folder.name
    kept = write(f"long_prompts_{name}_{options.quantization or 'none'}_tp{options.ranks}", result)
    print(f"kept in {kept}")


if __name__ == "__main__":
    main()
