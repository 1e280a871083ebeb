"""Actors and deployments by their names: handles that find them again when they were made anew.

Knows names, and which actors stand on the head. Knows nothing of what they do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray

from actors.demand import DEMAND, Demand, Wish
from actors.directory import Directory, Entry
from actors.replica import NAMESPACE
from cluster.errors import StrataError, Unavailable
from cluster.runtime import HEAD
from cluster.security.keys import Principal
from pipelines.gateway.desk import Registry
from pipelines.settings import Settings

DIRECTORY = "directory"
_CALL_SECONDS = 60.0  # three times as long as any call waits for news


class Calls:
    """A deployment's methods by its handle: what it raised, or Unavailable while its process is started again."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any) -> Any:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    return await getattr(self._handle, method).remote(*given)
            except ray.exceptions.RayTaskError:
                raise  # it is what the method raised
            except (ray.exceptions.RayError, ray.serve.exceptions.RayServeException, TimeoutError):
                raise Unavailable("the releases' controller", "its process is being started again") from None

        return call


class Watcher:
    """The directory or another actor, asked for by name again when it does not answer: it may have been remade."""

    def __init__(self, find: Callable[[], Any] | None = None) -> None:
        self._find = find or directory
        self._handle: Any = None

    async def watch(self, revision: int, seconds: float) -> tuple[int, str, tuple[Entry, ...]]:
        """The directory's next state."""
        state: tuple[int, str, tuple[Entry, ...]] = await self._call("watch", revision, seconds)
        return state

    async def tell(self, gateway: str, wishes: Mapping[str, Wish]) -> Mapping[str, int]:
        """See `Demand.wishes`."""
        contexts: Mapping[str, int] = await self._call("wishes", gateway, wishes)
        return contexts

    def registry(self, settings: Settings) -> Registry:
        """The registry of the settings as the gateway asks it."""

        async def ask(principal: Principal, act: str, given: Mapping[str, Any]) -> dict[str, Any]:
            from pipelines.versions import place_of  # noqa: PLC0415 - 0.4 s, and most gateways are never asked

            try:
                found: dict[str, Any] = await self._call("ask", place_of(settings), principal, act, given)
            except ray.exceptions.RayTaskError as wrong:
                raise (wrong.cause if isinstance(wrong.cause, StrataError) else wrong) from None
            except ray.exceptions.RayError:
                raise Unavailable("the registry", "its process ended; ask again") from None
            return found

        return ask

    async def _call(self, method: str, *given: Any) -> Any:
        if self._handle is None:
            self._handle = await asyncio.to_thread(self._find)  # it asks the control store, which may be slow
        try:
            return await getattr(self._handle, method).remote(*given)
        except ray.exceptions.RayError:
            self._handle = None
            raise


def directory() -> Any:
    """The handle of the directory's actor, which is made if need be: on the head, which no other node takes along."""
    return _detached(Directory, DIRECTORY, {HEAD: 0.001})


def demand() -> Any:
    """The handle of the actor that hears what is asked of models that scale; made if need be."""
    return _detached(Demand, DEMAND, {HEAD: 0.001})


def registrar() -> Any:
    """The handle of the actor that acts on the registry, which is made if need be: on the head, where its folder is."""
    from actors.registry.service import Registrar  # noqa: PLC0415 - as above

    return _detached(Registrar, "registry", {HEAD: 0.001})


def watching(surroundings: Mapping[str, Any]) -> Any:
    """The handle of the actor that begins runs of pipelines, which is made if need be: on the head, as above."""
    from pipelines.lifecycle.watch import Watching  # noqa: PLC0415 - as above

    return _detached(Watching, "pipelines", {HEAD: 0.001}, surroundings)


def _detached(kind: type, name: str, resources: Mapping[str, float] | None = None, *given: Any) -> Any:
    return (
        ray.remote(kind)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources=dict(resources or {}),
            max_restarts=-1,
            max_concurrency=1000,
        )
        .remote(*given)
    )
