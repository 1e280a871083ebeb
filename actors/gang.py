"""The leader's side of a gang: start its ranks, size the KV cache, send plans, notice a death.

`Gang` is an `engine.loop.Executor`. It does not know how ranks are made: a `Launcher` starts them as local processes
(the offline entry) or as Ray actors in a placement group (a replica).
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from actors.channel import Alive, Channel
from actors.engine.plan import Plan, Result
from actors.engine.tier import places_in
from actors.heart import Heart
from actors.meeting import Meeting
from actors.messages import Assignment, ShardFacts
from actors.quiet import Patience, Quiet, Starting
from cluster.errors import ModelInvalid, SettingsInvalid

SILENCE_SECONDS = 2.0  # beats come every 0.2 s; a frozen rank has to be noticed within 3 s
# After this long a rank hangs, though its heart beats (in a kernel, in a collective whose other side went wrong). For
# the slowest that anybody waits for, 70 B parameters in bfloat16 on one core: 140 GB read at 10 GB/s for a step, and
# 140 GFLOP at 300 GFLOP/s for a token, 14 s and 0.5 s, with as much again and more to spare. A run of many steps takes
# no longer than one: it ends itself after `runner.LONGEST_RUN_SECONDS`.
STEP_SECONDS = 60.0
TOKEN_SECONDS = 1.0
_ENOUGH_CONTEXTS = 64  # full contexts; a cache beyond that is memory that nobody uses on a laptop
_CPU_SHARE = 8


class Launcher(Protocol):
    """Makes the ranks of one gang and tells when one of them is gone."""

    def load(self, channel: str, rendezvous: str, starting: Alive) -> Sequence[ShardFacts]:
        """Start every rank, each of which beats in `channel` from its first moment, and have it read its slice.

        Calls `starting` while it waits. Raises what that or a rank raised.
        """
        ...

    def serve(self, blocks: int, context_tokens: int, end_tokens: tuple[int, ...], quiet: Quiet) -> None:
        """Let every rank serve; from now on `quiet.problem` is set when one of them ends."""
        ...

    def close(self) -> None:
        """End every rank that is left."""
        ...


class Gang:
    """All ranks of one replica as one thing that executes plans."""

    def __init__(
        self,
        assignment: Assignment,
        launcher: Launcher,
        end_tokens: tuple[int, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launcher, self._clock = launcher, clock
        self._meeting = Meeting.create()
        self._heart: Heart | None = None
        try:
            self._start(assignment, end_tokens)
        except BaseException:
            self.close()
            raise
        finally:
            self._meeting.close()

    def _start(self, assignment: Assignment, end_tokens: tuple[int, ...]) -> None:
        self._channel = Channel.create(self._meeting.path, assignment.ranks)
        starting = Starting(self._channel, assignment.load_silence_seconds, assignment.model, self._clock)
        self.facts = tuple(self._launcher.load(str(self._channel.path), self._meeting.rendezvous, starting))
        first = self.facts[0]
        self.vocab_size = first.vocab_size
        self.context_tokens = context_of(assignment, first.context_tokens)
        pids = [fact.pid for fact in self.facts]
        self.quiet = Quiet(self._channel, range(assignment.ranks), SILENCE_SECONDS, assignment.model, pids)
        self._heart = Heart(self._channel, assignment.ranks)
        self.blocks = kv_blocks(assignment, self.facts, self.context_tokens)
        self.places = kv_places(assignment, self.facts)
        self._launcher.serve(self.blocks, self.context_tokens, end_tokens, self.quiet)

    def execute(self, plan: Plan) -> Result:
        """One plan on all ranks. Raises ReplicaLost when one is dead or frozen, or hangs for `seconds_for(plan)`."""
        patience = Patience(self.quiet, seconds_for(plan), self._clock)
        try:
            self._channel.send_plan(plan.pack(), patience)
        except BaseException:
            self.quiet.problem = "a plan was cut short"  # the ranks wait for its rest: nothing sensible can follow
            raise
        while True:
            result = Result.unpack(self._channel.receive_result(patience))
            if result.number == plan.number:
                return result  # any other is of a step that an interrupt (Ctrl-C) left behind

    def check(self) -> None:
        """Raises ReplicaLost when a rank is dead or frozen."""
        self.quiet()

    def interrupt(self, wanted: bool) -> None:
        """See `engine.loop.Executor`."""
        self._channel.interrupt(wanted)

    def close(self) -> None:
        """Tell the ranks to stop, then make sure."""
        if self._heart is not None:
            self._heart.stop()
        self._launcher.close()


def seconds_for(plan: Plan) -> float:
    """How long a plan may take at the very most."""
    return STEP_SECONDS + TOKEN_SECONDS * int(plan.counts.sum())


def context_of(assignment: Assignment, made_for: int) -> int:
    """Tokens of a sequence: what the settings say or the model was made for. Raises SettingsInvalid for more."""
    wanted = assignment.limits.context_tokens
    if wanted is not None and wanted > made_for:
        raise SettingsInvalid("limits.context_tokens", wanted, f"{assignment.model} was made for {made_for} at most")
    return wanted or made_for


def kv_places(assignment: Assignment, facts: Sequence[ShardFacts]) -> int:
    """Places of every rank for blocks that leave its cache: what the rank with the largest blocks has."""
    limits = assignment.limits
    return min(places_in(limits.kv_offload_gb, fact.kv_bytes_per_token, limits.block_tokens) for fact in facts)


def kv_blocks(assignment: Assignment, facts: Sequence[ShardFacts], context_tokens: int) -> int:
    """Blocks of every rank's KV cache: what the settings say, or what memory allows on the tightest rank.

    Raises ModelInvalid where there is memory for none, SettingsInvalid where there is not for what the settings say.
    """
    limits = assignment.limits
    if limits.kv_cache_tokens is not None:
        sharing = 1 if assignment.device.startswith("cuda") else len(facts)  # ranks that share one memory
        room = min(fact.free_bytes // sharing // max(1, fact.kv_bytes_per_token) for fact in facts)
        if limits.kv_cache_tokens > room:
            remedy = (
                f"there is memory for {room} beside the weights of {assignment.model}; set no more, or leave it out"
            )
            raise SettingsInvalid("limits.kv_cache_tokens", limits.kv_cache_tokens, remedy)
        return -(-limits.kv_cache_tokens // limits.block_tokens)
    share = assignment.gpu_share if assignment.device.startswith("cuda") else 1 / _CPU_SHARE / len(facts)
    tokens = min(int(fact.free_bytes * share) // max(1, fact.kv_bytes_per_token) for fact in facts)
    tokens = min(tokens, _ENOUGH_CONTEXTS * context_tokens)
    if tokens < limits.block_tokens:
        raise ModelInvalid(
            assignment.path,
            f"no memory for a KV cache ({facts[0].kv_bytes_per_token} bytes a token)",
            "free memory or set limits.kv_cache_tokens",
        )
    return tokens // limits.block_tokens
