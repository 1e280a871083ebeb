"""Whether a request may wait for its turn, or is told at once when to come again. Numbers in, seconds out.

A queue that only has a longest length is either too short for small requests or too long for large ones: what a client
feels is how long it waits. So what is before a request is weighed in sequences that must end and prompt tokens that
must be computed first, and how fast both get done is measured. Who is let in waits no longer than it would be worth;
all others hear it before anything was spent on them, and so answers stay as quick under any load as under the full one.
Knows counts and seconds. Knows nothing of requests, replicas or clocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_URGENT, LEAST_URGENT = -100, 100  # the priorities that requests may have; what goes before all lies beyond
SHARE = 0.5  # of what an answer takes, that one may wait for it where the settings name no time
SHORTEST_SECONDS = 0.5  # which hardly anybody minds, however short answers are, and which a burst may need
# The same where the queue stands and does not drain: then each place is taken as soon as it is left, however short the
# queue is, and a longer one makes all later and nobody sooner (Nichols and Jacobson, Controlling Queue Delay, 2012).
STANDING_SHARE = 0.05
STANDING_TURNS = 1.5  # places that are left in that time, at least: or one stays empty until somebody comes
STANDING_SECONDS = 0.25
OFTEN, ALWAYS = 0.5, 0.9  # of the time that a queue stands: bursts alone do the former, nothing but overload the latter
LONGEST_SECONDS = 5.0
LONGEST_AWAY_SECONDS = 60  # nobody should be sent away for longer: the guess is too rough for that


@dataclass(frozen=True, slots=True)
class Rules:
    """`queue_seconds`: how long a request may be expected to wait.

    None: `SHARE` of what answers of late took, and less the longer the queue has not been empty.
    """

    queue_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """One replica, as one more request would find it.

    `places`: sequences that run at once; `running` of them are taken. `ahead`: sequences that wait and have their turn
    before it. `tokens`: of prompts that are computed before its own. `stay_seconds`: how long a sequence keeps its
    place; `token_seconds`: what a prompt token takes beside answers under way. Both are 0.0 until they were measured.
    `standing`: the share of late time, 0 to 1, in which somebody waited for a first turn.
    """

    places: int
    running: int = 0
    ahead: int = 0
    tokens: int = 0
    stay_seconds: float = 0.0
    token_seconds: float = 0.0
    standing: float = 0.0


def wait_seconds(queue: Queue) -> float:
    """Until the request's own prompt is begun.

    By Little's law (1961) as many leave in a second as run, divided by the seconds that each stays.
    """
    leave = max(0, queue.running + queue.ahead + 1 - queue.places)
    return max(leave * queue.stay_seconds / max(1, queue.places), queue.tokens * queue.token_seconds)


def patience(queue: Queue, tokens: int, deadline: float | None, rules: Rules) -> float:
    """How long a request with `tokens` of prompt, to be answered within `deadline` seconds, may wait there.

    With a deadline only so long that its first token can come before: what comes after it is of no use to anybody.
    """
    most = _usual(queue) if rules.queue_seconds is None else rules.queue_seconds
    return most if deadline is None else max(0.0, min(most, deadline - tokens * queue.token_seconds))


def _standing_seconds(stay_seconds: float, places: int) -> float:
    """The longest wait that is of use to a queue which never empties, where answers keep a place for `stay_seconds`."""
    turns = STANDING_TURNS * stay_seconds / max(1, places)
    return max(turns, min(LONGEST_SECONDS, max(STANDING_SECONDS, STANDING_SHARE * stay_seconds)))


def _usual(queue: Queue) -> float:
    burst = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, SHARE * queue.stay_seconds))
    overload = min(1.0, max(0.0, (queue.standing - OFTEN) / (ALWAYS - OFTEN)))
    standing = _standing_seconds(queue.stay_seconds, queue.places)
    return max(burst, standing) + overload * (standing - max(burst, standing))


def away_seconds(queues: Sequence[Queue], tokens: int, deadline: float | None, rules: Rules) -> int | None:
    """None where one of `queues` takes the request; else after how many whole seconds to come again, 1 to 60.

    Where nothing is before it a request is always taken, and where there are no queues.
    """
    over = [
        wait - patience(queue, tokens, deadline, rules) if (wait := wait_seconds(queue)) else 0.0 for queue in queues
    ]
    least = min(over, default=0.0)
    return None if least <= 0 else min(LONGEST_AWAY_SECONDS, max(1, math.ceil(least)))
