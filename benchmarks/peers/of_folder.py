"""The peers that are installed, on any model folder, for `strata bench`: JSON lines on standard output.

    python -m benchmarks.peers.of_folder FOLDER none|int8|int4 VOCABULARY PROMPT_TOKENS MAX_TOKENS REQUESTS STREAMS ...

A peer takes as many requests as there are streams as one batch, and what is left as a smaller one. One that cannot be
had says why and is left at that.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from benchmarks.peers import environments
from benchmarks.peers.catalogue import PEERS, ROOT, CannotPrepare, Peer
from benchmarks.peers.environments import NotInstallable
from benchmarks.peers.process import Engine, EngineFailed
from benchmarks.peers.workload import Order, prompts

LOAD_SECONDS, ANSWER_SECONDS = 600.0, 600.0


def main(words: list[str]) -> None:
    folder, precision = Path(words[0]).resolve(), words[1]
    vocabulary, tokens_in, tokens_out, requests, *levels = map(int, words[2:])
    for name, peer in PEERS.items():
        _say(peer=name, title=peer.title)
        try:
            _peer(name, peer, folder, precision, (vocabulary, tokens_in, tokens_out), requests, levels)
        except (CannotPrepare, NotInstallable, EngineFailed) as wrong:
            _say(peer=name, failed=str(wrong))


def batches(requests: int, streams: int) -> list[int]:
    """How many requests go together, so that all are made and none besides."""
    whole, left = divmod(requests, streams)
    return [streams] * whole + [left] * bool(left)


def _peer(
    name: str, peer: Peer, folder: Path, precision: str, shape: tuple[int, int, int], requests: int, levels: list[int]
) -> None:
    if precision not in peer.weights:
        raise CannotPrepare(f"has no {precision} here")
    if peer.environment is not None and environments.python(peer.environment) is None:
        again = "python -m benchmarks.engine_throughput --prepare --size S --peers " + name
        raise CannotPrepare(f"not installed; `{again}` installs it")
    path = peer.prepare(folder, precision)
    vocabulary, tokens_in, tokens_out = shape
    threads = _threads()
    with Engine(peer.title, peer.command(), peer.surroundings(threads), ROOT) as engine:
        most = max(levels)
        longest = tokens_in + tokens_out + 16  # a block more
        order = Order(str(path), threads, None, sequences=most, longest=longest, cached=most * longest)
        _, seconds = engine.load(order, LOAD_SECONDS)
        for streams in levels:
            roll = random.Random(streams)
            engine.generate(prompts(streams, tokens_in, roll, vocabulary), 4, ANSWER_SECONDS)
            begun, taken = time.perf_counter(), []
            for together in batches(requests, streams):
                asked = prompts(together, tokens_in, roll, vocabulary)
                taken.append(engine.generate(asked, tokens_out, ANSWER_SECONDS)[1])
            _say(
                peer=name, streams=streams, requests=requests, load_seconds=seconds,
                answers_ms=[1000 * one for one in taken], tokens=requests * tokens_out,
                seconds=time.perf_counter() - begun,
            )  # fmt: skip


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
