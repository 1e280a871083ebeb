"""An asyncio loop without time: when nothing is left to do now, the clock jumps to what comes next.

Everything happens in one order, which depends on nothing but the code and its random numbers. No sockets, no threads.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any, cast


class Stuck(Exception):
    """Nothing is left that could ever happen, and somebody still waits."""


class _Jumping(selectors.BaseSelector):
    """Has no files to watch: to wait is to move the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._map: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._map[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._map

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs coroutines as asyncio does, in no time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(cast("selectors.BaseSelector", self._jumping))

    def time(self) -> float:
        return self._jumping.now
