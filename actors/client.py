"""What the gateway may ask of a served model, wherever its replicas are.

Implemented by `engine.local.LocalClient` (the engine in this process) and by `link.Replicas` (over sockets).
Knows nothing of HTTP, text or tokenizers.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from actors.messages import Delta, Load, SamplingParams


class Stream(Protocol):
    """The deltas of one sequence, in order; the last has `finish`.

    Iterating raises a StrataError (ReplicaLost, DeadlineExceeded) where the sequence cannot go on.
    """

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    def drain(self) -> list[Delta]:
        """What has come already and nobody took, without waiting; a reader that paused gets it at once."""
        ...

    def cancel(self) -> None:
        """Free what the sequence holds within one step. Harmless after the end and when called twice."""
        ...

    @property
    def lost(self) -> int:
        """How many replicas died that had it: as often was it taken up by another."""
        ...

    def pause(self) -> bool:
        """`cancel`, but where this is True, iterating again goes on with the token that comes next."""
        ...


class Client(Protocol):
    """One model: its replicas behind one face."""

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together. Raises NotReady before a replica is up."""
        ...

    async def submit(  # one argument for each part of the contract
        self,
        prompt: tuple[int, ...],
        params: SamplingParams,
        *,
        seed: int,
        choice: int = 0,
        salt: str = "",
        priority: int = 0,
        deadline: float | None = None,
    ) -> Stream:
        """Queue one sequence on a replica.

        Those of lower `priority` have their turn first. `deadline` is in seconds from now. Raises InvalidRequest,
        ContextTooLong, Overloaded or Unavailable.
        """
        ...

    def admit(self, tokens: int, *, priority: int = 0, deadline: float | None = None) -> None:
        """Raises Overloaded where a request with so many prompt tokens would wait too long; costs microseconds.

        Asked once for a request, however many sequences it has.
        """
        ...

    @property
    def registry(self) -> Mapping[str, str]:
        """Which version of the registry is served, as `Pinned.told` says; nothing of a folder."""
        ...

    @property
    def loads(self) -> dict[str, Load]:
        """The last load heard of each live replica, by its name."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a replica is up that has made a real token through all its ranks."""
        ...
