"""Whether a model can be held to a constraint, found out beside the event loop and before a replica hears of it.

Owns one thread and one cache of verdicts a model. Knows nothing of requests.
"""

import asyncio

from actors.deep import deep_thread
from actors.engine.grammar import Grammars, holdable
from actors.engine.tokens import Tokenizer
from cluster.errors import InvalidRequest, Overloaded

WAITING = 64  # constraints that may wait to be compiled; a usual one takes a millisecond
SECONDS = 10.0  # the longest compilation that we found takes 0.3 s: this is for a machine that is not well


class Verdicts:
    """Compiles constraints one after the other, for the sake of what it says."""

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._grammars = Grammars(lambda: tokenizer)
        self._thread = deep_thread("verdicts")
        self._waiting = 0

    @property
    def possible(self) -> bool:
        """Whether this model can be held to anything."""
        return holdable(self._tokenizer)

    async def check(self, spec: str, field: str) -> None:
        """Raises InvalidRequest naming `field` where the model cannot be held to `spec`, Overloaded where many wait."""
        if self._waiting >= WAITING:
            raise Overloaded(self._model, self._waiting, 1)
        self._waiting += 1
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._grammars.check, spec, field)
        except TimeoutError:
            raise InvalidRequest(field, "what it asks for", "it takes too long to compile: ask for less") from None
        finally:
            self._waiting -= 1
