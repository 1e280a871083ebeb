"""What do keys and values of 8 bits do to decoding at a long context, beside those of bfloat16?

    python -m benchmarks.kv_cache [--size S|M|L] [--contexts 512 2000 4000 8000] [--batch 8] [--steps N] [--threads N]

Milliseconds of a decode step of `--batch` sequences that all have the context already, by the model alone (no engine),
the median of `--steps`; and of a prefill chunk of 256 tokens after it. Both kinds of cache are asked in turn in one
process over the same weights. Contexts beyond what the checkpoint was made for are only read, which costs the same.
Writes results/kv_cache_SIZE.json.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from actors.models import load
from actors.models.batch import Batch
from benchmarks.peers.checkpoint import SHAPES, checkpoint
from benchmarks.record import quiet, write

KINDS = ("auto", "int8")
BLOCK = 16
CHUNK = 256


def batch_of(sequences: int, context: int, count: int) -> Batch:
    """`sequences` that compute `count` tokens each after `context` others; block k of one lies beside those of all."""
    width = -(-(context + count) // BLOCK)
    table = (
        torch.arange(width, dtype=torch.int32)[None] * sequences + torch.arange(sequences, dtype=torch.int32)[:, None]
    )
    positions = torch.arange(context, context + count).repeat(sequences)
    owners = torch.arange(sequences).repeat_interleave(count)
    return Batch(
        tokens=torch.arange(sequences * count) % 1000,
        positions=positions,
        slots=table[owners, positions // BLOCK].long() * BLOCK + positions % BLOCK,
        starts=torch.arange(0, sequences * count + 1, count, dtype=torch.int32),
        contexts=torch.full((sequences,), context + count, dtype=torch.int32),
        tables=table,
        rows=torch.arange(count - 1, sequences * count, count),
        decodes=sequences if count == 1 else 0,
        longest_query=count,
        longest_context=context + count,
        block_tokens=BLOCK,
    )


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--size", choices=tuple(SHAPES), default="M")
    flags.add_argument("--contexts", type=int, nargs="+", default=[512, 2000, 4000, 8000])
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--steps", type=int, default=15)
    flags.add_argument("--threads", type=int, default=1)
    given = flags.parse_args()
    torch.set_num_threads(given.threads)
    before = quiet()
    models = {kind: load(checkpoint(given.size), dtype="bfloat16", kv_cache_dtype=kind) for kind in KINDS}
    rows = [row for context in given.contexts for row in measure(models, context, given.batch, given.steps)]
    report(given, rows, {kind: model.kv_bytes_per_token for kind, model in models.items()})
    shape = {"size": given.size, "batch": given.batch, "threads": given.threads, "load_before": before}
    print(write(f"kv_cache_{given.size}", {**shape, "rows": rows}))


def measure(models: dict[str, Any], context: int, sequences: int, steps: int) -> list[dict[str, Any]]:
    """Decoding of all sequences, then prefill of one."""
    blocks = sequences * -(-(context + CHUNK) // BLOCK)
    for model in models.values():
        model.allocate(blocks, BLOCK)
        fill(model)
    work = {"decode": batch_of(sequences, context, 1), "prefill": batch_of(1, context, CHUNK)}
    made = []
    for name, batch in work.items():
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(steps if name == "decode" else max(3, steps // 5)):
            for kind in KINDS:
                began = time.perf_counter()
                models[kind].forward(batch)
                seconds[kind].append(time.perf_counter() - began)
        medians = {f"{kind}_ms": 1000 * statistics.median(times) for kind, times in seconds.items()}
        made.append({"work": name, "context": context, **medians})
    return made


def fill(model: Any) -> None:
    """Numbers everywhere: what nobody wrote to has no memory of its own yet."""
    new = torch.randn(4096, *model.caches[0][0].shape[1:]).to(model.dtype)
    for layer in model.caches:
        for cache in layer:
            for start in range(0, len(cache.numbers), len(new)):
                slots = torch.arange(start, min(start + len(new), len(cache.numbers)))
                cache.write(slots, new[: len(slots)])


def report(given: argparse.Namespace, rows: list[dict[str, Any]], bytes_per_token: dict[str, int]) -> None:
    title = f"{given.size}, batch {given.batch}, {given.threads} threads; bytes a token: {bytes_per_token}"
    table = Table("work", "context", "bfloat16 ms", "int8 ms", "times", title=title)
    for row in rows:
        floats, integers = row["auto_ms"], row["int8_ms"]
        table.add_row(row["work"], str(row["context"]), f"{floats:.1f}", f"{integers:.1f}", f"{floats / integers:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
