"""Every error that Strata raises on purpose.

Each class has an HTTP `status`, an OpenAI error `kind` and whether a client may retry. Arguments are
positional and all are handed to `super().__init__`, so that an error pickles and crosses actors whole.

    StrataError
    ├── InvalidRequest            400  a field of a request
    │   └── ContextTooLong        400  prompt and answer can never fit
    ├── Refused                   400  a request, by a gateway that names no field
    ├── SettingsInvalid           400  a key of the settings file
    ├── ModelInvalid              400  a model folder that cannot be served
    │   └── ArchitectureUnsupported
    ├── Unauthenticated           401
    ├── Forbidden                 403
    ├── NotFound                  404
    ├── Conflict                  409  somebody else was first
    │   ├── Barred                409  it has to be done otherwise
    │   ├── IllegalMove           409  a life cycle has no such move
    │   └── MergeConflict         409  both sides changed the same
    ├── Overloaded                429  retryable, says when
    ├── ExtraMissing              501
    ├── Unavailable               503  retryable
    │   ├── ReplicaLost           503  the gang died under the request
    │   │   └── SuspectLost       503  and it may be why
    │   └── NotReady              503
    ├── GivenUp                   500  a request that replicas died of
    ├── PlacementImpossible       503
    └── DeadlineExceeded          504
"""

import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar

_RUNS = re.compile(r"([0-9]+)")


class StrataError(Exception):
    """The root: something that Strata can name went wrong."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

    @property
    def param(self) -> str | None:
        """The request field or settings key at fault, if one is."""
        return None


class InvalidRequest(StrataError):
    """A field of a request holds something that can never be served.

    A `value` that is a text stands in the message as it is: it describes. What was sent stands there as `sent` has it.
    """

    status = 400
    kind = "invalid_request_error"

    def __init__(self, field: str, value: Any, remedy: str) -> None:
        self.field, self.remedy = field, remedy
        self.value = shorten(value if isinstance(value, str) else sent(value))
        super().__init__(field, self.value, remedy)

    @property
    def param(self) -> str | None:
        return self.field

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is not accepted; {self.remedy}"


class ContextTooLong(InvalidRequest):
    """Prompt plus answer exceed what the model or its KV cache can ever hold."""


class Refused(StrataError):
    """A gateway refused a request for what is no field of it, in its own words."""

    status = 400
    kind = "invalid_request_error"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class SettingsInvalid(StrataError):
    """A key of the settings file, the environment or a flag is unknown or out of range."""

    status = 400
    kind = "invalid_request_error"

    def __init__(self, key: str, value: Any, remedy: str) -> None:
        self.key, self.value, self.remedy = key, shorten(value), remedy
        super().__init__(key, self.value, remedy)

    @property
    def param(self) -> str | None:
        return self.key

    def __str__(self) -> str:
        return f"{self.key}: {self.value} is not accepted; {self.remedy}"


class ModelInvalid(StrataError):
    """A model folder that cannot be loaded: which file, what is wrong, what to do."""

    status = 400
    kind = "invalid_request_error"

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = path, problem, remedy
        super().__init__(path, problem, remedy)

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


class ArchitectureUnsupported(ModelInvalid):
    """An architecture that neither our families nor AutoTP can run."""


class Unauthenticated(StrataError):
    """No credential, or one that is not known."""

    status = 401
    kind = "authentication_error"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class Forbidden(StrataError):
    """A known principal without the permission that the action names."""

    status = 403
    kind = "permission_error"

    def __init__(self, principal: str, permission: str) -> None:
        self.principal, self.permission = principal, permission
        super().__init__(principal, permission)

    def __str__(self) -> str:
        return f"{self.principal} lacks the permission {self.permission}"


class NotFound(StrataError):
    """A named thing that does not exist, with what does."""

    status = 404
    kind = "not_found_error"

    def __init__(self, thing: str, name: str, known: tuple[str, ...] = ()) -> None:
        self.thing, self.name, self.known = thing, shorten(name), known
        super().__init__(thing, self.name, known)

    def __str__(self) -> str:
        hint = f"; there is {', '.join(self.known)}" if self.known else ""
        return f"no {self.thing} {self.name}{hint}"


class Conflict(StrataError):
    """What a change was to start from is not what there is: somebody else was first, or it is taken."""

    status = 409
    kind = "conflict_error"

    def __init__(self, thing: str, expected: str, there: str) -> None:
        self.thing, self.expected, self.there = thing, expected, there
        super().__init__(thing, expected, there)

    def __str__(self) -> str:
        return f"{self.thing} is {self.there} and not {self.expected}; look at it again, then repeat the change"


class Barred(Conflict):
    """What there is does not allow a change, and the same one again will not do: what helps is the `remedy`."""

    def __init__(self, thing: str, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(thing, "free to be changed so", problem)
        self.args = (thing, problem, remedy)

    def __str__(self) -> str:
        return f"{self.thing} {self.problem}; {self.remedy}"


class IllegalMove(Conflict):
    """A life cycle does not lead from where a thing is to where it was to go, but elsewhere."""

    def __init__(self, thing: str, at: str, wanted: str, legal: tuple[str, ...]) -> None:
        self.at, self.wanted, self.legal = at, wanted, legal
        super().__init__(thing, wanted, at)
        self.args = (thing, at, wanted, legal)

    def __str__(self) -> str:
        return f"{self.thing} is {self.at}; from there it goes to {' or '.join(self.legal)}, not to {self.wanted}"


class MergeConflict(Conflict):
    """Two versions that nobody can make one of without deciding: what both of them changed, a line each."""

    def __init__(self, source: str, target: str, clashes: tuple[str, ...]) -> None:
        self.source, self.target, self.clashes = source, target, clashes
        super().__init__(f"{source} into {target}", "a clean merge", "; ".join(clashes))
        self.args = (source, target, clashes)

    def __str__(self) -> str:
        return (
            f"{self.source} cannot go into {self.target} without a decision on {'; '.join(self.clashes)}. Take the "
            "strategy ours or theirs (of weights also linear or task), or make one version of both by hand: merge "
            f"{self.target} into {self.source} with ours, push to {self.source} what it is to be, then merge again"
        )


class Overloaded(StrataError):
    """The queue is full; come back after `retry_after_seconds`."""

    status = 429
    kind = "rate_limit_error"
    retryable = True

    def __init__(self, model: str, queued: int, retry_after_seconds: int) -> None:
        self.model, self.queued, self.retry_after_seconds = model, queued, retry_after_seconds
        super().__init__(model, queued, retry_after_seconds)

    def __str__(self) -> str:
        return f"{self.model} has {self.queued} requests waiting; retry in {self.retry_after_seconds} s"


class ExtraMissing(StrataError):
    """An optional package is needed and not installed."""

    status = 501

    def __init__(self, feature: str, extra: str) -> None:
        self.feature, self.extra = feature, extra
        super().__init__(feature, extra)

    def __str__(self) -> str:
        return f"{self.feature} needs the extra {self.extra!r}: pip install 'strata[{self.extra}]'"


class Unavailable(StrataError):
    """Nothing can serve this now; a retry may find something that can."""

    status = 503
    retryable = True

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(what, reason)

    def __str__(self) -> str:
        return f"{self.what} is unavailable: {self.reason}"


class ReplicaLost(Unavailable):
    """The gang that held the request died; a new one is being made."""


class SuspectLost(ReplicaLost):
    """It died in a step that was to bring the first token of this request there, one of so many `beginners`."""

    def __init__(self, what: str, reason: str, beginners: int) -> None:
        self.beginners = beginners
        super().__init__(what, reason)
        self.args = (what, reason, beginners)

    def __str__(self) -> str:
        return f"{super().__str__()}; requests that began in its last step: {self.beginners}"


class NotReady(Unavailable):
    """It was started and has not yet made its first token."""


class GivenUp(StrataError):
    """Replicas died of a request, as far as can be seen: it is not tried on another."""

    def __init__(self, replicas: int, tokens: int) -> None:
        self.replicas, self.tokens = replicas, tokens
        super().__init__(replicas, tokens)

    def __str__(self) -> str:
        return (
            f"{self.replicas} replicas in a row died after {self.tokens} tokens of this request, so it is not tried "
            "again; send it anew only if they may have died of something else"
        )


class PlacementImpossible(StrataError):
    """Gangs that the machines of the cluster can never hold: what they need, what each machine has, what would help."""

    status = 503

    def __init__(self, model: str, needs: str, there: str, remedy: str = "") -> None:
        self.model, self.needs, self.there, self.remedy = model, needs, there, remedy
        super().__init__(model, needs, there, remedy)

    def __str__(self) -> str:
        remedy = self.remedy or "lower tensor_parallel_size, replicas or shard_cpus, or add a node"
        return f"{self.model} needs {self.needs} and there is {self.there}; {remedy}"


class DeadlineExceeded(StrataError):
    """The deadline that came with the request is over."""

    status = 504
    kind = "timeout_error"
    retryable = True

    def __init__(self, what: str, seconds: float) -> None:
        self.what, self.seconds = what, seconds
        super().__init__(what, seconds)

    def __str__(self) -> str:
        return f"{self.what} did not finish within {self.seconds:g} s"


def revived(name: str, arguments: tuple[Any, ...]) -> StrataError:
    """The error of our family that goes by this `name`, made anew; a StrataError for any other name."""
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, StrataError):
        try:
            return kind(*arguments)
        except TypeError:
            pass
    return StrataError(f"{name}: {arguments}")


def listed(names: Iterable[str], most: int = 10) -> tuple[str, ...]:
    """What there is, for an error: v2 before v10, and of many how many more."""
    found = sorted(
        names,
        key=lambda name: [int(part) if part.isascii() and part.isdecimal() else part for part in _RUNS.split(name)],
    )
    return (*found[:most], f"and {len(found) - most} more") if len(found) > most else tuple(found)


def sent(value: Any, limit: int = 120) -> str:
    """`value` as a client sent it, in JSON, so that a text does not look like a number; at most `limit` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # no JSON at all, or a number that Python will not print
        return shorten(value, limit)
    shown = shorten(text, limit)
    return f'{shown[:-2]}…"' if isinstance(value, str) and shown.endswith("…") else shown


def shorten(value: Any, limit: int = 120) -> str:
    """`value` as text that is safe to show: one line, at most `limit` characters."""
    try:
        text = value if isinstance(value, str) else repr(value)[: 4 * limit]
    except Exception:  # noqa: BLE001 (any value, any repr; Python will not print an integer of 5,000 digits)
        text = f"<{type(value).__name__} that cannot be printed>"
    text = (
        text[: 4 * limit].encode("unicode_escape", "backslashreplace").decode("ascii")
        if not text.isprintable()
        else text
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"
