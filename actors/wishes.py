"""Tells what a gateway has of each model that scales, and hears how long its prompts may be while no gang is there.

Knows the gateway's end of each model and how to tell. Every call from one event loop.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from actors.demand import TELL_SECONDS, Wish
from actors.replicas import Replicas

Tell = Callable[[str, Mapping[str, Wish]], Awaitable[Mapping[str, int]]]


class Wishes:
    """One gateway's."""

    def __init__(self, models: Mapping[str, Replicas], tell: Tell, seconds: float = TELL_SECONDS) -> None:
        self._models, self._tell, self._seconds = models, tell, seconds
        self._gateway = secrets.token_hex(8)
        self._held = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tell from now on, on the running loop; of a request that is held, at once."""
        for replicas in self._models.values():
            replicas.on_held = self._held.set
        self._task = asyncio.ensure_future(self._run())

    def close(self) -> None:
        """Tell nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            self._held.clear()
            with suppress(Exception):  # whom we tell is being remade, or the control store is away: tell again
                await self._say()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._held.wait()

    async def _say(self) -> None:
        told = await self._tell(self._gateway, {name: replicas.wish for name, replicas in self._models.items()})
        for name, context_tokens in told.items():
            self._models[name].remember(context_tokens)
