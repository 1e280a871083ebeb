"""What does one engine step cost beside the model's own arithmetic, at tensor parallel 1 and 2?

    python -m benchmarks.step_overhead [--model FOLDER] [--steps N]

Microseconds per decode step, medians: plan (what to compute), broadcast (the plan to the ranks and the result back,
over shared memory), forward and sample (on rank 0), settle (blocks, ends, deltas) and emit (the frame to a gateway).
Every rank has one core. Writes results/step_overhead.json.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from actors.engine import LLM, SamplingParams
from actors.engine.plan import Plan, Result
from actors.messages import Submit
from actors.wire import pack_frame
from benchmarks.record import quiet, write

PARTS = ("plan", "broadcast", "forward", "sample", "settle", "emit")


class Timed:
    """Notes when the executor was entered and left."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self.entered = self.left = 0.0

    def execute(self, plan: Plan) -> Result:
        self.entered = time.perf_counter()
        result: Result = self._executor.execute(plan)
        self.left = time.perf_counter()
        return result


def measure(model: Path, ranks: int, batch: int, steps: int) -> dict[str, float]:
    """Medians over `steps` decode steps of `batch` sequences, in microseconds."""
    with LLM(
        model, tensor_parallel_size=ranks, max_num_seqs=max(batch, 8), max_model_len=1024, speculation="off"
    ) as llm:
        engine = llm.engine
        engine.executor = timed = Timed(engine.executor)
        params = SamplingParams(temperature=0.0, max_tokens=steps + 50, ignore_eos=True)
        for index in range(batch):
            engine.add(Submit(index, tuple(range(10 + index, 74 + index)), params, seed=0))
        rows = []
        while engine.busy:
            began = time.perf_counter()
            deltas = engine.step()
            ended = time.perf_counter()
            pack_frame([delta for _, delta in deltas], engine.load)
            emitted = time.perf_counter()
            result = engine.last_result
            assert result is not None
            inside = result.forward_seconds + result.sample_seconds
            rows.append(
                [
                    seconds / result.steps
                    for seconds in (
                        timed.entered - began,
                        timed.left - timed.entered - inside,
                        result.forward_seconds,
                        result.sample_seconds,
                        ended - timed.left,
                        emitted - ended,
                    )
                ]
            )
    kept = rows[20 : 20 + steps]
    return {part: statistics.median(row[index] for row in kept) * 1e6 for index, part in enumerate(PARTS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"))
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    quiet()
    figures: dict[str, dict[str, float]] = {}
    print(f"{'':14}" + "".join(f"{part:>11}" for part in PARTS) + f"{'step':>11}   microseconds")
    for ranks in (1, 2):
        torch.set_num_threads(ranks)
        for batch in (1, 8, 32):
            row = measure(options.model, ranks, batch, options.steps)
            figures[f"tp{ranks}_batch{batch}"] = row
            line = "".join(f"{row[part]:11.0f}" for part in PARTS) + f"{sum(row.values()):11.0f}"
            print(f"TP {ranks} batch {batch:<3}{line}", flush=True)
    path = write("step_overhead", {"model": options.model.name, "microseconds": figures})
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
