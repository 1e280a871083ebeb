"""Bring the application onto a Ray cluster and wait until it makes tokens. What `up` and `deploy` share.

Knows Serve. Knows nothing of terminals: it reports by calling `tell`. Its caller is a driver of the cluster already.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

import httpx

from actors.directory import Entry
from cluster import runtime
from cluster.errors import NotReady, Unavailable
from pipelines import places, placing
from pipelines.cli.reasons import sentence
from pipelines.lookout import Lasting
from pipelines.placing import APPLICATION
from pipelines.settings import Settings

LOOK_SECONDS = 0.5  # how often Serve is asked what it is doing while it replaces something
STEADY_SECONDS = 2.0  # and when it says that it is done
HEAVY = ("ray.serve", "pipelines.app")
Tell = Callable[[str], None]
_FAILED = "failed to start"  # in what Serve says of a replica whose actor, or whose constructor, came to nothing


def anticipate(settings: Settings) -> threading.Thread:
    """Import what `publish` needs, two seconds of work, while whoever calls this waits for Ray to start."""
    os.environ.update(runtime.environment(settings.cluster))  # Ray reads it when it is imported
    thread = threading.Thread(target=lambda: [import_module(name) for name in HEAVY], name="imports", daemon=True)
    thread.start()
    return thread


def publish(settings: Settings, check: Callable[[], None] = lambda: None) -> Settings:
    """Deploy the application; returns when Serve has taken it, which is before it answers: what is deployed, with the
    versions besides that users have until others answer.

    `check` is called just before Serve is given it, as versions may be copied for minutes until then. Raises what it
    and `build` raise, before anything is deployed, and Unavailable if Serve itself does not come up.
    """
    import ray  # noqa: PLC0415 - not before Ray's environment stands
    from ray import serve  # noqa: PLC0415

    from pipelines.app import answer, compose, overlapping, settle  # noqa: PLC0415 - as above

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        settings = overlapping(settle(settings))
        application = compose(settings)
        target = serve.RunTarget(application, name=APPLICATION, route_prefix="/")
        with _beside(partial(answer, settings.cluster)) as answering:  # models need not wait until HTTP is there
            _controlled(answering)
            check()
            serve.run_many([target], wait_for_applications_running=False)
            answering.result()
        return settings
    except (ray.exceptions.RayError, ray.serve.exceptions.RayServeException) as wrong:
        raise Unavailable("Serve", f"{sentence(str(wrong))}; its logs are in {logs(settings)}") from None


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator["Future[None]"]:
    """Have `work` done in a thread, which what fails inside does not wait for."""
    thread = ThreadPoolExecutor(1, "beside")
    try:
        yield thread.submit(work)
    finally:
        thread.shutdown(wait=False)


def _controlled(starting: "Future[None]") -> None:
    """Until Serve has a controller, which takes what is deployed. Raises what `starting` it raised."""
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - not before Ray's environment stands

    while not starting.done():
        if _get_global_client(raise_if_no_controller_running=False) is not None:
            return
        time.sleep(0.05)
    starting.result()


def wait(settings: Settings, key: str, tell: Tell) -> None:
    """Until what `publish` asked for is what answers: Serve has nothing left to replace, and `/ready` names each model.

    Either alone may be said of what was there before. Raises NotReady after a while and Unavailable, with the reason,
    as soon as the deployment has failed.
    """
    names = {model.name for model in settings.models}
    deadline = time.monotonic() + settings.cluster.ready_seconds
    look, said, settled = 0.0, "", False
    lasting, why = Lasting(), ""
    with httpx.Client(base_url=settings.cluster.url, trust_env=False, timeout=5.0) as http:
        while True:
            now = time.monotonic()
            if now >= look:
                look = now + (LOOK_SECONDS if not settled else STEADY_SECONDS)
                settled = _settled(settings)
                why = "" if settled else "; ".join(lasting.of(waits(settings)).values())
            state = _ready(http, key, names) or _followed(http, key, settings)
            if settled and not state:
                return
            look = look if state else now  # all that is missing is Serve's word: ask at every turn
            state = state or "waiting until Serve says that all is in place"
            state = f"{state}; {why}" if why else state
            if now > deadline:
                raise NotReady("the gateway", f"{state} for {settings.cluster.ready_seconds:g} s; see `strata status`")
            if state != said:
                tell(state)
                said = state
            time.sleep(0.1)


def withdraw() -> None:
    """Let running answers end, then take everything off the cluster."""
    from ray import serve  # noqa: PLC0415 - not before Ray's environment stands

    serve.shutdown()


def states() -> dict[str, dict[str, Any]]:
    """What Serve says of each deployment: its state, its message, how many replicas are in which state."""
    application = _application()
    return {
        name: {
            "status": found.status.value,
            "message": found.message,
            "replicas": {str(getattr(state, "value", state)): count for state, count in found.replica_states.items()},
        }
        for name, found in (application.deployments.items() if application else ())
    }


def waits(settings: Settings) -> list[str]:
    """Why gangs wait for a place or fail to start: a line for each model, which begins with its name."""
    return places.waiting(settings.models) + troubles([model.name for model in settings.models], states())


def troubles(models: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of models whose gangs fail to start, why they did; `found` is what `states` says."""
    told = {name: found.get(placing.deployment_name(name), {"message": "", "replicas": {}}) for name in models}
    return [
        f"{name}: a gang failed to start and is tried again: {sentence(state['message'])}"
        for name, state in told.items()
        if _FAILED in state["message"]
        and state["replicas"].get("STARTING")  # Serve says it for a while after it is true
    ]


def scaling() -> dict[str, dict[str, Any]]:
    """How many gangs were decided for each model that scales, and why; nothing where none does."""
    import ray  # noqa: PLC0415 - not before its environment stands

    from actors.demand import DEMAND  # noqa: PLC0415
    from actors.replica import NAMESPACE  # noqa: PLC0415

    with suppress(ValueError, ray.exceptions.RayError):
        asked = ray.get_actor(DEMAND, namespace=NAMESPACE).decided.remote()
        decided: dict[str, dict[str, Any]] = ray.get(asked, timeout=5)
        return decided
    return {}


def gangs() -> Collection[Entry]:
    """The gangs that the directory knows; none while it is being remade."""
    import ray  # noqa: PLC0415 - not before its environment stands

    from actors.replica import NAMESPACE  # noqa: PLC0415
    from pipelines.links import DIRECTORY  # noqa: PLC0415

    with suppress(ValueError, ray.exceptions.RayError):
        entries: Collection[Entry] = ray.get(ray.get_actor(DIRECTORY, namespace=NAMESPACE).entries.remote(), timeout=5)
        return entries
    return ()


def nodes() -> list[tuple[str, frozenset[str], bool]]:
    """The nodes that live: id, what else they are called (address, name, resources of their own), whether the head."""
    import ray  # noqa: PLC0415 - not before its environment stands

    return [
        (
            node["NodeID"],
            frozenset({node["NodeManagerAddress"], node["NodeName"], *node["Resources"]} - {"CPU", "GPU", "memory"}),
            runtime.HEAD in node["Resources"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def drain(node: str, seconds: float) -> None:
    """Tell Ray that a node goes after `seconds` at the latest: nothing new starts there, and Serve moves its gangs.

    Raises Unavailable where Ray refuses.
    """
    import ray  # noqa: PLC0415 - not before its environment stands
    from ray.core.generated import autoscaler_pb2  # noqa: PLC0415

    store = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    until = round((time.time() + seconds) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # the one that may not be refused
    taken, why = store.drain_node(node, reason, "strata drain", until)
    if not taken:
        raise Unavailable(f"the drain of node {node[:8]}", why)


def logs(settings: Settings) -> str:
    """Where the logs of what Serve runs lie, on the machine that it runs on."""
    if settings.cluster.address != "local":
        return "Ray's session folder of that node, under logs/serve"
    return str(settings.cluster.run_dir / "ray" / "session_latest" / "logs" / "serve")


def _ready(http: httpx.Client, key: str, names: set[str]) -> str:
    """Nothing if the gateway says that all of these models are ready and knows no others, else what is missing."""
    try:
        response = http.get("/ready", headers={"authorization": f"Bearer {key}"})
        models: dict[str, bool] = response.json()["models"]
        waiting = sorted(name for name in names if not models.get(name))
    except (httpx.TransportError, ValueError, KeyError, TypeError, AttributeError):
        return "waiting for the gateway"
    if waiting:
        return f"waiting for the first token of {', '.join(waiting)}"
    return "" if set(models) == names else "waiting for the gateway that serves nothing else"


def _followed(http: httpx.Client, key: str, settings: Settings) -> str:
    """Nothing if users have the versions that they are to have, else which these are."""
    if not any(route.release for route in settings.routes.values()):
        return ""
    try:
        rows = http.get("/v1/routes", headers={"authorization": f"Bearer {key}"}).json()["data"]
        follow = {row["model"]: row["follow"] for row in rows if row["follow"]}
    except (httpx.TransportError, ValueError, KeyError, TypeError):
        return "waiting for the controller of releases"
    return "; ".join(f"users of {model} get {' and '.join(each)} next" for model, each in follow.items())


def _application() -> Any:
    from ray import serve  # noqa: PLC0415 - not before Ray's environment stands

    return serve.status().applications.get(APPLICATION)


def _settled(settings: Settings) -> bool:
    """Whether Serve has done all that it was asked for. Raises Unavailable where that has failed for good."""
    application = _application()
    if application is None or application.status != "DEPLOY_FAILED":
        return application is not None and application.status == "RUNNING"
    for name, found in application.deployments.items():
        if found.status.value == "DEPLOY_FAILED":
            raise Unavailable(name, f"{sentence(found.message)}; the whole story is in {logs(settings)}")
    raise Unavailable("the application", sentence(application.message) or "Serve gives no reason")
