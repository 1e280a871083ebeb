"""How fast is the bare engine beside llama.cpp, OpenVINO, vLLM and Hugging Face on one checkpoint at one precision?

    python -m benchmarks.engine_throughput --peers [NAME ...] [--size S|M|L|all] [--quantization none|int8|int4|all]
                                           [--columns prefill b1 b8 b32] [--threads N] [--repeats N]
    python -m benchmarks.engine_throughput --prepare ...   make environments and weights only
    python -m benchmarks.engine_throughput --report        the table of what was measured

Of 22, 125 or 473 M random parameters, in bf16 or rounded. Greedy, no guesses, no prefix found again, end tokens
ignored; the same room for keys and values, where an engine can be told. Prefill: 512 tokens in, 1 out. Batches of 1,
8 and 32: 64 tokens in, 128 out, prefill included in the time. Tokens per second, medians. Each engine is a process of
its own; the two of a piece are warmed and left alone until they rest, then get the same prompts in turns, once we first
and once the peer first, and whoever waits is stopped. Load time: from the start of the process, imports included. Peak
memory: resident, of the process and its children, mapped files and KV cache included. First of 16: how many first
tokens are those of Hugging Face in float32. A piece is one size, precision and peer, and stands in
results/engine_throughput_SIZE_PRECISION.json, with _avx512 or _avx2 at its end where the processor has no AMX, with the
machine's limits at that time.
"""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from benchmarks.peers import pieces, table, turns
from benchmarks.peers.catalogue import PEERS, PRECISIONS, ROOT, STRATA, CannotPrepare, Peer
from benchmarks.peers.checkpoint import CACHE, SHAPES, checkpoint
from benchmarks.peers.disturbance import Watch, disturbed
from benchmarks.peers.environments import NotInstallable
from benchmarks.peers.limits import Probe, limits, work
from benchmarks.peers.process import Engine, EngineFailed
from benchmarks.peers.turns import Side
from benchmarks.peers.workload import COLUMNS, Order
from benchmarks.record import provenance, quiet

LOAD_SECONDS = 400.0  # vLLM compiles L for more than a minute
REST_SECONDS = 10.0  # some engines spin for good
Failure = (CannotPrepare, NotInstallable, EngineFailed)


def main() -> None:
    """Measure what is asked piece by piece; print the table."""
    options = _options()
    sizes = list(SHAPES) if options.size == "all" else [options.size]
    precisions = PRECISIONS if options.quantization == "all" else (options.quantization,)
    if not options.report:
        for size, precision, name in product(sizes, precisions, options.peers):
            if precision in PEERS[name].weights:
                _one(size, precision, name, options)
    for size in sizes:
        found = {precision: pieces.read(pieces.file(size, precision)) for precision in precisions}
        if any(found.values()):
            print("\n".join(("", table.table(size, found), "", *table.notes(found))))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="which; all without a name")
    parser.add_argument("--size", choices=(*SHAPES, "all"), default="M")
    parser.add_argument("--quantization", choices=(*PRECISIONS, "all"), default="all")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="each is one pass in either order")
    parser.add_argument("--prepare", action="store_true", help="make environments and weights; measure nothing")
    parser.add_argument("--report", action="store_true", help="print what was measured; measure nothing")
    options = parser.parse_args()
    options.peers = options.peers or list(PEERS)
    if not 1 <= options.threads <= len(os.sched_getaffinity(0)):
        parser.error(f"--threads {options.threads}: this machine has {len(os.sched_getaffinity(0))} cores")
    return options


def _one(size: str, precision: str, name: str, options: argparse.Namespace) -> None:
    folder, peer = checkpoint(size), PEERS[name]
    said = {"peer": name, "weights": peer.weights[precision]}
    try:
        reference = _reference(folder, options.threads)
        found = _prepared(folder, precision, peer) if options.prepare else _piece(folder, precision, name, options)
    except Failure as wrong:
        found = {"failed": str(wrong)}
        print(f"{peer.title} {size} {precision}: {wrong}", file=sys.stderr, flush=True)
    if options.prepare:
        return
    for side in ("ours", "theirs"):
        if "first_tokens" in found.get(side, {}):
            found[side]["first_equal"] = turns.equal(found[side].pop("first_tokens"), reference)
    piece = {**said, **provenance(), **found}
    if disturbed(found.get("meanwhile")):
        share = found["meanwhile"]["others"]
        print(f"warning: others had {share:.0%} of the machine; measure this piece again", file=sys.stderr)
    pieces.add(pieces.file(size, precision), piece, size, precision, __doc__.splitlines()[0])


def _prepared(folder: Path, precision: str, peer: Peer) -> dict:
    """Also load once: what an engine compiles at its first start is not what a start costs."""
    with _started(peer, folder, precision, 2) as side:
        turns.warm(side[1], COLUMNS)
    return {}


def _piece(folder: Path, precision: str, name: str, options: argparse.Namespace) -> dict:
    load_before = quiet()
    work_ = work(json.loads((folder / "config.json").read_text("utf-8")))
    probe = Probe()
    measured = probe.rates(options.threads, work_.bytes(precision))
    with ExitStack() as open_:
        sides = []
        for peer in (STRATA, PEERS[name]):
            engine, side = open_.enter_context(_started(peer, folder, precision, options.threads))
            turns.warm(side, options.columns)
            engine.rest(REST_SECONDS)
            sides.append(side)
        watch = Watch([side.engine.pid for side in sides])
        seed = len(pieces.read(pieces.file(_size(folder), precision)))
        taken = turns.alternate(sides, options.columns, options.repeats, seed, probe.steady, _say)
        figures = taken.samples
        meanwhile = watch.found()
        described = {
            key: {
                "samples": figures[side.name],
                "load_seconds": side.load_seconds,
                "first_tokens": turns.first_tokens(side),
                "peak_mb": side.engine.peak_mb(),
                "versions": side.versions,
            }
            for key, side in zip(("ours", "theirs"), sides, strict=True)
        }
    return {
        **described,
        "ratio": turns.ratios(figures[sides[0].name], figures[sides[1].name]),
        "rates": measured,
        "limits": limits(work_, precision, measured) if measured else None,
        "threads": options.threads,
        "load_before": load_before,
        "meanwhile": meanwhile | {"taken_again": taken.again, "unsteady": taken.unsteady},
    }


class _started:  # noqa: N801 - a context, called like a function
    """An engine's process with its weights loaded, as (process, side); ended when left."""

    def __init__(self, peer: Peer, folder: Path, precision: str, threads: int) -> None:
        path = peer.prepare(folder, precision)
        self._engine = Engine(peer.title, peer.command(), peer.surroundings(threads), ROOT)
        rounding = precision if peer.rounds and precision != "none" else None
        self._order = Order(str(path), threads, rounding)
        self._title = peer.title

    def __enter__(self) -> tuple[Engine, Side]:
        try:
            versions, seconds = self._engine.load(self._order, LOAD_SECONDS)
        except BaseException:
            self._engine.close()
            raise
        return self._engine, Side(self._title, self._engine, seconds, versions)

    def __exit__(self, *_: object) -> None:
        self._engine.close()


def _reference(folder: Path, threads: int) -> list[int]:
    """The first tokens in float32, kept beside the checkpoint."""
    file = CACHE / f"{folder.name}.float32.json"
    if not file.is_file():
        peer = PEERS["hugging_face"]
        with Engine(peer.title, peer.command(), peer.surroundings(threads), ROOT) as engine:
            engine.load(Order(str(folder), threads, "float32"), LOAD_SECONDS)
            found = turns.first_tokens(Side("float32", engine, 0.0, {}))
        file.write_text(json.dumps(found), encoding="utf-8")
    tokens: list[int] = json.loads(file.read_text("utf-8"))
    return tokens


def _size(folder: Path) -> str:
    return next(size for size, (name, _, _) in SHAPES.items() if name == folder.name)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
