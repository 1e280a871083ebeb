"""Settings in, a Serve application out: the gateway in front, one deployment of gangs for each model.

`strata up`, `strata deploy`, `serve run pipelines.app:build` and a Serve config's `import_path` all come through
`build`. Each deployment has the digest of what it is made of as its version: Serve leaves alone what has not changed.
"""

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import ray
from ray import serve
from ray.serve.context import _get_global_client

from actors.replica import Replica
from actors.settings import ModelSettings
from cluster import runtime
from cluster.errors import Barred, SettingsInvalid, StrataError, Unavailable
from cluster.runtime import HEAD
from cluster.scheduling import placement
from cluster.scheduling.placement import Gang, Node
from cluster.settings import ClusterSettings
from pipelines import placing, preflight, revision, room, scaler, workers
from pipelines.evals import declared
from pipelines.front import Gateway
from pipelines.links import DIRECTORY, demand, directory, watching
from pipelines.placing import APPLICATION
from pipelines.routing.control import Control
from pipelines.settings import Settings, load
from pipelines.standing import Standing

if TYPE_CHECKING:
    from pipelines.releaser import Releaser

log = logging.getLogger("strata.app")

GATEWAY = placing.GATEWAY
CONTROL = "releases"
POST = "webhooks"
_LOGGING = {"encoding": "JSON", "enable_access_log": False}  # the gateway writes its own, with the principal
_GROUP = "ray.io/node-group"  # Ray's label on nodes that an autoscaler started: it may start more
_LOOK_SECONDS = 0.2  # how often what stops looks whether it still answers; a gang sleeps it once, of Serve's 2 s
_ASKED_SECONDS = 10.0
_MANY = 100_000  # Serve's own limit stays out of the way: the engine's queue decides who is refused


def build(settings: Settings | Mapping[str, Any] | None = None) -> serve.Application:
    """The application that `settings` (or the plain mapping of a Serve config's `args`) describes.

    Without settings, those of strata.yaml here and of STRATA_* count. `serve run` calls this before it joins a cluster:
    then the cluster of the settings is joined, and Serve is started to answer where they say.

    Raises SettingsInvalid, ModelInvalid, NotFound, Unavailable or PlacementImpossible before anything is deployed.
    """
    settled = settle(settings)
    if not ray.is_initialized():
        _join(settled.cluster)
    return compose(overlapping(settled))


def compose(settled: Settings) -> serve.Application:
    """The application of settings whose versions are settled, by a driver. Raises as `build`."""
    gangs = [room.gang(model, device_of(model)) for model in settled.models]
    place(settled, gangs)
    standing = Standing.of(_details())
    if standing.environments:  # where nothing answers yet nothing can be lost, and a gang finds the same faults itself
        inspect(settled.models)
    directory()
    if any(model.scaling is not None for model in settled.models):
        demand()
    if watched := _watched(settled):
        watching(watched)
    beside = room.roomy(gangs, free())
    models = [_model(model, settled, beside, standing) for model in settled.models]
    version = revision.of_gateway(settled)
    front = serve.deployment(serve.ingress()(Gateway)).options(
        name=GATEWAY,
        version=version,
        _internal=True,  # as `version` is: without one Serve takes every deployment for a new one
        max_surge_percent=100,  # the new one answers before the old one ends
        num_replicas=1,
        max_ongoing_requests=_MANY,
        ray_actor_options={"num_cpus": 0, "resources": {HEAD: 0.001}, **_code(GATEWAY, version, standing)},
        logging_config=_LOGGING,
        graceful_shutdown_timeout_s=settled.cluster.drain_seconds,
        graceful_shutdown_wait_loop_s=_LOOK_SECONDS,
    )
    if settled.registry.webhooks:
        models.append(_post(settled, standing))
    if not settled.routed:
        return front.bind(settled, *models)
    return front.bind(settled, *models, control=_control(settled, standing))


def _watched(settings: Settings) -> Mapping[str, Any] | None:
    """The surroundings of the pipelines that are watched; None where none is."""
    from pipelines.versions import place_of  # noqa: PLC0415 - what opens the registry takes 0.4 s

    place = place_of(settings)
    if not place.metadata and not (Path(place.folder) / "runs.db").exists():
        return None
    from pipelines.lifecycle.places import watches_of  # noqa: PLC0415 - as above

    there = watches_of(settings).all()
    return there[0].surroundings if there else None


def place(settings: Settings, gangs: Sequence[Gang]) -> None:
    """Say what of the models' placement is not as one may wish. Raises PlacementImpossible for what never can be.

    Nothing is said where an autoscaler of Ray's may add nodes.
    """
    rows = [node for node in ray.nodes() if node["Alive"]]
    if any(_GROUP in node.get("Labels", ()) for node in rows):
        return
    nodes, models, spare = placing.machines(rows), settings.models, settings.cluster.spare_nodes
    planned = placing.plan(nodes, [placing.need(model, device_of(model)) for model in models], spare)
    for note in placing.notes(nodes, planned, {model.name: model for model in models}):
        log.warning("%s", note)
    there = [Node(node["NodeManagerAddress"], node["Resources"]) for node in rows]
    for gang in gangs:
        if placement.gathered(gang, there):
            log.warning("%s: all %d replicas may stand on one node and end with it", gang.model, gang.replicas)


def settle(settings: Settings | Mapping[str, Any] | None) -> Settings:
    """What `build` was given, as settings; those of strata.yaml and the environment where it was given none.

    Versions of models are settled.
    """
    if not isinstance(settings, Settings):
        settings = Settings.of(settings) if settings else load(None, os.environ).settings
    if any(model.registry for model in settings.models):
        from pipelines import versions  # noqa: PLC0415 - what opens the registry takes 0.4 s, and most models are folders

        return versions.pinned(settings)
    return settings


def overlapping(settings: Settings) -> Settings:
    """The settled settings and, of models that are released by themselves, the versions that users have now: these stay
    until the users have others, which `Control` sees to, where all that is new has room beside them.
    """
    released = [name for name, route in settings.routes.items() if route.release is not None]
    standing = Standing.of(_details()) if released else Standing()
    if CONTROL not in standing.environments:
        return settings
    found = settings
    for model, version in _used(released):
        if version in settings.versions.get(model, ()):
            continue
        if not _beside(settings, standing):
            log.warning("%s: %s ends before what replaces it answers: no room for both", model, version)
            continue
        from pipelines import versions  # noqa: PLC0415 - what opens the registry takes 0.4 s, and few are released so

        try:
            found = versions.beside(found, model, version)
        except StrataError as wrong:
            log.warning("%s: %s, which users have, ends before what replaces it answers: %s", model, version, wrong)
    return found


def _used(models: Sequence[str]) -> list[tuple[str, str]]:
    """Each version that users of these models have; none where the controller of releases does not say."""
    control = serve.get_deployment_handle(CONTROL, APPLICATION)
    if not control.is_initialized:  # one is kept for each process
        control._init(_run_router_in_separate_loop=True)  # there is no loop here
    try:
        rows = control.routes.remote().result(timeout_s=_ASKED_SECONDS)
    except (ray.exceptions.RayError, ray.serve.exceptions.RayServeException, TimeoutError) as wrong:
        log.warning("the controller of releases does not say which versions have users: %s", wrong)
        return []
    return [(row["model"], version) for row in rows if row["model"] in models for version in row["weights"]]


def _beside(settings: Settings, standing: Standing) -> bool:
    """Whether all gangs of models that are new have room now, or an autoscaler may make it."""
    new = [each for each in settings.models if placing.deployment_name(each.name) not in standing.environments]
    nodes = [node for node in ray.nodes() if node["Alive"]]
    scaled = any(_GROUP in node.get("Labels", ()) for node in nodes)
    return scaled or room.holds([room.gang(model, device_of(model)) for model in new], free())


def answer(cluster: ClusterSettings) -> None:
    """Start Serve, unless it runs, so that it answers HTTP where the settings say.

    Raises SettingsInvalid where it runs and answers elsewhere: that cannot be changed while it runs.
    """
    there = _get_global_client(raise_if_no_controller_running=False)
    if there is not None and there.http_config.port != cluster.http_port:
        raise SettingsInvalid(
            "cluster.http_port",
            cluster.http_port,
            f"this cluster answers on {there.http_config.port}; give that port, or stop Serve there first",
        )
    serve.start(
        proxy_location="HeadOnly" if cluster.proxies == "head" else "EveryNode",
        http_options={"host": cluster.host, "port": cluster.http_port},
    )


def _join(cluster: ClusterSettings) -> None:
    """Become a driver and have Serve answer. `serve run` is a command of click's, whose error it shows as one line."""
    try:
        runtime.join(cluster, workers.python())
    except Unavailable as wrong:
        if click.get_current_context(silent=True) is not None:
            raise click.ClickException(str(wrong)) from None
        raise
    answer(cluster)


def inspect(models: Sequence[ModelSettings]) -> None:
    """Look at the models where the gateway will read them: on the head. Raises ModelInvalid and its kin.

    In a process of its own: what reads a hostile folder may die of it, and then nothing is known.
    """
    look = ray.remote(preflight.check).options(num_cpus=0, resources={HEAD: 0.001}, max_retries=0)
    try:
        ray.get(look.remote(tuple(models)))
    except ray.exceptions.RayTaskError as wrong:
        raise (wrong.cause if isinstance(wrong.cause, StrataError) else wrong) from None
    except ray.exceptions.WorkerCrashedError:
        log.warning("the models could not be looked at beforehand: the process that did so died")


def free() -> list[Node]:
    """Each node with what it may still hand out."""
    left = ray._private.state.available_resources_per_node()
    return [Node(name, resources) for name, resources in left.items()]


def _details() -> dict[str, Any]:
    """What Serve runs; nothing where it does not run yet."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return client.get_serve_details() if client else {}


def _code(name: str, version: str, standing: Standing) -> dict[str, Any]:
    mine = {**ray.get_runtime_context().runtime_env, "py_executable": workers.python()}
    return standing.code(name, version, mine)


def _model(model: ModelSettings, settings: Settings, beside: bool, standing: Standing) -> serve.Application:
    device, name = device_of(model), placing.deployment_name(model.name)
    version = revision.of_model(model, device, settings.cluster)
    share = room.SERVES_SHARE if beside else room.at_once(standing.replicas.get(name, 0), model.first_replicas)
    return (
        serve.deployment(rolling_update_percentage=share)(Replica)
        .options(
            name=name,
            version=version,
            _internal=True,
            max_surge_percent=100 if beside else 0,
            **_number(model, name, version, standing),
            max_ongoing_requests=_MANY,
            ray_actor_options={"num_cpus": 0, **_code(name, version, standing)},
            logging_config=_LOGGING,
            placement_group_bundles=[room.bundle(model, device)] * model.tensor_parallel_size,
            placement_group_strategy="STRICT_PACK",
            **_where(model, device),
            health_check_period_s=0.3,  # how soon Serve sees that a leader has ended; a call costs it 1 ms
            health_check_timeout_s=standing.health_seconds(name, secrets.randbits(32)),
            graceful_shutdown_timeout_s=settings.cluster.drain_seconds + 10,
            graceful_shutdown_wait_loop_s=_LOOK_SECONDS,
        )
        .bind(model, device, DIRECTORY, settings.cluster.drain_seconds)
    )


def _control(settings: Settings, standing: Standing) -> serve.Application:
    """Who owns the routes and decides of rollouts: one process, on the head, where its files lie."""
    evals = {model: {name: found.plain for name, found in sets.items()} for model, sets in declared(settings).items()}
    version = revision.of_control(settings, evals)
    routes = {model: route.model_dump(mode="json") for model, route in settings.routes.items()}
    made = _single(Control, CONTROL, version, standing, max_ongoing_requests=_MANY, health_check_period_s=0.3)
    folder = str(settings.cluster.state / "releases")
    return made.bind(routes, settings.routed, folder, evals=evals, releaser=_releaser(settings, version))


def _releaser(settings: Settings, version: str) -> "Releaser | None":
    """Who releases what is merged, in the `version` of the controller; None where no model is released by itself."""
    released = {name: route.release for name, route in settings.routes.items() if route.release is not None}
    if not released:
        return None
    from pipelines import versions  # noqa: PLC0415 - what opens the registry takes 0.4 s, and most release by hand
    from pipelines.releaser import Releaser, Watched  # noqa: PLC0415 - as above

    declared = versions.declared(settings)
    references = {model.name: (model.registry or "").partition("@") for model in declared.models}
    watched = tuple(
        Watched(name, references[name][0], references[name][2], release) for name, release in released.items()
    )
    return Releaser(versions.place_of(settings), watched, partial(redeploy, declared, version))


async def redeploy(settings: Settings, version: str) -> None:
    """Deploy these settings again, as their versions are by now. Raises what `build` and `unchanged` raise.

    `version`: of the controller that was deployed with them.

    In a task on the head: the process that asks is one of those that a deploy may replace.
    """
    publish = ray.remote(_publish).options(num_cpus=0, resources={HEAD: 0.001}, max_retries=0)
    try:
        await publish.remote(settings, version)
    except ray.exceptions.RayTaskError as wrong:
        raise (wrong.cause if isinstance(wrong.cause, StrataError) else wrong) from None
    except ray.exceptions.RayError:
        raise Unavailable("the deploy", "its process ended") from None


def _publish(settings: Settings, version: str) -> None:
    from pipelines.cli import serving  # noqa: PLC0415 - it imports this module

    serving.publish(settings, partial(unchanged, version))


def unchanged(version: str) -> None:
    """Raises Barred where a controller of releases of another `version` has been deployed.

    Its version is the digest of all settings that a release deploys, so others have been deployed since.
    """
    if Standing.of(_details()).version(CONTROL) != version:
        problem = "began from settings that another deploy has replaced meanwhile"
        raise Barred("the deploy of a release", problem, "it begins anew with those that are deployed now")


def _post(settings: Settings, standing: Standing) -> serve.Application:
    """Who tells what happens in the registry: one process, on the head, where its folder is."""
    from pipelines import versions, webhooks  # noqa: PLC0415 - tables and what opens the registry take 0.6 s

    version, hooks = revision.of_webhooks(settings), webhooks.hooks_of(settings, os.environ)
    return _single(webhooks.Post, POST, version, standing).bind(versions.place_of(settings), hooks)


def _single(kind: type, name: str, version: str, standing: Standing, **more: Any) -> serve.Deployment:
    """One process, and never two, on the head."""
    return serve.deployment(kind).options(
        name=name,
        version=version,
        _internal=True,
        max_surge_percent=0,  # never two
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": {HEAD: 0.001}, **_code(name, version, standing)},
        logging_config=_LOGGING,
        graceful_shutdown_timeout_s=1.0,
        graceful_shutdown_wait_loop_s=_LOOK_SECONDS,
        **more,
    )


def _number(model: ModelSettings, name: str, version: str, standing: Standing) -> dict[str, Any]:
    """How many gangs, as Serve's options say it."""
    if model.scaling is None:
        return {"num_replicas": model.first_replicas}
    code = revision.digest(revision.code("cluster", "pipelines"))
    return {"autoscaling_config": scaler.config(model, version, standing.scaled.get(name), code)}


def _where(model: ModelSettings, device: str) -> dict[str, Any]:
    """Which nodes may hold its gangs, as Serve's options say it."""
    selector = placing.selector(model, device)
    every = [selector] * model.tensor_parallel_size
    return {"placement_group_bundle_label_selector": every} if selector else {}


def device_of(model: ModelSettings) -> str:
    """What its shards compute on here, "cpu" or "cuda"."""
    return placing.device_of(model, ray.cluster_resources().get("GPU", 0) if model.device == "auto" else 0)
