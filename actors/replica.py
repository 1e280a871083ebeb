"""A replica: a Serve replica that leads one gang of shard actors in its own placement group.

The leader (no GPU, no core of its own) lives in bundle 0 beside rank 0; bundle i holds rank i. Ray places, starts and
watches the ranks; no step of theirs is an actor call. Any rank's death or silence ends the leader's process, Serve
removes the whole group and makes a new one.
"""

import asyncio
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray
import structlog
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors import copied
from actors.channel import Alive
from actors.demand import DEMAND, Fare
from actors.directory import ANNOUNCE_SECONDS, Entry
from actors.engine.admission import Facts, guessed_tokens
from actors.engine.loop import Engine
from actors.engine.thread import EngineThread
from actors.engine.tokens import Tokenizer
from actors.gang import Gang
from actors.heart import Beating
from actors.leader_link import LinkServer
from actors.messages import Assignment, Delta, Load, SamplingParams, ShardFacts, Submit
from actors.quiet import Quiet
from actors.settings import ModelSettings, Pinned
from actors.vigil import Vigil
from cluster import loopback
from cluster.errors import NotReady, ReplicaLost, StrataError, revived
from cluster.telemetry import logs

log = structlog.get_logger(__name__)

_FIRST_TOKENS = 4
_FIRST_TOKEN_SECONDS = 120.0
NAMESPACE = "strata"
_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.5  # how often ranks that load are looked at
_LAST_WORDS_SECONDS = 0.05  # for the frames that tell the gateways; then the process ends


class ShardActor:
    """`shard.Shard` as a Ray actor. torch is imported in its process, never in the leader's."""

    def __init__(self, assignment: Assignment, channel: str) -> None:
        self._beating = Beating(channel, assignment.rank, assignment.ranks)
        from actors.shard import Shard  # noqa: PLC0415 — torch

        self._shard = Shard(assignment)

    def load(self) -> ShardFacts:
        """See `Shard.load`."""
        return self._shard.load()

    def serve(self, blocks: int, context_tokens: int, end_tokens: tuple[int, ...], leader: int) -> None:
        """See `Shard.serve`; returns when the leader, process `leader`, says so."""
        Vigil(leader).start()
        with self._beating as channel:
            self._shard.serve(channel, blocks, context_tokens, end_tokens)


class Actors:
    """A launcher that makes one actor a bundle of the leader's placement group."""

    def __init__(self, assignment: Assignment, group: PlacementGroup, cpus: int, gpus: int) -> None:
        self._assignment, self._group, self._cpus, self._gpus = assignment, group, cpus, gpus
        self._actors: list[Any] = []
        self._serving: list[Any] = []
        self._closing = False

    def load(self, channel: str, rendezvous: str, starting: Alive) -> Sequence[ShardFacts]:
        self._actors = [self._actor(rank, channel, rendezvous) for rank in range(self._assignment.ranks)]
        loading = [actor.load.remote() for actor in self._actors]
        pending = loading
        try:
            while pending:
                done, pending = ray.wait(pending, timeout=_LOOK_SECONDS)
                ray.get(done)  # at once: while one has failed, the others may wait for it
                starting()
            facts: Sequence[ShardFacts] = ray.get(loading)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, StrataError) else ReplicaLost("a shard", repr(cause))) from None
        except ray.exceptions.RayError as error:
            raise ReplicaLost("a shard", f"it died while it loaded: {str(error).splitlines()[0]}") from None
        finally:
            if pending:
                self.close()  # a rank that still waits for the others would make files again
                ray.wait(loading, num_returns=len(loading), timeout=_KILL_SECONDS)
        return facts

    def serve(self, blocks: int, context_tokens: int, end_tokens: tuple[int, ...], quiet: Quiet) -> None:
        mine = os.getpid()
        self._serving = [actor.serve.remote(blocks, context_tokens, end_tokens, mine) for actor in self._actors]
        threading.Thread(target=self._watch, args=(quiet,), name="watch", daemon=True).start()

    def close(self) -> None:
        self._closing = True
        for actor in self._actors:
            ray.kill(actor)

    def _actor(self, rank: int, channel: str, rendezvous: str) -> Any:
        ranks = self._assignment.ranks
        placed = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
        mine = replace(self._assignment, rank=rank, rendezvous=rendezvous if ranks > 1 else None)
        remote = ray.remote(ShardActor)
        return remote.options(num_cpus=self._cpus, num_gpus=self._gpus, scheduling_strategy=placed).remote(
            mine, channel
        )

    def _watch(self, quiet: Quiet) -> None:
        done, _ = ray.wait(self._serving, num_returns=1)
        if self._closing:
            return
        reason = "ended"
        try:
            ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            reason = f"failed: {error.cause!r}"
        except ray.exceptions.RayError as error:
            reason = f"died: {str(error).splitlines()[0]}"
        quiet.problem = f"rank {self._serving.index(done[0])} {reason}"


class Replica:
    """The leader of one gang: the class that Serve deploys."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ModelSettings, device: str, directory: str, drain_seconds: float
    ) -> None:
        """`device` is "cpu" or "cuda"; `directory` the name of its actor."""
        loopback.narrow()
        logs.configure()
        self._settings, self._device = settings, device
        self._host = ray.util.get_node_ip_address()
        self._directory_name, self._drain_seconds = directory, drain_seconds
        self._directory = ray.get_actor(directory, namespace=NAMESPACE)
        self._name = f"{settings.name}#{os.urandom(4).hex()}"
        self._demand: Any = None
        self._load = Load()
        self._problem: StrataError | None = None
        await asyncio.to_thread(self._start)
        self._announcing = asyncio.create_task(self._announce())
        log.info("replica_up", model=settings.name, replica=self._name, kv_blocks=self._gang.blocks)

    async def check_health(self) -> None:
        """Raises when the gang is gone; busy is healthy."""
        if self._problem is not None:
            raise self._problem

    async def __del__(self) -> None:
        """Let the running sequences end, then close. Serve calls this when it takes the replica down."""
        if not hasattr(self, "_announcing"):
            return
        self._announcing.cancel()
        with suppress(ray.exceptions.RayError, TimeoutError):  # without the directory nobody new comes either
            async with asyncio.timeout(ANNOUNCE_SECONDS):
                await self._directory.withdraw.remote(self._name)
                if self._demand is not None:
                    await self._demand.leaves.remote(self._settings.name, self._name)
        try:
            await asyncio.to_thread(self._thread.rest, self._drain_seconds)
        finally:
            await asyncio.to_thread(self._close)

    def _start(self) -> None:
        settings = self._settings
        copied.ensure(settings)  # all shards of a gang are on its leader's machine
        ends = Tokenizer.from_folder(Path(settings.path)).end_tokens
        assignment = Assignment(
            model=settings.name,
            path=settings.path,
            dtype=settings.dtype,
            rank=0,
            ranks=settings.tensor_parallel_size,
            device=self._device,
            cpus=settings.shard_cpus,
            limits=settings.limits,
            speculation=settings.speculation,
            draft_model=settings.draft_model,
            quantization=settings.quantization,
            kv_cache_dtype=settings.kv_cache_dtype,
            deterministic=settings.deterministic,
            load_silence_seconds=settings.load_silence_seconds,
        )
        group = ray.util.get_current_placement_group()
        gpus = 1 if self._device == "cuda" else 0
        self._gang = Gang(assignment, Actors(assignment, group, settings.shard_cpus, gpus), ends)
        gang = self._gang
        guesses = guessed_tokens(assignment)
        facts = Facts(settings.name, gang.vocab_size, gang.context_tokens, gang.blocks, ends, guesses, gang.places)
        secret = ray.get(self._directory.secret.remote())
        self._server = LinkServer(self._host, self._name, secret, self._hung)
        self._probe: SimpleQueue[Delta] = SimpleQueue()
        self._engine = Engine(gang, facts, settings.limits)
        self._thread = EngineThread(self._engine, self._publish, self._lost)
        self._thread.start()
        self._prove(facts.name)
        self._server.start(self._thread)

    def _prove(self, model: str) -> None:
        """One real token through all ranks, or this replica is not up; where there is room a few more, to see how long
        a step of one sequence lasts before others are beside it.
        """
        tokens = min(_FIRST_TOKENS, self._engine.capacity - 1)
        params = SamplingParams(temperature=0.0, max_tokens=max(1, tokens), ignore_eos=True)
        self._thread.post(self, Submit(0, (0,), params, seed=0))
        while True:
            delta = self._probe.get(timeout=_FIRST_TOKEN_SECONDS)
            if delta.error is not None:
                raise NotReady(model, f"its first token failed: {revived(*delta.error)}")
            if delta.finish is not None:
                return

    def _publish(self, deltas: Any, load: Load) -> None:
        for delta in deltas.get(self, ()):
            self._probe.put(delta)
        self._load = load
        self._server.publish(deltas, load)

    def _hung(self) -> None:
        self._lost(ReplicaLost(self._name, "its engine stands still"))

    def _lost(self, error: StrataError) -> None:
        log.error("replica_lost", model=self._settings.name, replica=self._name, reason=str(error))
        self._problem = error
        threading.Timer(_LAST_WORDS_SECONDS, partial(os._exit, 1)).start()

    def _close(self) -> None:
        self._thread.close()
        self._server.close()
        self._gang.close()

    async def _announce(self) -> None:
        gang, first = self._gang, self._gang.facts[0]
        entry = Entry(
            model=self._settings.name,
            replica=self._name,
            host=self._host,
            port=self._server.port,
            node=ray.get_runtime_context().get_node_id(),
            context_tokens=min(gang.context_tokens, gang.blocks * self._settings.limits.block_tokens),
            kv_tokens=gang.blocks * self._settings.limits.block_tokens,
            leader_pid=os.getpid(),
            shard_pids=tuple(fact.pid for fact in gang.facts),
            cores=tuple(fact.cores for fact in gang.facts),
            load_seconds=first.load_seconds,
            registry=tuple(self._settings.told.items()) if isinstance(self._settings, Pinned) else (),
        )
        while self._problem is None:
            try:
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    self._server.know(await self._directory.announce.remote(entry))
            except (ray.exceptions.RayError, TimeoutError):
                with suppress(ValueError, ray.exceptions.RayError):  # it is being remade, perhaps under a new handle
                    self._directory = await asyncio.to_thread(ray.get_actor, self._directory_name, NAMESPACE)
            if self._settings.scaling is not None:
                await self._report(entry.context_tokens)
            await asyncio.sleep(ANNOUNCE_SECONDS)

    async def _report(self, context_tokens: int) -> None:
        """Say how the gang fares. Without who asks for it, the number of gangs stays as it is."""
        load, lately = self._load, self._engine.lately.ask()
        fare = Fare(
            lately.waited,
            load.kv_used,
            min(1.0, load.running / max(1, load.places)),
            lately.first_token,
            lately.per_second,
            load.running + load.waiting > 0,
            context_tokens,
        )
        try:
            if self._demand is None:
                self._demand = await asyncio.to_thread(ray.get_actor, DEMAND, NAMESPACE)
            async with asyncio.timeout(ANNOUNCE_SECONDS):
                await self._demand.fares.remote(self._settings.name, self._name, fare)
        except (ValueError, ray.exceptions.RayError, TimeoutError):
            self._demand = None
