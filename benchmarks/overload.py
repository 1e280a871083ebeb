"""What becomes of answers and refusals when five times as much is asked as can be served?

    python -m benchmarks.overload [--model FOLDER] [--ranks N] [--seconds N] [--times N]
                                 [--stretch N]

The whole stack on loopback, and clients that ask at random instants whatever became of what they asked before (an open
loop; prompts of 64 tokens drawn by lot, answers of 128 to 384): one at a time, then as much as can be served (the best
of 8 to 64 clients that each ask again at once), half of that, `--times` that, and half again. Bars: at five times the
tokens of whole answers are >= 90 % of the most, 99 % of answers that were let in take at most twice what they take at
half the load, 99 % of refusals come within 50 ms, and 5 s after it all is as before. The clients share the cores with
all they measure, which counts against us. Writes results/overload_<model>_tp<ranks>.json.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.record import quiet, write

PORT = 18_720
ANSWERS = (128, 384)
MEAN = sum(ANSWERS) / 2
STREAMS = (8, 16, 32, 64)  # clients, where the most that can be served is looked for
SETTLED_SECONDS = 10.0  # after which a queue that does not drain is known to stand
NORMAL_SECONDS = 5.0  # after which all is to be as before
CONNECTIONS = 512  # at most, of one phase: what comes beyond is not sent, and told
PROMPT = 64  # tokens


@dataclass(slots=True)
class Asked:
    """One request, all times in seconds on the client's clock. `status` 0: it failed."""

    at: float
    wanted: int
    status: int = 0
    tokens: int = 0
    first: float = 0.0
    ended: float = 0.0
    retry_after: int = 0
    why: str = ""


@dataclass
class Door:
    """The gateway, over connections that are kept."""

    key: str
    model: str
    vocabulary: int
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    open: int = 0

    async def ask(self) -> Asked:
        """One answer; what became of it."""
        asked = Asked(time.perf_counter(), self.chance.randint(*ANSWERS))
        request = self._request(asked.wanted)
        self.open += 1
        try:
            pair = self._kept() or await asyncio.open_connection("127.0.0.1", PORT)
            pair[1].write(request)
            async with asyncio.timeout(60):
                await _hear(pair[0], asked)
            self.idle.append(pair)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            asked.status, asked.why = 0, f"{type(error).__name__}: {error}"
        finally:
            self.open -= 1
        return asked

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that the gateway has not closed meanwhile."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()

    def _request(self, wanted: int) -> bytes:
        body = json.dumps(
            {
                "model": self.model,
                "prompt": self.chance.choices(range(self.vocabulary), k=PROMPT),
                "max_tokens": wanted,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
            }
        ).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def _hear(reader: asyncio.StreamReader, asked: Asked) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    asked.status = int(head.split(b" ", 2)[1])
    if asked.status != 200:
        headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        await reader.readexactly(int(headers[b"content-length"]))
        asked.retry_after = int(headers.get(b"retry-after", 0))
        asked.ended = time.perf_counter()
        return
    tail = b""
    while not tail.endswith(b"0\r\n\r\n"):
        data = await reader.read(1 << 16)
        if not data:
            raise ValueError("cut")
        asked.first = asked.first or time.perf_counter()
        tail = (tail + data)[-512:]
    asked.ended = time.perf_counter()
    if b"[DONE]" not in tail:
        raise ValueError("an error in the stream")
    asked.tokens = asked.wanted


async def closed(door: Door, streams: int, seconds: float) -> list[Asked]:
    """So many clients that each ask again as soon as they were answered."""
    heard: list[Asked] = []
    until = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < until:
            asked = await door.ask()
            heard.append(asked)
            if asked.status != 200:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(streams)))
    return heard


async def opened(door: Door, rate: float, seconds: float) -> tuple[list[Asked], int]:
    """So many a second at random instants; also how many were not sent, as too many were under way."""
    chance, tasks, unsent = random.Random(2), [], 0
    began = at = time.perf_counter()
    while True:
        at += chance.expovariate(rate)
        if at > began + seconds:
            break
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        if door.open >= CONNECTIONS:
            unsent += 1
            continue
        tasks.append(asyncio.create_task(door.ask()))
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    return list(await asyncio.gather(*tasks)), unsent


def summary(heard: list[Asked], since: float, until: float) -> dict[str, Any]:
    """Of what was asked from `since` on; tokens are those of whole answers, as far as they came until `until`."""
    whole = [each for each in heard if each.tokens]
    refused = [each for each in heard if each.status in (429, 503)]
    failed = [each for each in heard if not each.tokens and each.status not in (429, 503)]
    tokens = sum(each.tokens * _before(each, until) for each in whole)
    return {
        "asked_per_second": len(heard) / (until - since),
        "tokens_per_second": tokens / (until - since),
        "whole": len(whole),
        "refused": len(refused),
        "failed": len(failed),
        "first_ms_p50": _ms([each.first - each.at for each in whole], 50),
        "first_ms_p99": _ms([each.first - each.at for each in whole], 99),
        "whole_ms_p50": _ms([each.ended - each.at for each in whole], 50),
        "whole_ms_p99": _ms([each.ended - each.at for each in whole], 99),
        "refusal_ms_p50": _ms([each.ended - each.at for each in refused], 50),
        "refusal_ms_p99": _ms([each.ended - each.at for each in refused], 99),
        "why": Counter(each.why or f"status {each.status}" for each in failed),
    }


def _before(asked: Asked, until: float) -> float:
    """The share of its tokens that came until then, as if they had come evenly."""
    return min(1.0, max(0.0, (until - asked.first) / max(1e-9, asked.ended - asked.first)))


def _ms(seconds: list[float], share: float) -> float:
    return 1e3 * float(np.percentile(seconds, share)) if seconds else 0.0


async def phases(door: Door, seconds: float, times: float) -> dict[str, dict[str, Any]]:
    """All of it, one after the other."""
    rows: dict[str, dict[str, Any]] = {}

    async def measured(name: str, work: Any, lasts: float) -> list[Asked]:
        began = time.perf_counter()
        heard = await work
        heard, unsent = heard if isinstance(heard, tuple) else (heard, 0)
        rows[name] = summary(heard, began, began + lasts) | {"unsent": unsent}
        _show(name, rows[name])
        return list(heard)

    def split(name: str, heard: list[Asked], began: float, first: float, lasts: float) -> None:
        """A row of who came in the `first` seconds of a phase, and one of the others."""
        for when, since, until in ((f"first {first:g} s", 0.0, first), ("after that", first, lasts)):
            came = [each for each in heard if began + since <= each.at < began + until]
            row = rows[f"{name}, {when}"] = summary(came, began + since, began + until) | {"unsent": 0}
            _show(f"{name}, {when}", row)

    await closed(door, 8, 3.0)
    await measured("one at a time", closed(door, 1, 15.0), 15.0)
    lasts = max(10.0, 0.01 * rows["one at a time"]["whole_ms_p50"])
    for streams in STREAMS:
        await measured(f"{streams} clients", closed(door, streams, lasts), lasts)
    most = max(rows[f"{streams} clients"]["tokens_per_second"] for streams in STREAMS)
    if not most:
        raise SystemExit("nothing was answered in time: this machine is too slow for the model, take a smaller one")
    rate = most / MEAN
    calm = max(30.0, 0.04 * rows["one at a time"]["whole_ms_p50"])
    await measured("half", opened(door, 0.5 * rate, calm), calm)
    over = f"{times:g} times"
    began = time.perf_counter()
    split(over, await measured(over, opened(door, times * rate, seconds), seconds), began, SETTLED_SECONDS, seconds)
    began = time.perf_counter()
    after, _ = await opened(door, 0.5 * rate, calm)
    split("half", after, began, NORMAL_SECONDS, calm)
    door.close()
    return rows


def _show(name: str, row: dict[str, Any]) -> None:
    print(
        f"{name:22}{row['asked_per_second']:8.1f}{row['tokens_per_second']:10.0f}{row['whole']:8.0f}{row['refused']:9.0f}"
        f"{row['failed']:8.0f}{row['first_ms_p50']:11.0f}{row['first_ms_p99']:7.0f}"
        f"{row['whole_ms_p50']:11.0f}{row['whole_ms_p99']:7.0f}{row['refusal_ms_p50']:13.1f}{row['refusal_ms_p99']:8.1f}",
        flush=True,
    )
    for why, count in row["why"].items():
        print(f"  {count} failed: {why}")


def served(
    model: Path, ranks: int, seconds: float, times: float, limits: Mapping[str, float]
) -> dict[str, dict[str, Any]]:  # fmt: skip
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
                            "speculation": "off",  # guesses come true by chance where words are drawn by lot
                            "shard_cpus": max(1, torch.get_num_threads() // ranks),
                            "limits": dict(limits),
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
            words = json.loads((model / "config.json").read_text())["vocab_size"]
            return asyncio.run(phases(Door(json.loads(up.stdout)["key"], "bench", words), seconds, times))
        finally:
            subprocess.run([*strata, "down", "-f", settings], capture_output=True, check=False)


def verdicts(rows: dict[str, dict[str, Any]], times: float) -> dict[str, float]:
    """The figures that the bars are about."""
    most = max(rows[f"{streams} clients"]["tokens_per_second"] for streams in STREAMS)
    half, over, after = rows["half"], rows[f"{times:g} times"], rows["half, after that"]
    alone, settled = rows["one at a time"], rows[f"{times:g} times, after that"]
    return {
        "goodput_share": over["tokens_per_second"] / most,
        "first_p99_times_half": over["first_ms_p99"] / half["first_ms_p99"],
        "whole_p99_times_half": over["whole_ms_p99"] / half["whole_ms_p99"],
        "settled_whole_p99_times_half": settled["whole_ms_p99"] / half["whole_ms_p99"],
        "first_p99_times_alone": over["first_ms_p99"] / alone["first_ms_p99"],
        "whole_p99_times_alone": over["whole_ms_p99"] / alone["whole_ms_p99"],
        "refusal_ms_p99": over["refusal_ms_p99"],
        "after_first_p99_times_half": after["first_ms_p99"] / half["first_ms_p99"],
        "after_whole_p99_times_half": after["whole_ms_p99"] / half["whole_ms_p99"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--stretch", type=float, help="limits.batch_stretch, where it is not to be as it is by itself")
    options = parser.parse_args()
    load = quiet()
    print(f"{'':22}{'asked/s':>8}{'tokens/s':>10}{'whole':>8}{'refused':>9}{'failed':>8}", end="")
    print(f"{'first p50':>11}{'p99':>7}{'whole p50':>11}{'p99':>7}{'refusal p50':>13}{'p99 ms':>8}")
    limits = {} if options.stretch is None else {"batch_stretch": options.stretch}
    rows = served(options.model, options.ranks, options.seconds, options.times, limits)
    told = verdicts(rows, options.times)
    for name, value in told.items():
        print(f"{name:30}{value:8.2f}")
    result = {"model": options.model.name, "ranks": options.ranks, "seconds": options.seconds}
    result |= {"limits": limits, "rows": rows, **told}
    print(f"kept in {write(f'overload_{options.model.name}_tp{options.ranks}', result, load_before=load)}")


if __name__ == "__main__":
    main()
