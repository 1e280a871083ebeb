"""Which tokens the next step computes, and who waits, leaves or is put back.

Continuous batching as in Orca and vLLM, with chunked prefill as in Sarathi-Serve: running sequences decode first, then
prompts join, oldest first, with as many tokens as the pace allows. Decides only: no tensors, no clock of its own.

Never a deadlock: a sequence is admitted only if it fits the whole cache alone, the youngest of the least urgent is put
back first (recompute), and its blocks stay in the prefix cache until somebody needs the room.
"""

import heapq
from collections.abc import Sequence as Many
from operator import attrgetter

from actors.engine import blocks as prefix
from actors.engine.blocks import BlockPool
from actors.engine.pace import Allowance, Pace
from actors.engine.sequence import Sequence
from actors.engine.step import Step, Work
from actors.settings import Limits
from cluster.scheduling.admission import MOST_URGENT


class Scheduler:
    """The waiting, the running, and the blocks. All calls come from one thread, between steps."""

    def __init__(self, limits: Limits, pool: BlockPool, pace: Pace) -> None:
        self._limits, self._pace = limits, pace
        self.pool = pool
        self.running: list[Sequence] = []
        self._waiting: list[tuple[int, int, Sequence]] = []  # a heap by urgency and age
        self._gone: set[int] = set()  # keys cancelled while in the heap
        self._slots = list(range(limits.running_sequences - 1, -1, -1))
        self._left: list[int] = []
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def waiting(self) -> int:
        """Sequences that hold nothing yet."""
        return len(self._waiting) - len(self._gone)

    @property
    def next(self) -> Sequence | None:
        """Whose turn it is."""
        while self._waiting and self._waiting[0][1] in self._gone:
            self._gone.discard(heapq.heappop(self._waiting)[1])
        return self._waiting[0][2] if self._waiting else None

    @property
    def queue(self) -> tuple[tuple[int, int, int], ...]:
        """Of those that wait the priority, how many have it, and their tokens: what a cache may save is not known."""
        found: dict[int, list[int]] = {}
        for priority, key, sequence in self._waiting:
            if key not in self._gone:
                sums = found.setdefault(priority, [0, 0])
                sums[0] += 1
                sums[1] += sequence.pending
        return tuple((priority, count, tokens) for priority, (count, tokens) in found.items())

    @property
    def begun_tokens(self) -> int:
        """Tokens of prompts under way that are to be computed yet."""
        return sum(sequence.pending for sequence in self.running if sequence.prefilling)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue it by priority (lower is sooner), then age."""
        heapq.heappush(self._waiting, (sequence.submit.priority, sequence.key, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Take it out wherever it is; what it held is free for the next step."""
        if sequence.slot >= 0:
            self.running.remove(sequence)
            self._vacate(sequence)
        else:
            self._gone.add(sequence.key)
            if len(self._gone) > 64 and 2 * len(self._gone) > len(self._waiting):
                self._waiting = [entry for entry in self._waiting if entry[1] not in self._gone]
                heapq.heapify(self._waiting)
                self._gone.clear()

    def plan(self, now: float, horizon: int = 1, guessed: int = 0, places: int | None = None) -> Step:
        """Fill one step: decodes, then prompts under way, then admissions.

        `horizon`: the most steps to repeat it; `guessed`: tokens more than that which guesses may bring.
        `places`: how many may run at once; None: as the limits say.
        """
        budget = self._limits.step_tokens
        allowance = self._allowance()
        works: list[Work] = []
        grown: list[tuple[Sequence, tuple[int, ...]]] = []
        fetching: list[Sequence] = []
        for sequence in sorted(self.running, key=attrgetter("prefilling")):
            if sequence.slot < 0 or self._fetch_on(sequence, allowance, grown, fetching):
                continue  # put back for an older one's need, or still to be fetched
            count = min(sequence.pending, budget)
            if sequence.prefilling:
                count = allowance.chunk(sequence.computed, count)
            if count == 0:
                continue  # no room in this step
            fresh = self._grow(sequence, count, works)
            if fresh is None:
                continue
            if fresh:
                grown.append((sequence, tuple(fresh)))
            works.append(Work.of(sequence, count))
            budget -= count
        appended = [(sequence.slot, ids) for sequence, ids in grown if sequence.slot >= 0]
        most = self._limits.running_sequences if places is None else places
        joined = self._admit(works, fetching, budget, allowance, now, most)
        steps, rooms = 1, []
        if allowance.nothing or fetching:
            horizon, guessed = 1, 0  # prompts pause for one step, or go on by the next
        if horizon + guessed > 1 and works and not joined and all(work.count == 1 and work.samples for work in works):
            rooms = self._ahead(works, horizon + guessed, appended)
            steps = min(horizon, *rooms)
        left, self._left = tuple(self._left), []
        saves, loads = self.pool.moves() if works else ((), ())
        held = tuple(sequence for sequence in fetching if sequence.slot >= 0)
        ordered = tuple(sorted(works, key=attrgetter("several")))
        return Step(ordered, joined, left, tuple(appended), steps, tuple(rooms), saves, loads, held)

    def _allowance(self) -> Allowance:
        streams = [sequence for sequence in self.running if not sequence.prefilling]
        if len(streams) == len(self.running) and not self._waiting:
            return self._pace.allow(0, 0)  # no prompt asks
        return self._pace.allow(len(streams), sum(sequence.computed + 1 for sequence in streams))

    def settle(self, works: Many[Work]) -> None:
        """The step is done: all tokens but a newly drawn last one are computed, full blocks can be found by others."""
        size = self._limits.block_tokens
        for work in works:
            sequence = work.sequence
            if sequence.slot < 0:
                continue  # it left while the step ran
            sequence.computed = len(sequence.tokens) - 1 if work.samples else work.start + work.count
            if sequence.computed // size > sequence.sealed:
                self._seal(sequence, sequence.computed // size)

    def _seal(self, sequence: Sequence, full: int) -> None:
        prefix.extend(sequence.digests, sequence.tokens, self._limits.block_tokens, sequence.submit.salt)
        for index in range(sequence.sealed, full):
            self.pool.seal(sequence.blocks[index], sequence.digests[index])
        sequence.sealed = full

    def _grow(self, sequence: Sequence, count: int, works: list[Work]) -> list[int] | None:
        """Blocks so that `count` more tokens fit, putting others back if need be; None if it was put back itself."""
        need = -(-(sequence.computed + count) // self._limits.block_tokens) - len(sequence.blocks)
        while need > self.pool.free:
            victim = max(self.running, key=lambda s: (s.submit.priority, s.key))
            self._put_back(victim)
            works[:] = [work for work in works if work.sequence is not victim]
            if victim is sequence:
                return None
        fresh = self.pool.take(max(0, need))
        sequence.blocks += fresh
        return fresh

    def _fetch_on(
        self,
        sequence: Sequence,
        allowance: Allowance,
        grown: list[tuple[Sequence, tuple[int, ...]]],
        fetching: list[Sequence],
    ) -> bool:
        """Fetch what there is time for of what lies below of a prompt under way. Whether more of it is to come so."""
        size = self._limits.block_tokens
        if self.pool.tier is None or not sequence.prefilling or sequence.computed != len(sequence.blocks) * size:
            return False
        below = self._below(sequence, sequence.sealed)
        if not below or len(below) > self.pool.free:
            return False
        count = allowance.fetch(len(below), self.pool.tier.block_seconds)
        if count:
            fresh = self.pool.fetch(below[:count])
            sequence.blocks += fresh
            grown.append((sequence, tuple(fresh)))
            fetching.append(sequence)
            self._spare(sequence, count)
        return count < len(below)

    def _spare(self, sequence: Sequence, blocks: int) -> None:
        """So many more blocks of its beginning need not be computed."""
        size = self._limits.block_tokens
        sequence.computed += blocks * size
        sequence.sealed += blocks
        if sequence.preemptions == 0:
            cached = min(sequence.computed, len(sequence.submit.prompt))
            self.prefix_hits += cached - sequence.cached
            sequence.cached = cached

    def _ahead(self, works: Many[Work], most: int, grown: list[tuple[int, tuple[int, ...]]]) -> list[int]:
        """How many tokens each of the decodes may get: at most `most`, its limit, and what half the free blocks allow.

        Takes the blocks that they need and tells `grown`. The other half is for who arrives while they run.
        """
        size = self._limits.block_tokens
        while True:
            rooms = [min(most, work.sequence.limit - len(work.sequence.tokens)) for work in works]
            needs = [
                max(0, -(-(work.start + room) // size) - len(work.sequence.blocks))
                for work, room in zip(works, rooms, strict=True)
            ]
            if most <= 1 or sum(needs) <= self.pool.free // 2:
                break
            most //= 2
        for work, need in zip(works, needs, strict=True):
            if need:
                fresh = self.pool.take(need)
                work.sequence.blocks += fresh
                grown.append((work.sequence.slot, tuple(fresh)))
        return rooms

    def _put_back(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._vacate(sequence)
        sequence.computed = sequence.sealed = 0
        sequence.blocks = []
        sequence.preemptions += 1
        self.preemptions += 1
        self.add(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        self._slots.append(sequence.slot)
        self._left.append(sequence.slot)
        sequence.slot = -1

    def _admit(
        self,
        works: list[Work],
        fetching: list[Sequence],
        budget: int,
        allowance: Allowance,
        now: float,
        places: int,
    ) -> tuple[Sequence, ...]:
        joined: list[Sequence] = []
        later: list[tuple[int, int, Sequence]] = []
        under_way = {digest for s in self.running if s.prefilling for digest in s.digests[s.sealed :]}
        while self._waiting and budget > 0 and self._slots and not allowance.nothing:
            entry = heapq.heappop(self._waiting)
            sequence = entry[2]
            if sequence.key in self._gone:
                self._gone.discard(sequence.key)
                continue
            ran = sequence.preemptions or sequence.submit.priority < MOST_URGENT  # here, or where its replica was lost
            if (len(self.running) >= places and not ran) or not self._may_begin(sequence):
                later.append(entry)
                break
            found = self._cached(sequence)
            below = self._below(sequence, len(found))
            known = len(found) + len(below)
            if under_way.intersection(sequence.digests[known : known + 1]):
                later.append(entry)  # a running sequence is computing the very block that it needs next
                continue
            count = self._enter(sequence, found, below, budget, allowance)
            if count is None:
                later.append(entry)
                break  # no room: those behind it wait too, or it would starve
            if self.pool.tier is not None and not below and self._lying(sequence, len(found)):
                self.pool.tier.passed()
            sequence.started = sequence.started or now
            sequence.slot = self._slots.pop()
            under_way.update(sequence.digests[sequence.sealed :])
            self.running.append(sequence)
            joined.append(sequence)
            if below:
                fetching.append(sequence)
            if count:
                works.append(Work.of(sequence, count))
            budget -= count
        for entry in later:
            heapq.heappush(self._waiting, entry)
        return tuple(joined)

    def _may_begin(self, sequence: Sequence) -> bool:
        """What a gang may have died of begins with no other beginner beside it: where one dies again, it is told."""
        if sequence.submit.suspect:
            return not any(other.begins for other in self.running)
        return not any(other.begins and other.submit.suspect for other in self.running)

    def _cached(self, sequence: Sequence) -> list[int]:
        """Blocks that already hold its beginning; its last token is always computed again: its logits are wanted."""
        size = self._limits.block_tokens
        prefix.extend(sequence.digests, sequence.tokens, size, sequence.submit.salt)
        return self.pool.match(sequence.digests[: (len(sequence.tokens) - 1) // size])

    def _below(self, sequence: Sequence, first: int) -> list[bytes]:
        """The blocks from `first` on that are to be fetched from the tier below."""
        tier, lying = self.pool.tier, self._lying(sequence, first)
        pays = tier is not None and bool(lying) and tier.pays(len(lying), len(lying) * self._limits.block_tokens)
        return lying if pays else []

    def _lying(self, sequence: Sequence, first: int) -> list[bytes]:
        """The blocks from `first` on that are in the tier below."""
        tier, size = self.pool.tier, self._limits.block_tokens
        if tier is None:
            return []
        wanted = sequence.digests[first : (len(sequence.tokens) - 1) // size]
        return wanted[: len(tier.find(wanted))]

    def _enter(
        self, sequence: Sequence, found: list[int], below: list[bytes], budget: int, allowance: Allowance
    ) -> int | None:
        """Hold its cached prefix and blocks for a first chunk: how many tokens that has; None if there is no room.

        It has none yet where there is time to fetch only some of what lies `below`, or just all of it.
        """
        size, tier = self._limits.block_tokens, self.pool.tier
        count, fetches = 0, allowance.fetch(len(below), tier.block_seconds) if below and tier is not None else 0
        if fetches == len(below):
            known = (len(found) + fetches) * size
            count = allowance.chunk(known, min(len(sequence.tokens) - known, budget))
        need = fetches + -(-count // size)
        spare = max(1, self.pool.size // 100) if self.running else 0  # room to grow, or it is put back at once
        if not (count or fetches) or need + self.pool.idle_among(found) + spare > self.pool.free:
            return None
        self.pool.hold(found)
        fetched = self.pool.fetch(below[:fetches]) if fetches else []
        sequence.blocks = [*found, *fetched, *self.pool.take(need - fetches)]
        if sequence.preemptions == 0:
            self.prefix_queries += len(sequence.submit.prompt)
        self._spare(sequence, len(found) + fetches)
        return count
