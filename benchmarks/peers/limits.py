"""What no engine can exceed on this machine: bytes at the rate they stream, products at the rate registers make them.

Knows arithmetic and how to run the probe. The rates are measured in the same run as the engines, by probe.cpp beside.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.checkpoint import CACHE
from benchmarks.peers.workload import COLUMNS, shape

LOST = 0.25  # of the time, by two threads that wait for each other
PATIENCE = 12  # looks, half a second apart
PROBE = Path(__file__).with_name("probe.cpp")
# Bytes that a weight takes: bf16; a byte; half a byte and a scale of 16 bits for each 32 weights, as Q4_0 has it.
WEIGHT_BYTES = {"none": 2.0, "int8": 1.0, "int4": 0.5625}
RATE = {"none": "bf16_gflops", "int8": "int8_gops", "int4": "int8_gops"}  # weights of 4 bits multiply as bytes


@dataclass(frozen=True)
class Work:
    """What a model asks of a machine. Weights: of the layers, and of the head, of which a prompt needs one row."""

    layers: int
    head: int

    def bytes(self, precision: str) -> float:
        """Read for a step, keys and values left out."""
        return (self.layers + self.head) * WEIGHT_BYTES[precision]


def work(config: dict[str, Any]) -> Work:
    """Of a Llama or Qwen3 shape, attention's own products left out."""
    hidden, wide = config["hidden_size"], config["head_dim"]
    heads = config["num_attention_heads"] + config["num_key_value_heads"]
    layer = 2 * hidden * wide * heads + 3 * hidden * config["intermediate_size"]
    return Work(layer * config["num_hidden_layers"], hidden * config["vocab_size"])


def limits(work: Work, precision: str, rates: dict[str, float]) -> dict[str, float]:
    """Tokens a second of each column: a step costs its bytes or its products, whichever takes longer."""
    streamed = rates["stream_gb"] * 1e9
    # a machine without instructions for a type multiplies it by those that it has
    products = max(rates[RATE[precision]], rates["bf16_gflops"], rates["float32_gflops"]) * 1e9

    def step(tokens: int, rows: int) -> float:
        needed = 2 * (work.layers * tokens + work.head * rows)
        return max(work.bytes(precision) / streamed, needed / products)

    found = {}
    for column in COLUMNS:
        sequences, tokens_in, tokens_out = shape(column)
        seconds = step(sequences * tokens_in, sequences) + (tokens_out - 1) * step(sequences, sequences)
        found[column] = (tokens_in if column == "prefill" else sequences * tokens_out) / seconds
    return found


class Probe:
    """probe.cpp, compiled. Without a compiler it knows no limits and takes every moment for a quiet one."""

    def __init__(self) -> None:
        compiler = shutil.which("g++") or shutil.which("c++")
        self._program = CACHE / f"probe-{hashlib.sha256(PROBE.read_bytes()).hexdigest()[:12]}" if compiler else None
        if self._program is not None and not self._program.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            part = self._program.with_suffix(f".{os.getpid()}")
            flags = ["-O2", "-march=native", "-std=c++17", "-pthread"]
            subprocess.run([str(compiler), *flags, str(PROBE), "-o", str(part)], check=True, capture_output=True)
            part.replace(self._program)

    def rates(self, threads: int, size: float) -> dict[str, float] | None:
        """Measured now, streams over `size` bytes."""
        return self._run(str(threads), str(int(size)))

    def steady(self, patient: bool = False) -> bool:
        """Whether two threads of this moment run at once, as engines that share a product between them need.

        `patient`: wait until they do, for some seconds.
        """
        for _ in range(PATIENCE if patient else 1):
            found = self._run()
            if found is None or found["lost"] < LOST:
                return True
            if patient:
                time.sleep(0.4)
        return False

    def _run(self, *words: str) -> dict[str, float] | None:
        if self._program is None:
            return None
        done = subprocess.run([self._program, *words], check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found
