"""Which replicas get no requests for a while, because they fail or have become slow.

The rules are those of Envoy's outlier detection: so many errors in a row, or answers that take a multiple of what those
of the others take, put a replica out for a time that grows each time, but never more than a share of all. When the time
is over, one request alone tries it: what becomes of that decides. Times to first tokens scatter widely among replicas
that are alike, so it is most of the answers that have to be slow: medians alone put a healthy one out each minute.
Knows names, seconds on the caller's clock and rates; knows nothing of what a replica is.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 0.75  # of the answers


@dataclass(frozen=True, slots=True)
class Rules:
    """`errors` in a row, or three of four of `samples` answers at `slow` times the others' rate, put a replica out.

    For `seconds`, twice that the next time and so on up to `longest`; never more than `share` of all, but always one of
    several.
    """

    errors: int = 5
    slow: float = 2.0
    samples: int = 16
    seconds: float = 30.0
    longest: float = 300.0
    share: float = 0.3


@dataclass(slots=True)
class _State:
    errors: int = 0
    rates: deque[float] = field(default_factory=deque)  # seconds for a prompt token, of its last answers
    since: int = 0  # answers since it came or came back
    times: int = 0  # that it was put out, less the good turns since
    until: float | None = None  # when it may be tried again; None: it is in
    trying: bool = False


@dataclass(slots=True)
class Outliers:
    """All replicas of one model. Not for use by several threads."""

    rules: Rules = field(default_factory=Rules)
    _states: dict[str, _State] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """A replica that is up: nothing is known against it, whatever bore its name before."""
        self._states[name] = _State()

    def remove(self, name: str) -> None:
        """It is gone. Harmless for one that is not known."""
        self._states.pop(name, None)

    def usable(self, now: float) -> list[str]:
        """Who may get the next request: all that are in; or the one whose time is over, for that request to try it.

        All there are, where none of them is in: a refusal would be worse than a slow answer.
        """
        tried = next((name for name, state in self._states.items() if _due(state, now)), None)
        if tried is not None:
            return [tried]
        return [name for name, state in self._states.items() if state.until is None] or list(self._states)

    def chosen(self, name: str, now: float) -> None:
        """A request goes there. If its time is over, that is its trial."""
        state = self._states.get(name)
        if state is not None and _due(state, now):
            state.trying = True

    def good(self, name: str, now: float, rate: float) -> None:
        """A first token came, after `rate` seconds for each prompt token of work."""
        state = self._states.get(name)
        if state is None:
            return
        state.errors = 0
        if state.trying:
            self._tried(name, state, rate, now)
            return
        state.since += 1
        state.rates.append(rate)
        if len(state.rates) <= self.rules.samples:
            return
        state.rates.popleft()
        if state.until is None and self._slow(name, state.rates):
            self._put_out(state, now)
        elif state.times and state.since % self.rules.samples == 0:
            state.times -= 1

    def bad(self, name: str, now: float) -> None:
        """A request failed there for a reason that is not its own."""
        state = self._states.get(name)
        if state is None:
            return
        state.errors += 1
        if state.trying:
            self._put_out(state, now, always=True)
        elif state.until is None and state.errors >= self.rules.errors:
            self._put_out(state, now)

    def unheard(self, name: str) -> None:
        """The request that went there ended without telling anything: another may be its trial."""
        state = self._states.get(name)
        if state is not None:
            state.trying = False

    def rate(self, name: str) -> float:
        """Seconds that a prompt token takes there; what is usual, while nothing was measured; 1.0 if nowhere."""
        state = self._states.get(name)
        if state is not None and state.rates:
            return statistics.median(state.rates)
        usual = self._others(name)
        return statistics.median(usual) if usual else 1.0

    def out(self) -> list[str]:
        """Who is out, for status and metrics."""
        return [name for name, state in self._states.items() if state.until is not None]

    def _tried(self, name: str, state: _State, rate: float, now: float) -> None:
        """One answer tells less than many: it is slow beside those of the others that were slow."""
        usual = self._others(name, MOST)
        if usual and rate > self.rules.slow * statistics.median(usual):
            self._put_out(state, now, always=True)
            return
        state.until, state.trying, state.since = None, False, 0
        state.rates.clear()

    def _slow(self, name: str, rates: Sequence[float]) -> bool:
        usual = self._others(name)
        return bool(usual) and _part(rates, 1 - MOST) > self.rules.slow * statistics.median(usual)

    def _others(self, name: str, part: float = 0.5) -> list[float]:
        """The rate that `part` of the answers of each of the others was below, of those that were measured."""
        return [_part(state.rates, part) for other, state in self._states.items() if other != name and state.rates]

    def _put_out(self, state: _State, now: float, always: bool = False) -> None:
        """`always`: it is out already, and stays so."""
        out = sum(other.until is not None for other in self._states.values())
        if not always and out + 1 > max(min(1, len(self._states) - 1), int(self.rules.share * len(self._states))):
            return
        state.until = now + min(self.rules.longest, self.rules.seconds * 2**state.times)
        state.times += 1
        state.errors, state.trying = 0, False


def _part(rates: Sequence[float], part: float) -> float:
    ordered = sorted(rates)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _due(state: _State, now: float) -> bool:
    return state.until is not None and now >= state.until and not state.trying
