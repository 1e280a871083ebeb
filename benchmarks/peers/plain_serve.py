"""The same model behind the same HTTP front in plain Ray Serve: each replica is one process with the engine in it.

What Serve does by itself when such a replica dies or freezes is what `failover_seconds` compares us with.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Mapping
from pathlib import Path
from typing import Any

from actors.engine import LLM, SamplingParams
from actors.engine.thread import EngineThread
from actors.messages import Cancel, Delta, Load, Submit
from cluster import loopback
from cluster.errors import revived
from cluster.security.keys import KeyRing
from pipelines.chaos.faults import Gang, Sight, Target
from pipelines.chat import Served
from pipelines.gateway import app as gateway
from pipelines.gateway.settings import GatewaySettings

NAME = "plain"


class Near:
    """The engine of this process as a client that the gateway can ask."""

    ready = True
    registry: Mapping[str, str] = {}

    def __init__(self, llm: LLM) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, NearStream] = {}
        self._next = 0
        self.context_tokens = llm.engine.capacity
        self.loads = {NAME: Load()}
        self.thread = EngineThread(llm.engine, self._publish, lambda _: os._exit(1))
        self.thread.start()

    async def submit(
        self, prompt: tuple[int, ...], params: SamplingParams, *, seed: int, choice: int = 0, salt: str = "",
        priority: int = 0, deadline: float | None = None,
    ) -> "NearStream":  # fmt: skip
        self._next += 1
        stream = self._streams[self._next] = NearStream(self, self._next)
        more = {"deadline": deadline, "priority": priority}
        self.thread.post(NAME, Submit(self._next, prompt, params, seed, choice, salt, **more))
        return stream

    def admit(self, tokens: int, *, priority: int = 0, deadline: float | None = None) -> None:
        """Everybody."""

    def cancel(self, number: int) -> None:
        self.thread.post(NAME, Cancel(number))

    def _publish(self, grown: Mapping[Hashable, list[Delta]], load: Load) -> None:
        self._loop.call_soon_threadsafe(self._hand_out, grown.get(NAME, []), load)

    def _hand_out(self, deltas: list[Delta], load: Load) -> None:
        self.loads = {NAME: load}
        for delta in deltas:
            stream = self._streams.get(delta.id)
            if stream is not None:
                stream.arrived.put_nowait(delta)
            if delta.finish is not None:
                self._streams.pop(delta.id, None)


class NearStream:
    """One sequence's deltas."""

    lost = 0

    def __init__(self, client: Near, number: int) -> None:
        self._client, self._number = client, number
        self.arrived: asyncio.Queue[Delta] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            delta = await self.arrived.get()
            if delta.error is not None:
                raise revived(*delta.error)
            yield delta
            if delta.finish is not None:
                return

    def drain(self) -> list[Delta]:
        return []

    def cancel(self) -> None:
        self._client.cancel(self._number)

    def pause(self) -> bool:
        self.cancel()
        return False


class Plain:
    """One replica."""

    async def __init__(self, folder: str, model: str, keys_file: str) -> None:
        loopback.narrow()
        llm = await asyncio.to_thread(LLM, folder, max_num_batched_tokens=512, kv_cache_tokens=65536)
        served = {model: Served(model, Near(llm), llm.tokenizer)}
        self._app = gateway.create(served, KeyRing(Path(keys_file)), GatewaySettings(resume_seconds=0))

    def __serve_build_asgi_app__(self) -> Any:
        return self._app


def deploy(folder: Path, model: str, keys_file: Path, replicas: int) -> None:
    """Returns when it answers. Health is looked at as often as with us: Serve's defaults take minutes."""
    from ray import serve

    made = serve.deployment(serve.ingress()(Plain)).options(
        name=NAME, num_replicas=replicas, max_ongoing_requests=100_000, ray_actor_options={"num_cpus": 1},
        health_check_period_s=0.3, health_check_timeout_s=10.0,
    )  # fmt: skip
    serve.run(made.bind(str(folder.absolute()), model, str(keys_file)), name=NAME, route_prefix="/")


class PlainStage:
    """Its processes, as `pipelines.chaos.run.Stage` wants them."""

    def __init__(self) -> None:
        self._struck: set[int] = set()

    def sight(self) -> Sight:
        from ray.serve.context import _get_global_client

        details = _get_global_client().get_serve_details()["applications"][NAME]["deployments"][NAME]
        running = [each for each in details["replicas"] if _word(each["state"]) == "RUNNING"]
        return Sight(
            tuple(
                Gang(NAME, each["replica_id"], each["node_id"], each["pid"], ())
                for each in running
                if each["pid"] not in self._struck
            )
        )

    def strike(self, target: Target, how: signal.Signals) -> None:
        self._struck.add(target.pid)
        os.kill(target.pid, how)

    def still(self) -> list[str]:
        return []

    def counts(self) -> Counter[str]:
        return Counter()


def _word(state: Any) -> str:
    return str(getattr(state, "value", state))
