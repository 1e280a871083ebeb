"""Where the sequences of one model go: what each replica is known to have, to do and to be worth, in one gateway.

Holds guesses only, which the replicas' own words correct: what was sent where, how long first tokens took, who failed.
The decisions are pure and stand in `cluster.scheduling` (`balance`, `affinity`, `outliers`).
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from actors.engine import blocks
from actors.messages import Load
from cluster.scheduling import balance
from cluster.scheduling.admission import Queue
from cluster.scheduling.affinity import Prefixes
from cluster.scheduling.balance import Candidate
from cluster.scheduling.outliers import Outliers, Rules

PIECE = 64  # tokens of a prompt that are known or unknown together: finer costs time, coarser finds less


@dataclass(slots=True)
class Ticket:
    """One sequence at one replica, from its sending to its end; what becomes of it is told once, whoever tells it."""

    router: "Router"
    replica: str
    prompt: Sequence[int]
    digests: list[bytes]
    salt: str
    expected: int  # pieces thought to be in its cache
    uncached: int  # prompt tokens thought to be not
    work: float
    sent: float
    waits: bool = True  # for its first token
    over: bool = False

    def first(self, cached: int) -> None:
        """A token came, and `cached` tokens of the prompt were found there. Only the first of its calls counts."""
        if self.waits and not self.over:
            self.router.first(self, cached)
            self.waits = False

    def failed(self) -> None:
        """The replica was lost, or has refused it for a reason of its own."""
        if not self.over:
            self.router.failed(self)
            self.over = True

    def ended(self, emitted: Sequence[int] = ()) -> None:
        """It is over. The next turn of its conversation will bring what it said."""
        if not self.over:
            self.router.ended(self, emitted)
            self.over = True


class Router:
    """The replicas of one model. All calls from one event loop."""

    def __init__(
        self,
        clock: Callable[[], float],
        rules: Rules | None = None,
        roll: Callable[[], int] = lambda: secrets.randbits(32),
    ) -> None:
        """`roll` gives random whole numbers."""
        self._clock, self._roll = clock, roll
        self._health = Outliers(rules or Rules())
        self._prefixes: dict[str, Prefixes] = {}
        self._waiting: dict[str, int] = {}  # prompt tokens sent there whose first token is not here yet

    def add(self, name: str, kv_tokens: int) -> None:
        """A replica that is up, with an empty cache of so many tokens. Harmless for one that is known."""
        if name not in self._prefixes:
            self._health.add(name)
            self._prefixes[name] = Prefixes(kv_tokens // PIECE)
            self._waiting[name] = 0

    def remove(self, name: str) -> None:
        """It is gone, with its cache."""
        self._health.remove(name)
        self._prefixes.pop(name, None)
        self._waiting.pop(name, None)

    def choose(self, prompt: Sequence[int], salt: str, loads: Mapping[str, tuple[Load, int]]) -> Ticket:
        """The replica for a prompt, among `loads`: the last load of each and the streams that this gateway has there.

        A load is a little old: it does not know yet what was sent just now. `loads` is not empty; a tenant's salt keeps
        what is cached for it apart. Until its first token, or its end, the sequence counts as waiting there.
        """
        now = self._clock()
        usable = self.usable(loads)
        digests: list[bytes] = []
        if len(usable) > 1:
            blocks.extend(digests, prompt, PIECE, salt)
        found = {name: self._prefixes[name].matched(digests) if name in self._prefixes else 0 for name in usable}
        candidates = [self._candidate(name, len(prompt), found[name], *loads[name]) for name in usable]
        name = balance.pick(candidates, len(prompt), self._roll())
        chosen = next(candidate for candidate in candidates if candidate.name == name)
        self._health.chosen(name, now)
        if name in self._prefixes:
            self._prefixes[name].note(digests)
            self._waiting[name] += chosen.uncached
        return Ticket(self, name, prompt, digests, salt, found[name], chosen.uncached, balance.work(chosen), now)

    def usable(self, names: Collection[str]) -> list[str]:
        """Those of `names` that the next request may go to; all, where nothing is known of any that may."""
        return [name for name in self._health.usable(self._clock()) if name in names] or list(names)

    def first(self, ticket: Ticket, cached: int) -> None:
        """See `Ticket.first`."""
        now = self._clock()
        self._arrived(ticket)
        self._health.good(ticket.replica, now, (now - ticket.sent) / ticket.work)
        if ticket.replica in self._prefixes:
            self._prefixes[ticket.replica].told(-(-cached // PIECE), ticket.expected)

    def failed(self, ticket: Ticket) -> None:
        """See `Ticket.failed`."""
        if ticket.waits:
            self._arrived(ticket)
        self._health.bad(ticket.replica, self._clock())

    def ended(self, ticket: Ticket, emitted: Sequence[int]) -> None:
        """See `Ticket.ended`."""
        if ticket.waits:
            self._arrived(ticket)
            self._health.unheard(ticket.replica)
        elif ticket.digests and ticket.replica in self._prefixes:
            blocks.extend(ticket.digests, (*ticket.prompt, *emitted), PIECE, ticket.salt)
            self._prefixes[ticket.replica].note(ticket.digests)

    def waiting(self) -> dict[str, int]:
        """Prompt tokens that were sent to each and have not come to a first token."""
        return dict(self._waiting)

    def out(self) -> Collection[str]:
        """Who gets nothing for a while."""
        return self._health.out()

    def _candidate(self, name: str, tokens: int, pieces: int, load: Load, own: int) -> Candidate:
        return Candidate(
            name,
            max(1, tokens - pieces * PIECE),
            max(load.queued_tokens, self._waiting.get(name, 0)),
            max(load.running + load.waiting, own),
            load.kv_used,
            self._health.rate(name),
        )

    def _arrived(self, ticket: Ticket) -> None:
        if ticket.replica in self._waiting:
            self._waiting[ticket.replica] = max(0, self._waiting[ticket.replica] - ticket.uncached)


def queue_of(load: Load, own: int, own_tokens: int, priority: int) -> Queue:
    """What a request of that priority would find before it at a replica.

    `own`: streams that this gateway has there, `own_tokens`: of their prompts before first tokens. What of them the
    load does not know yet was sent just now, and counts as before it. Where the cache is full places are of no use.
    """
    sooner = [(count, tokens) for level, count, tokens in load.queue if level <= priority]
    later = sum(tokens for level, _, tokens in load.queue if level > priority)
    crowded = load.waiting > 0 and load.kv_used > balance.FULL
    return Queue(
        places=max(1, load.running) if crowded else load.places,
        running=load.running,
        ahead=sum(count for count, _ in sooner) + max(0, own - load.running - load.waiting),
        tokens=load.queued_tokens - later + max(0, own_tokens - load.queued_tokens),
        stay_seconds=load.stay_seconds,
        token_seconds=load.token_seconds,
        standing=0.0 if load.queue and not sooner else load.standing,  # those that stand are not before it
    )
