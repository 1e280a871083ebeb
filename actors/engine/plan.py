"""What the leader tells the shards to do in one step, and what comes back. Bytes on the wire are msgpack.

A decode row costs 4 x 4 bytes here and nothing else: tokens and block ids that a shard already has are not sent
again. A shard keeps a mirror of every slot (tokens, block table) that `joins`, `blocks` and `inputs` keep up.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import msgpack
import numpy as np

from actors.messages import SamplingParams, TokenLogprob

INT32 = np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class Join:
    """A sequence takes a slot. `emitted` are output tokens that are already out."""

    slot: int
    prompt: tuple[int, ...]
    emitted: tuple[int, ...]
    params: SamplingParams
    seed: int
    choice: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. Row i computes `counts[i]` tokens of `slots[i]` from position `starts[i]`; rows of decodes come first.

    leaves: slots given up since the last step (before `joins`). blocks: per slot, block ids to append to its table.
    inputs: for each of the first `decodes` rows the token at its position. samples: rows whose next token is wanted.
    steps: where every row is a decode that samples, the ranks may run this many steps before they answer, each fed
    with the tokens of the one before. rooms: tokens that each row may get by that, for which `blocks` has room; with
    guesses that come true a step brings more than one. Empty: as many as steps. saves: (block, place) pairs to copy out
    of the cache before anything is written; loads: (place, block) pairs to copy into it after that.
    """

    number: int
    leaves: tuple[int, ...]
    joins: tuple[Join, ...]
    blocks: tuple[tuple[int, tuple[int, ...]], ...]
    slots: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    inputs: np.ndarray
    samples: np.ndarray
    steps: int = 1
    rooms: np.ndarray = field(default_factory=lambda: np.zeros(0, INT32))
    saves: tuple[tuple[int, int], ...] = ()
    loads: tuple[tuple[int, int], ...] = ()

    @property
    def room(self) -> int:
        """The most tokens that any row may get."""
        return int(self.rooms.max()) if len(self.rooms) else 1

    @property
    def decodes(self) -> int:
        """Rows that compute one token which the leader gives in `inputs`."""
        return len(self.inputs)

    def pack(self) -> bytes:
        """The wire form."""
        joins = [(j.slot, j.prompt, j.emitted, pack_params(j.params), j.seed, j.choice) for j in self.joins]
        arrays = [
            np.asarray(a, INT32).tobytes()
            for a in (self.slots, self.starts, self.counts, self.inputs, self.samples, self.rooms)
        ]
        packed: bytes = msgpack.packb(
            (self.number, self.leaves, joins, self.blocks, self.steps, self.saves, self.loads, *arrays)
        )
        return packed

    @classmethod
    def unpack(cls, wire: bytes | memoryview) -> "Plan":
        """Undo `pack`."""
        number, leaves, joins, blocks, steps, saves, loads, *arrays = msgpack.unpackb(
            wire, use_list=False, strict_map_key=False
        )
        slots, starts, counts, inputs, samples, rooms = (np.frombuffer(a, INT32) for a in arrays)
        made = tuple(Join(s, p, e, unpack_params(w), seed, choice) for s, p, e, w, seed, choice in joins)
        return cls(number, leaves, made, blocks, slots, starts, counts, inputs, samples, steps, rooms, saves, loads)


@dataclass(frozen=True, slots=True)
class Result:
    """What rank 0 answers: the tokens of each row in `Plan.samples`, row after row, and where the time went."""

    number: int
    tokens: list[int]
    logprobs: list[TokenLogprob | None] | None = None
    forward_seconds: float = 0.0
    sample_seconds: float = 0.0
    fault: str | None = None
    faulty: tuple[int, ...] = ()  # rows whose last token is none: their logits were no numbers
    steps: int = 1  # how many were run
    stuck: tuple[int, ...] = ()  # those of `faulty` whose constraint became too complex to follow
    counts: tuple[int, ...] = ()  # tokens of each row
    load_seconds: float = 0.0  # that the plan's `loads` took, beside all else
    lost: tuple[int, ...] = ()  # places that were to be saved to and hold nothing

    def pack(self) -> bytes:
        """The wire form."""
        logprobs = None
        if self.logprobs is not None:
            logprobs = [p and (p.token, p.logprob, p.top) for p in self.logprobs]
        tokens = np.asarray(self.tokens, INT32).tobytes()
        packed: bytes = msgpack.packb(
            (
                self.number,
                tokens,
                logprobs,
                self.forward_seconds,
                self.sample_seconds,
                self.fault,
                self.faulty,
                self.steps,
                self.stuck,
                self.counts,
                self.load_seconds,
                self.lost,
            )
        )
        return packed

    @classmethod
    def unpack(cls, wire: bytes | memoryview) -> "Result":
        """Undo `pack`."""
        number, tokens, logprobs, *rest = msgpack.unpackb(wire, use_list=False)
        made = None if logprobs is None else [p and TokenLogprob(*p) for p in logprobs]
        return cls(number, np.frombuffer(tokens, INT32).tolist(), made, *rest)


_DEFAULTS = asdict(SamplingParams())


def pack_params(params: SamplingParams) -> dict[str, Any]:
    """The fields that differ from the defaults."""
    return {name: value for name, default in _DEFAULTS.items() if (value := getattr(params, name)) != default}


def unpack_params(wire: dict[str, Any]) -> SamplingParams:
    """Undo `pack_params`."""
    return SamplingParams(**wire)
