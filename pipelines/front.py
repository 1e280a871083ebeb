"""The deployment in front: the gateway's ASGI app and its links to every model's replicas."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from actors import copied
from actors.engine.tokens import Tokenizer
from actors.replicas import Hold, Replicas
from actors.roster import Roster
from actors.settings import ModelSettings
from actors.wishes import Wishes
from cluster import loopback
from cluster.scheduling import admission
from cluster.security.keys import KeyRing
from cluster.telemetry import logs
from cluster.telemetry.metrics import Metrics
from pipelines import places, placing
from pipelines.chat import Served
from pipelines.gateway import app as gateway
from pipelines.gateway.evaluator import Evaluator
from pipelines.links import Calls, Watcher, demand, registrar
from pipelines.lookout import Lookout
from pipelines.routing.guide import Guide
from pipelines.routing.route import first
from pipelines.routing.settings import RouteSettings
from pipelines.settings import Settings
from pipelines.withdrawal import Withdrawal


class Gateway:
    """One gateway replica: the ASGI app and its links to every model's replicas."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, *_models: Any, control: Any = None
    ) -> None:
        """`_models` are handles that nobody calls: they make Serve deploy the models with the gateway.

        `control` is that of who owns the routes, where there are any.
        """
        loopback.narrow()
        logs.configure()
        hold = Hold(settings.gateway.hold_seconds, settings.gateway.held_requests)
        rules = admission.Rules(settings.gateway.queue_seconds)
        clients = {
            model.name: Replicas(
                model.name,
                settings.gateway.replays,
                hold=hold,
                rules=rules,
                sleeps=sleeps(model),
                serving=model.serving,
            )
            for model in settings.models
        }
        withdrawal = Withdrawal(places.deployed, placing.GATEWAY)
        for name, client in clients.items():
            client.withdrawn = partial(withdrawal.of, placing.deployment_name(name))
        self._roster = Roster(clients, Watcher().watch)
        self._roster.start()
        scaled = {model.name: clients[model.name] for model in settings.models if model.scaling is not None}
        self._wishes = Wishes(scaled, Watcher(demand).tell)
        if scaled:
            self._wishes.start()
        lookout = self._lookout = Lookout(
            partial(places.waiting, settings.models), leaked=places.leaked, sweep=places.sweep, hold=places.hold
        )
        lookout.start()
        for model in settings.models:
            await asyncio.to_thread(copied.ensure, model)
        created = int(time.time())
        served = {
            model.name: Served(model.name, clients[model.name], Tokenizer.from_folder(Path(model.path)), created)
            for model in settings.models
        }
        ring = KeyRing(settings.cluster.keys_file)
        self._guide = guided(settings, clients)
        releases = None if control is None else Calls(control)
        if releases is not None:
            await self._guide.start(releases)
        metrics = Metrics()
        self._evaluator: Evaluator | None = None
        if releases is not None:
            self._evaluator = Evaluator(served, metrics, time.perf_counter, self._guide, releases.cases)
            self._evaluator.start()
        self._app = gateway.create(
            served, ring, settings.gateway, metrics, waiting=lookout.waiting, guide=self._guide, releases=releases,
            registry=Watcher(registrar).registry(settings),
        )  # fmt: skip

    def __serve_build_asgi_app__(self) -> Any:
        return self._app

    async def __del__(self) -> None:
        if hasattr(self, "_roster"):
            self._wishes.close()
            self._lookout.close()
            self._guide.close()
            if self._evaluator is not None:
                self._evaluator.close()
            await self._roster.close()


def guided(settings: Settings, clients: Mapping[str, Replicas]) -> Guide:
    """The routes of the settings, for as long as the gateway has not heard others."""
    routes = {
        model: first(model, settings.routes.get(model, RouteSettings()), versions)
        for model, versions in settings.routed.items()
    }
    return Guide(
        routes,
        lambda name: name in clients and clients[name].ready,
        clients.__contains__,
        lambda name: name in clients and clients[name].rouse(),
    )


def sleeps(model: ModelSettings) -> bool:
    """Whether it may have no gang at all."""
    return model.scaling is not None and model.scaling.min == 0
