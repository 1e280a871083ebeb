"""The byte form of what travels between a gateway and a leader: length-prefixed msgpack, never pickle.

A frame carries all that one engine step did for one gateway: one write, one read, one parse a step.
"""

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

from actors.engine.plan import INT32, pack_params, unpack_params
from actors.messages import Cancel, Delta, Frame, Load, Submit, TokenLogprob

MAX_FRAME_BYTES = 64 << 20
_PREFIX = 4
_SUBMIT, _CANCEL = 0, 1


def hello_of(name: str, secret: str) -> bytes:
    """What a gateway says first: the secret, and which replica it means, since ports are used again."""
    return f"{secret}\n{name}".encode()


def pack_command(command: Submit | Cancel) -> bytes:
    """From gateway to leader, length in front."""
    if isinstance(command, Cancel):
        return _framed((_CANCEL, command.id))
    return _framed(
        (
            _SUBMIT,
            command.id,
            np.asarray(command.prompt, INT32).tobytes(),
            pack_params(command.params),
            command.seed,
            command.choice,
            command.salt,
            command.priority,
            command.deadline,
            np.asarray(command.emitted, INT32).tobytes(),
            command.suspect,
        )
    )


def unpack_command(wire: bytes) -> Submit | Cancel:
    """Undo `pack_command`, without the length. Raises ValueError or InvalidRequest for what is none."""
    kind, *fields = msgpack.unpackb(wire, use_list=False, strict_map_key=False)
    if kind == _CANCEL:
        return Cancel(fields[0])
    number, prompt, params, seed, choice, salt, priority, deadline, emitted, suspect = fields
    asked, out = _tokens(prompt), _tokens(emitted)
    return Submit(number, asked, unpack_params(params), seed, choice, salt, priority, deadline, out, suspect)


def pack_frame(deltas: list[Delta], load: Load) -> bytes:
    """From leader to gateway, length in front."""
    return _framed((_pack_load(load), [_pack_delta(delta) for delta in deltas]))


def unpack_frame(wire: bytes) -> Frame:
    """Undo `pack_frame`, without the length."""
    load, deltas = msgpack.unpackb(wire, use_list=False)
    return Frame(tuple(_unpack_delta(delta) for delta in deltas), Load(*load))


class Frames:
    """Cuts a byte stream into frames of at most `limit` bytes, which may change between two of them."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._pending = bytearray()
        self.limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole now. Raises ValueError for a length that nobody sends."""
        pending = self._pending
        pending += data
        at = 0
        try:
            while len(pending) - at >= _PREFIX:
                length = int.from_bytes(pending[at : at + _PREFIX], "little")
                if length > self.limit:
                    raise ValueError(f"a frame of {length} bytes")
                if len(pending) - at - _PREFIX < length:
                    break
                start = at + _PREFIX
                at = start + length
                yield bytes(pending[start:at])
        finally:
            del pending[:at]


def _framed(message: Any) -> bytes:
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(_PREFIX, "little") + body


def _tokens(wire: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(wire, INT32).tolist())


def _pack_load(load: Load) -> tuple[Any, ...]:
    return (
        load.running, load.waiting, load.kv_used, load.preemptions,
        load.prefix_queries, load.prefix_hits, load.prompt_tokens, load.generated_tokens, load.queued_tokens,
        load.places, load.stay_seconds, load.token_seconds, load.queue, load.standing,
    )  # fmt: skip


def _pack_delta(delta: Delta) -> tuple[Any, ...]:
    """Most deltas are one token and nothing else: send that much and no more."""
    if not (delta.logprobs or delta.finish or delta.queued_seconds or delta.prefill_seconds or delta.cached_tokens):
        return (delta.id, delta.tokens)
    logprobs = [(p.token, p.logprob, p.top) for p in delta.logprobs]
    return (
        delta.id, delta.tokens, logprobs, delta.finish, delta.cached_tokens,
        delta.queued_seconds, delta.prefill_seconds, delta.error,
    )  # fmt: skip


def _unpack_delta(wire: tuple[Any, ...]) -> Delta:
    if len(wire) == 2:
        return Delta(wire[0], wire[1])
    number, tokens, logprobs, *rest = wire
    return Delta(number, tokens, tuple(TokenLogprob(*entry) for entry in logprobs), *rest)
