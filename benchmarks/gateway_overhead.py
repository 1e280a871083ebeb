"""What do HTTP, the gateway and the link cost over the bare engine, for the same load on the same gang?

    python -m benchmarks.gateway_overhead [--model FOLDER] [--ranks N] [--seconds N] [--rounds N]

At 1, 8 and 32 streams (64 tokens in, 64 to 192 out, each stream one request after the other): time to first token and
tokens per second, of the engine driven in this process and through `strata up` on loopback with a client of raw
sockets, in turns, since a machine's speed drifts. Bars: first token <= engine + 8 ms (p50), tokens per second >= 85 %
of the engine. The client's own work counts against HTTP: it shares the cores. Writes
results/gateway_overhead_<model>_tp<ranks>.json.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import torch
import yaml

from actors.engine import LLM, SamplingParams
from actors.engine.thread import EngineThread
from actors.messages import Delta, Submit
from benchmarks.record import quiet, write
from cluster.errors import StrataError

STREAMS = (1, 8, 32)
PROMPT, ANSWERS = 64, (64, 192)  # of different lengths, or all streams would end and begin in step
PORT = 18_700


@dataclass
class Figures:
    """One load's outcome."""

    firsts: list[float] = field(default_factory=list)  # seconds to each request's first token
    tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(self.firsts + other.firsts, self.tokens + other.tokens, self.seconds + other.seconds)

    def summary(self) -> dict[str, float]:
        ordered = sorted(self.firsts)
        return {
            "first_token_ms_p50": statistics.median(ordered) * 1e3,
            "first_token_ms_p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3,
            "tokens_per_second": self.tokens / self.seconds,
            "requests": len(ordered),
        }


def bare(llm: LLM, streams: int, seconds: float) -> Figures:
    """The engine on its own thread, as a replica runs it, and each stream's next request posted when its last ended.

    Requests come while a step runs, as they do over HTTP; from the same thread between two steps none would ever wait.
    """
    figures, chance = Figures(), random.Random(streams)
    heard: SimpleQueue[list[Delta]] = SimpleQueue()
    thread = EngineThread(llm.engine, lambda deltas, _: heard.put(deltas.get("bare", [])), heard_lost)
    asked: dict[int, float] = {}
    fresh: set[int] = set()

    def ask(stream: int) -> None:
        prompt = tuple(chance.choices(range(300, 2000), k=PROMPT))
        params = SamplingParams(temperature=0.0, max_tokens=chance.randint(*ANSWERS), ignore_eos=True)
        asked[stream] = time.perf_counter()
        fresh.add(stream)
        thread.post("bare", Submit(stream, prompt, params, seed=0))

    thread.start()
    for stream in range(streams):
        ask(stream)
    live = streams
    began = time.perf_counter()
    while live:
        for delta in heard.get(timeout=60):
            now = time.perf_counter()
            figures.tokens += len(delta.tokens)
            if delta.tokens and delta.id in fresh:
                fresh.discard(delta.id)
                figures.firsts.append(now - asked[delta.id])
            if delta.finish is None:
                continue
            if now - began < seconds:
                ask(delta.id)
            else:
                live -= 1
    figures.seconds = time.perf_counter() - began
    thread.close()
    return figures


def heard_lost(error: StrataError) -> None:
    """A rank died: no figure is worth anything."""
    raise error


async def over_http(key: str, model: str, streams: int, seconds: float) -> Figures:
    """The same load through the front door."""
    figures = Figures()
    began = time.perf_counter()
    await asyncio.gather(*(_stream(key, model, index, began + seconds, figures) for index in range(streams)))
    figures.seconds = time.perf_counter() - began
    return figures


async def _stream(key: str, model: str, index: int, until: float, figures: Figures) -> None:
    chance = random.Random(index)
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    while True:
        wanted = chance.randint(*ANSWERS)
        body = json.dumps(
            {
                "model": model,
                "prompt": chance.choices(range(300, 2000), k=PROMPT),
                "max_tokens": wanted,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        asked = time.perf_counter()
        writer.write(head + body)
        answer = b""
        first = 0.0
        while b"data: [DONE]" not in answer:
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionError(answer[-300:])
            answer += data
            if not first and b"data: {" in answer:
                first = time.perf_counter()
        while not answer.endswith(b"0\r\n\r\n"):
            answer += await reader.read(1 << 16)
        count = int(answer.rsplit(b'"completion_tokens":', 1)[1].split(b",", 1)[0].strip(b" }"))
        if count != wanted:
            raise ValueError(f"{count} tokens instead of {wanted}")
        figures.firsts.append(first - asked)
        figures.tokens += count
        if time.perf_counter() > until:
            writer.close()
            return


def served(model: Path, ranks: int, seconds: float) -> dict[int, Figures]:
    """Start the whole stack, load it, stop it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "strata.yaml"
        settings.write_text(
            yaml.safe_dump(
                {
                    "cluster": {"state_dir": f"{folder}/state", "http_port": PORT, "dashboard": False},
                    "models": [
                        {
                            "name": "bench",
                            "path": str(model.absolute()),
                            "tensor_parallel_size": ranks,
                            "speculation": "off",  # random prompts and weights make guesses come true by chance
                            "shard_cpus": max(1, torch.get_num_threads() // ranks),
                        }
                    ],
                }
            )
        )
        strata = [sys.executable, "-m", "pipelines.cli"]
        try:
            up = subprocess.run(
                [*strata, "up", "--detach", "--json", "-f", settings], capture_output=True, text=True, check=True
            )
            key = json.loads(up.stdout)["key"]
            asyncio.run(over_http(key, "bench", 8, 2.0))
            return {streams: asyncio.run(over_http(key, "bench", streams, seconds)) for streams in STREAMS}
        finally:
            subprocess.run([*strata, "down", "-f", settings], capture_output=True, check=False)


def engine_alone(model: Path, ranks: int, seconds: float) -> dict[int, Figures]:
    """The bare engine, on the same gang of processes."""
    with LLM(model, tensor_parallel_size=ranks, max_num_seqs=64, max_num_batched_tokens=512, speculation="off") as llm:
        bare(llm, 8, 2.0)
        return {streams: bare(llm, streams, seconds) for streams in STREAMS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    quiet()
    alone = {streams: Figures() for streams in STREAMS}
    through = {streams: Figures() for streams in STREAMS}
    for number in range(1, options.rounds + 1):
        for sums, load in ((alone, engine_alone), (through, served)):
            for streams, figures in load(options.model, options.ranks, options.seconds).items():
                sums[streams] += figures
        print(f"round {number} of {options.rounds} done", flush=True)
    rows = []
    heads = (
        ("streams", 8),
        ("engine: ms to first", 20),
        ("http", 8),
        ("more", 8),
        ("tokens/s", 10),
        ("http", 9),
        ("share", 8),
    )
    print("".join(f"{name:>{width}}" for name, width in heads))
    for streams in STREAMS:
        ours, theirs = alone[streams].summary(), through[streams].summary()
        more = theirs["first_token_ms_p50"] - ours["first_token_ms_p50"]
        share = theirs["tokens_per_second"] / ours["tokens_per_second"]
        rows.append({"streams": streams, "engine": ours, "http": theirs, "more_ms": more, "share": share})
        print(
            f"{streams:8}{ours['first_token_ms_p50']:20.1f}{theirs['first_token_ms_p50']:8.1f}{more:8.1f}"
            f"{ours['tokens_per_second']:10.0f}{theirs['tokens_per_second']:9.0f}{share:8.0%}"
        )
    path = write(
        f"gateway_overhead_{options.model.name}_tp{options.ranks}",
        {"model": options.model.name, "ranks": options.ranks, "cores": torch.get_num_threads(), "rows": rows},
    )
    print(f"bars: more <= 8 ms, share >= 85 %; kept in {path}")


if __name__ == "__main__":
    main()
