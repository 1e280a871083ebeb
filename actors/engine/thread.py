"""The engine's own thread: commands in, one batch of deltas out per step.

Callers on other threads post `Submit` and `Cancel` with an owner (a gateway's link, say); after each step the publisher
gets what moved, grouped by owner, and the load. An accepted sequence is acknowledged by a delta without tokens at once.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from itertools import chain
from queue import Empty, SimpleQueue

from actors.engine.loop import AHEAD_SECONDS, Engine
from actors.messages import Cancel, Delta, Load, Submit
from cluster.errors import ReplicaLost, StrataError, Unavailable

# A small model makes a step in half a millisecond. Whoever is woken by it, four processes down the path, takes the
# processor from the ranks; nobody can read that fast. A model whose step takes longer is heard every step.
FLUSH_SECONDS = 0.8 * AHEAD_SECONDS
IDLE_LOOK_SECONDS = 0.25  # while nothing is to do, how often the engine makes sure that its ranks live

Publisher = Callable[[Mapping[Hashable, list[Delta]], Load], None]
Command = tuple[Hashable, Submit | Cancel | None]


class EngineThread:
    """Drives one engine until closed. `lost` is called once, from the thread, if the gang under it is gone."""

    def __init__(
        self,
        engine: Engine,
        publish: Publisher,
        lost: Callable[[StrataError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._engine, self._publish, self._lost = engine, publish, lost
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._owners: dict[int, tuple[Hashable, int]] = {}
        self._keys: dict[tuple[Hashable, int], int] = {}
        self._told: Load | None = None
        self._told_at = 0.0
        self._pending: defaultdict[Hashable, defaultdict[int, list[Delta]]] = defaultdict(_by_sequence)
        self._closing = False
        self._turns = 0
        self._resting = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def rest(self, seconds: float) -> bool:
        """Wait until nobody waits for a token; whether that came within `seconds`."""
        return self._resting.wait(seconds)

    @property
    def moves(self) -> int | None:
        """A number that changes while the thread does its work, idle or busy; None while the ranks do theirs."""
        return None if self._engine.computing else self._turns + self._engine.steps

    def start(self) -> None:
        """Begin to take commands."""
        self._thread.start()

    def post(self, owner: Hashable, command: Submit | Cancel) -> None:
        """Hand over a command; what comes of it is published."""
        self._commands.put((owner, command))
        self._engine.executor.interrupt(True)

    def forget(self, owner: Hashable) -> None:
        """The owner is gone: cancel all that it asked for."""
        self._commands.put((owner, None))
        self._engine.executor.interrupt(True)

    def close(self, seconds: float = 5.0) -> None:
        """End every sequence with Unavailable and stop the thread."""
        self._closing = True
        self._commands.put(None)
        self._engine.executor.interrupt(True)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turns += 1
                results: dict[Hashable, list[Delta]] = defaultdict(list)
                if not self._engine.busy:
                    self._resting.set()
                self._obey(results, wait=not self._engine.busy)
                self._resting.clear()
                self._deliver(results, self._engine.step())
                self._tell(results)
            self._end(Unavailable("the replica", "it is shutting down"))
        except ReplicaLost as error:
            self._end(error)
            self._lost(error)
        except Exception as error:  # noqa: BLE001 — whatever it was, waiting clients must hear of it
            lost = ReplicaLost("the replica", f"its engine stopped: {type(error).__name__}: {error}")
            self._end(lost)
            self._lost(lost)

    def _obey(self, results: dict[Hashable, list[Delta]], wait: bool) -> None:
        self._engine.executor.interrupt(False)  # before looking: what comes after sets it again
        while not self._closing:
            self._turns += 1
            try:
                command = self._commands.get(block=wait, timeout=IDLE_LOOK_SECONDS)
            except Empty:
                if wait:
                    self._engine.executor.check()
                    self._tell({})  # a queue that stood is forgotten by and by
                    continue
                return
            wait = False
            if command is None:
                continue
            owner, message = command
            if isinstance(message, Submit):
                results[owner].append(self._add(owner, message))
            elif isinstance(message, Cancel):
                self._cancel(owner, message.id, results)
            else:
                for known, local in [pair for pair in self._keys if pair[0] == owner]:
                    self._cancel(known, local, None)

    def _add(self, owner: Hashable, submit: Submit) -> Delta:
        try:
            key = self._engine.add(submit)
        except StrataError as error:
            return Delta(submit.id, (), finish="error", error=(type(error).__name__, error.args))
        self._owners[key] = (owner, submit.id)
        self._keys[owner, submit.id] = key
        return Delta(submit.id, ())

    def _cancel(self, owner: Hashable, local: int, results: dict[Hashable, list[Delta]] | None) -> None:
        key = self._keys.pop((owner, local), None)
        if key is None:
            return
        del self._owners[key]
        self._engine.cancel(key)
        if results is not None:
            results[owner].append(Delta(local, (), finish="cancelled"))

    def _deliver(self, results: dict[Hashable, list[Delta]], deltas: list[tuple[int, Delta]]) -> None:
        for key, delta in deltas:
            owner, local = self._owners[key]
            results[owner].append(delta)
            if delta.finish is not None:
                del self._owners[key]
                del self._keys[owner, local]

    def _tell(self, results: Mapping[Hashable, list[Delta]]) -> None:
        """Publish at once what somebody waits for (an answer, a first token, an end), the rest every few ms."""
        urgent = False
        for owner, deltas in results.items():
            pending = self._pending[owner]
            for delta in deltas:
                kept = pending[delta.id]
                if kept and kept[-1].tokens and delta.error is None:
                    kept[-1] += delta
                else:  # an acknowledgement and an error each stand alone
                    kept.append(delta)
                urgent = urgent or delta.finish is not None or delta.prefill_seconds > 0.0 or not delta.tokens
        now = self._clock()
        if urgent or now - self._told_at >= FLUSH_SECONDS or not self._engine.busy:
            load = self._engine.load
            if self._pending or load != self._told:
                self._told, self._told_at = load, now
                waiting, self._pending = self._pending, defaultdict(_by_sequence)
                self._publish(
                    {owner: list(chain.from_iterable(kept.values())) for owner, kept in waiting.items()}, load
                )

    def _end(self, error: StrataError) -> None:
        results: dict[Hashable, list[Delta]] = defaultdict(list)
        for owner, pending in self._pending.items():
            results[owner] += chain.from_iterable(pending.values())
        self._pending.clear()
        self._deliver(results, self._engine.drain(error))
        while True:  # what was posted and never seen
            try:
                command = self._commands.get_nowait()
            except Empty:
                break
            if command is not None and isinstance(command[1], Submit):
                owner, submit = command[0], command[1]
                results[owner].append(Delta(submit.id, (), finish="error", error=(type(error).__name__, error.args)))
        self._publish(results, self._engine.load)


def _by_sequence() -> defaultdict[int, list[Delta]]:
    return defaultdict(list)
