"""The engine: admit, plan, execute, settle, one step after another.

Owns every sequence of one replica. Knows no Ray, no sockets, no text. `step` is all that moves it; who calls it
(the offline entry in its own thread, or a replica's engine thread) is not its business.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from actors.engine.admission import Facts, check
from actors.engine.blocks import BlockPool
from actors.engine.lately import Lately
from actors.engine.pace import Pace
from actors.engine.plan import Plan, Result
from actors.engine.planning import plan_of
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from actors.engine.step import Step, Work
from actors.engine.tier import Tier
from actors.engine.turnover import Intake, Standing, Stay, retry_after_seconds
from actors.engine.worth import Worth
from actors.messages import Delta, Load, Submit, TokenLogprob
from actors.settings import Limits
from cluster.errors import DeadlineExceeded, InvalidRequest, Overloaded, ReplicaLost, StrataError, SuspectLost
from cluster.scheduling.admission import MOST_URGENT

# A plan of one step costs the leader and the ranks a wake-up each, and those who carry the tokens on another: 0.1 ms of
# two cores and more, nothing beside a step of 10 ms, a third of one of 0.3. So short steps are planned several at a
# time, as many as pass while a screen shows one picture. What arrives meanwhile ends such a run at its next step.
AHEAD_SECONDS = 0.016
_MOST_AHEAD = 128
_LEARN = 0.2
_SHORTEST_SECONDS = 1e-5

TOO_COMPLEX = InvalidRequest(
    "structured_outputs",
    "a form that takes too long to follow",
    "make it less ambiguous: fewer alternatives and repeats",
)

NO_NUMBERS = (
    "the model's logits are no numbers (NaN or -inf): either a weight is none, and `strata models push` looks at all "
    "of them and names the tensors; or values outgrow bfloat16 or float16, and dtype float32 holds them"
)


class Executor(Protocol):
    """What carries a plan out: a runner in this process, or a gang of shards."""

    def execute(self, plan: Plan) -> Result:
        """Run one step on all ranks. Raises ReplicaLost when a rank is gone."""
        ...

    def check(self) -> None:
        """Between steps: raises ReplicaLost when a rank is gone."""
        ...

    def interrupt(self, wanted: bool) -> None:
        """Whether a plan of several steps is to be left at the next: something new wants planning. From any thread."""
        ...


class Engine:
    """Continuous batching over one executor. Not thread safe; see `thread.EngineThread`."""

    def __init__(
        self, executor: Executor, facts: Facts, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.executor, self._facts, self._limits, self._clock = executor, facts, limits, clock
        self._pace = Pace(limits.gap_stretch, AHEAD_SECONDS)
        self._worth = Worth(limits.running_sequences, limits.batch_stretch)
        self._tier = Tier(facts.places) if facts.places else None
        self._scheduler = Scheduler(limits, BlockPool(facts.blocks, self._tier), self._pace)
        self._ends = frozenset(facts.end_tokens)
        self._live: dict[int, Sequence] = {}
        self._works: tuple[Work, ...] = ()  # of the step under way
        self._timed: set[int] = set()
        self._next_key = 0
        self._number = 0
        self._generated = self._prompted = 0
        self._step_seconds = AHEAD_SECONDS  # of late, of steps that only decode
        self._stay, self._intake, self._standing = Stay(), Intake(), Standing(clock())
        self.lately = Lately(clock)
        self.last_result: Result | None = None
        self._over = 0.0  # when the step before this one was; 0 after a rest
        self.steps = 0  # forward passes so far
        self.computing = False  # the ranks are at work; who watches them knows how long they may be
        self.capacity = min(facts.context_tokens, facts.blocks * limits.block_tokens)

    def add(self, submit: Submit) -> int:
        """Queue one sequence: its key.

        Raises InvalidRequest or ContextTooLong for what can never be served, Overloaded when the queue is full.
        """
        check(submit, self._facts, self.capacity)
        queued = submit.priority >= MOST_URGENT  # what was running already is not refused
        if queued and self._scheduler.waiting >= self._limits.queued_sequences + self._vacant():
            raise Overloaded(self._facts.name, self._scheduler.waiting, self._retry_after())
        self._next_key += 1
        wanted = submit.params.max_tokens
        room = self.capacity if wanted is None else min(self.capacity, len(submit.prompt) + wanted)
        sequence = Sequence.of(self._next_key, submit, room, self._clock())
        self._live[sequence.key] = sequence
        if sequence.expires is not None:
            self._timed.add(sequence.key)
        self._scheduler.add(sequence)
        self.lately.came(sequence.key)
        return sequence.key

    def cancel(self, key: int) -> None:
        """Forget a sequence and free what it holds. Harmless for one that has ended."""
        sequence = self._live.get(key)
        if sequence is not None:
            self._end(sequence)

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        return self._scheduler.busy

    @property
    def load(self) -> Load:
        """Gauges and counters as of now."""
        scheduler = self._scheduler
        queue = scheduler.queue
        return Load(
            running=len(scheduler.running),
            waiting=scheduler.waiting,
            kv_used=scheduler.pool.held / scheduler.pool.size,
            preemptions=scheduler.preemptions,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            prompt_tokens=self._prompted,
            generated_tokens=self._generated,
            queued_tokens=scheduler.begun_tokens + sum(tokens for _, _, tokens in queue),
            places=self._worth.places,
            stay_seconds=self._stay_seconds(),
            token_seconds=self._intake.token_seconds,
            queue=queue,
            standing=round(self._standing.share(self._clock()), 2),
        )

    def step(self) -> list[tuple[int, Delta]]:
        """Plan, execute and settle: what that added to each sequence, by key.

        Where only decoding is to be done, one plan covers as many steps as `AHEAD_SECONDS` hold.
        An executor's fault ends the sequences of the step with that error and the engine goes on; a lost gang
        (ReplicaLost) is raised, since nothing can go on.
        """
        expired = self._expire()
        self._look_at_queue()
        began = self._clock()
        step = self._scheduler.plan(began, self._horizon(), self._facts.guesses, self._worth.places)
        if not step.works:
            return expired
        self._number += 1
        plan = plan_of(self._number, step)
        self._works = step.works
        for joined in step.joined:
            if joined.first_step is None:
                joined.first_step = self.steps
            self.lately.joined(joined.key)
        self.computing = True
        try:
            result = self.executor.execute(plan)
        except BaseException as error:
            if not isinstance(error, StrataError):  # what was to be moved or computed may not have been
                self._fail(step, "the step was interrupted")
            raise
        self.computing = False
        self.last_result = result
        self.steps += result.steps
        if result.fault is not None:
            return expired + self._fail(step, result.fault)
        self._learn(step, result)
        sampled = [work.sequence for work in step.works if work.samples]
        grown = self._extend(sampled, result)
        now = self._clock()
        shape, took = step.shape, (now - began - result.load_seconds) / result.steps
        self._pace.learn(shape, took)
        self._intake.learn(shape.tokens, took)
        self._stay.paced((now - (self._over or began)) / result.steps)
        deltas = expired
        for row in result.faulty:  # before settling: what it computed last is nothing to be found by others
            deltas.append((sampled[row].key, self._broken(sampled[row], *grown[row], now, row in result.stuck)))
        self._scheduler.settle(step.works)
        for row, (sequence, (tokens, logprobs)) in enumerate(zip(sampled, grown, strict=True)):
            if row not in result.faulty:
                deltas.append((sequence.key, self._grown(sequence, tokens, logprobs, now)))
        self._works = ()
        self._over = now if self.busy else 0.0
        return deltas

    def drain(self, error: StrataError) -> list[tuple[int, Delta]]:
        """End every sequence with `error`: the gang is gone or the replica is closing.

        If it went in a step with beginners, those hear that it may have died of them.
        """
        beginners = {work.sequence.key for work in self._works if work.sequence.begins}
        suspected = SuspectLost(error.what, error.reason, len(beginners)) if isinstance(error, ReplicaLost) else error
        return [self._ended(s, suspected if s.key in beginners else error) for s in list(self._live.values())]

    def _look_at_queue(self) -> None:
        """Whether somebody waits for a first turn, however short: a queue that is kept short stands none the less."""
        first = self._scheduler.next
        self._standing.learn(first is not None and not first.preemptions, self._clock())

    def _vacant(self) -> int:
        return max(0, self._limits.running_sequences - len(self._scheduler.running))

    def _horizon(self) -> int:
        return max(1, min(_MOST_AHEAD, int(AHEAD_SECONDS / self._step_seconds)))

    def _learn(self, step: Step, result: Result) -> None:
        """How long a step takes that only decodes, and what tokens cost to fetch and to compute."""
        if self._tier is not None:
            self._tier.lost(result.lost)
            if step.loads:
                self._tier.fetched(len(step.loads), result.load_seconds)
            shape = step.shape
            if shape.tokens >= self._limits.block_tokens:
                others = self._step_seconds if shape.decodes else 0.0
                self._tier.computed(shape.tokens, max(result.forward_seconds - others, _SHORTEST_SECONDS))
        if all(work.count == 1 for work in step.works):
            took = (result.forward_seconds + result.sample_seconds) / result.steps
            won = max(1.0, len(result.tokens) / (result.steps * len(step.works)))  # of guesses that came true
            self._worth.learn(len(step.works), took / won)
            self._step_seconds += _LEARN * (max(took, _SHORTEST_SECONDS) - self._step_seconds)

    def _extend(
        self, sampled: list[Sequence], result: Result
    ) -> list[tuple[tuple[int, ...], tuple[TokenLogprob, ...]]]:
        """Append to each sequence what was drawn for it; also as values."""
        grown, at = [], 0
        logprobs = result.logprobs or []
        for sequence, count in zip(sampled, result.counts, strict=True):
            tokens = tuple(result.tokens[at : at + count])
            told = tuple(logprob for logprob in logprobs[at : at + count] if logprob is not None)
            sequence.tokens += tokens
            grown.append((tokens, told))
            at += count
        return grown

    def _grown(
        self, sequence: Sequence, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...], now: float
    ) -> Delta:
        finish = self._finish(sequence, tokens[-1])
        delta = self._told(sequence, tokens, logprobs, now)
        if finish is None:
            return delta
        self._end(sequence)
        return replace(delta, finish=finish)

    def _broken(
        self, sequence: Sequence, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...], now: float, stuck: bool
    ) -> Delta:
        """There is no last token: no numbers, or a `stuck` constraint. What came before it in the run is its answer."""
        why = TOO_COMPLEX if stuck else StrataError(NO_NUMBERS)
        if not stuck and sequence.first_token is None:  # they may come of an earlier chunk, which others could find
            own = sequence.cached // self._limits.block_tokens
            self._scheduler.pool.forget(sequence.blocks[own:])
        _, error = self._ended(sequence, why)
        if len(tokens) == 1:
            return error
        told = self._told(sequence, tokens[:-1], logprobs[:-1], now)
        return replace(told, finish=error.finish, error=error.error)

    def _told(
        self, sequence: Sequence, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...], now: float
    ) -> Delta:
        self._generated += len(tokens)
        if sequence.first_token is not None:
            return Delta(sequence.submit.id, tokens, logprobs)
        sequence.first_token = now
        started = sequence.started or now
        self._prompted += len(sequence.submit.prompt)
        self.lately.answered(now - sequence.arrived)
        return Delta(
            sequence.submit.id,
            tokens,
            logprobs,
            None,
            sequence.cached,
            started - sequence.arrived,
            now - started,
        )

    def _finish(self, sequence: Sequence, token: int) -> str | None:
        params = sequence.submit.params
        if sequence.generated >= params.min_tokens:
            if token in self._ends and not params.ignore_eos:
                return "stop"
            if params.stop_ids and token in params.stop_ids:
                return "stop"
        return "length" if len(sequence.tokens) >= sequence.limit else None

    def _expire(self) -> list[tuple[int, Delta]]:
        if not self._timed:
            return []
        now = self._clock()
        over = [s for key in self._timed if (s := self._live[key]).expires is not None and s.expires <= now]
        return [self._ended(s, DeadlineExceeded("the request", s.submit.deadline or 0.0)) for s in over]

    def _fail(self, step: Step, fault: str) -> list[tuple[int, Delta]]:
        touched = dict.fromkeys((*(work.sequence for work in step.works), *step.fetching))
        ended = [self._ended(sequence, StrataError(fault)) for sequence in touched]
        self._scheduler.pool.clear()
        return ended

    def _ended(self, sequence: Sequence, error: StrataError) -> tuple[int, Delta]:
        self._end(sequence)
        return sequence.key, Delta(sequence.submit.id, (), finish="error", error=(type(error).__name__, error.args))

    def _retry_after(self) -> int:
        return retry_after_seconds(self._scheduler.waiting, len(self._scheduler.running), self._stay_seconds())

    def _stay_seconds(self) -> float:
        running = () if self._stay.known else self._scheduler.running
        begun = [sequence.started for sequence in running if sequence.started is not None]
        return self._stay.seconds(oldest=self._clock() - min(begun) if begun else 0.0)

    def _end(self, sequence: Sequence) -> None:
        if sequence.first_step is not None:
            self._stay.learn(self.steps - sequence.first_step)
        del self._live[sequence.key]
        self._timed.discard(sequence.key)
        self.lately.left(sequence.key)
        self._scheduler.remove(sequence)
