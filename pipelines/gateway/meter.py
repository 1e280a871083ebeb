"""Measure one turn: what arrives when, by vLLM's metric names.

Knows deltas and a clock. Per delta it costs one clock reading and one addition to a histogram.
"""

from collections.abc import Callable

from actors.messages import Delta
from cluster.telemetry.metrics import ModelMetrics


class TurnMeter:
    """Told of every delta and of every end of a turn's choices, as `chat.Meter` says."""

    def __init__(self, metrics: ModelMetrics, clock: Callable[[], float]) -> None:
        self._metrics, self._clock = metrics, clock
        self._begun = clock()
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._tokens = 0  # of the first choice

    @property
    def ttft(self) -> float:
        """Seconds until the first token of the first choice that had one; 0 before."""
        return min(self._first.values(), default=self._begun) - self._begun

    @property
    def itl(self) -> float | None:
        """Seconds between the tokens of the first choice, a mean; None for fewer than two."""
        return (self._last[0] - self._first[0]) / (self._tokens - 1) if self._tokens > 1 else None

    def heard(self, choice: int, delta: Delta) -> None:
        now = self._clock()
        if not delta.tokens:
            return
        if choice == 0:
            self._tokens += len(delta.tokens)
        before = self._last.get(choice)
        self._last[choice] = now
        if before is not None:
            self._metrics.gaps((now - before) / len(delta.tokens), len(delta.tokens))
            return
        self._first[choice] = now
        self._metrics.first_token.observe(now - self._begun)
        self._metrics.queue.observe(delta.queued_seconds)
        self._metrics.prefill.observe(delta.prefill_seconds)

    def ended(self, choice: int, finish: str, tokens: int) -> None:
        now = self._clock()
        self._metrics.finished(finish).inc()
        self._metrics.whole.observe(now - self._begun)
        self._metrics.output_tokens.observe(tokens)
        if choice in self._first:
            self._metrics.decode.observe(now - self._first[choice])
