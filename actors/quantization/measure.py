"""Measure a folder with the engine itself, in a process of its own: `python -m actors.quantization.measure`.

Reads what to do as JSON from standard input and writes what it found to the file named there. Its memory is then the
model's and not its caller's.
"""

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

import psutil
import torch

from actors.models import Model, load
from actors.models.batch import Batch
from actors.models.kernels import interface
from cluster.errors import StrataError, shorten

SPEED_TOKENS = 48
BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure: perplexity on the `counted` tokens of `rows`, answers to `prompts`, tokens/s at `batches`."""

    folder: str
    dtype: str
    rows: list[list[int]]
    counted: list[list[bool]]
    prompts: list[list[int]] = field(default_factory=list)
    longest_answer: int = 120
    batches: list[int] = field(default_factory=list)
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """`peak_bytes`: how far the process's memory rose while the model was loaded and read a row of tokens."""

    perplexity: float
    load_seconds: float
    peak_bytes: int
    answers: list[str]
    tokens_a_second: dict[str, float]


def measured(wanted: Wanted) -> Found:
    """`measure` in a fresh process. Raises StrataError with what it said last if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "found.json"
        asked = json.dumps({"wanted": asdict(wanted), "into": str(answer)})
        command = [sys.executable, "-m", "actors.quantization.measure"]
        root = Path(__file__).parents[2]  # `-m` looks for packages in the working directory
        done = subprocess.run(command, input=asked, text=True, capture_output=True, check=False, cwd=root)  # noqa: S603
        if done.returncode:
            raise StrataError(f"measuring {wanted.folder} failed: {_why(done)}")
        return Found(**json.loads(answer.read_text("utf-8")))


def _why(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode == -signal.SIGKILL:
        return "its process was killed, as it is where memory runs out"
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return shorten(said[-1], 400) if said else f"its process ended with {done.returncode} and no word"


def measure(wanted: Wanted) -> Found:
    """Load, measure, let go."""
    from actors.engine import LLM, SamplingParams  # noqa: PLC0415  the tokenizer and the scheduler weigh in too

    _warm()
    before, began = _forget_peak(), time.perf_counter()
    model = load(wanted.folder, dtype=wanted.dtype, quantization=wanted.quantization)
    seconds = time.perf_counter() - began
    rows, counted = torch.tensor(wanted.rows), torch.tensor(wanted.counted)
    _read_once(model, rows[:1])
    risen = _peak() - before
    lost = perplexity(model, rows, counted)
    del model
    answers: list[str] = []
    speeds: dict[str, float] = {}
    if wanted.prompts or wanted.batches:
        with LLM(wanted.folder, dtype=wanted.dtype, quantization=wanted.quantization) as llm:
            params = SamplingParams(temperature=0.0, max_tokens=wanted.longest_answer)
            answers = [output.outputs[0].text for output in llm.generate(wanted.prompts, params)]
            for batch in wanted.batches:
                speeds[str(batch)] = _speed(llm, wanted.rows[0][:16], batch)
    return Found(lost, seconds, risen, answers, speeds)


def _warm() -> None:
    """Import and build what any model needs, so that it is not taken for this one's memory."""
    import_module("actors.models.decoder")
    interface.available()


def _forget_peak() -> int:
    """Bytes of this process now, from where its peak is counted from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: the peak is the present size again
    return psutil.Process().memory_info().rss


def _peak() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def perplexity(model: Model, rows: torch.Tensor, counted: torch.Tensor) -> float:
    """Of the `counted` tokens of `rows` [B, T], each row read from its start."""
    model.allocate(_blocks(rows), BLOCK_TOKENS)
    total = 0.0
    for row, counts in zip(rows, counted, strict=True):
        places = counts[1:].nonzero()[:, 0]
        if len(places):
            said = model.forward(prefill(row[None], places)).log_softmax(-1)
            total -= float(said.gather(-1, row[1:][places][:, None]).sum())
    return math.exp(total / max(int(counted[:, 1:].sum()), 1))


def _read_once(model: Model, row: torch.Tensor) -> None:
    """As a prompt is read: one row of logits, which for a large vocabulary are larger than a layer."""
    model.allocate(_blocks(row), BLOCK_TOKENS)
    model.forward(prefill(row, torch.tensor([row.shape[1] - 1])))


def _blocks(rows: torch.Tensor) -> int:
    return -(-rows.shape[1] // BLOCK_TOKENS)


def prefill(rows: torch.Tensor, wanted: torch.Tensor) -> Batch:
    """All of `rows` at once, each a sequence in blocks of its own, with logits of the `wanted` ones of all tokens."""
    (count, width), blocks = rows.shape, _blocks(rows)
    positions = torch.arange(width).repeat(count)
    owner = torch.arange(count).repeat_interleave(width)
    return Batch(
        tokens=rows.reshape(-1),
        positions=positions,
        slots=owner * blocks * BLOCK_TOKENS + positions,
        starts=torch.arange(0, count * width + 1, width, dtype=torch.int32),
        contexts=torch.full((count,), width, dtype=torch.int32),
        tables=torch.arange(count * blocks, dtype=torch.int32).view(count, blocks),
        rows=wanted,
        decodes=0,
        longest_query=width,
        longest_context=width,
        block_tokens=BLOCK_TOKENS,
    )


def _speed(llm: "object", prompt: list[int], batch: int) -> float:
    """Tokens a second that `batch` sequences get together, prompts of 16 tokens included."""
    from actors.engine import LLM, SamplingParams  # noqa: PLC0415

    assert isinstance(llm, LLM)
    prompts = [[*prompt[:-1], index % 64 + 4] for index in range(batch)]
    params = SamplingParams(temperature=0.0, max_tokens=SPEED_TOKENS, ignore_eos=True)
    began = time.perf_counter()
    outputs = llm.generate(prompts, params)
    made = sum(len(output.outputs[0].token_ids) for output in outputs)
    return made / (time.perf_counter() - began)


def main() -> None:
    """The process."""
    asked = json.loads(sys.stdin.read())
    found = measure(Wanted(**asked["wanted"]))
    Path(asked["into"]).write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
