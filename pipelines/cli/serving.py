"""Bring the application onto a Ray cluster and wait until it makes tokens. What `up` and `deploy` share.

Knows Serve. Knows nothing of terminals: it reports by calling `tell`. Its caller is a driver of the cluster already.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import httpx

from cluster.errors import NotReady, Unavailable
from pipelines.settings import Settings

APPLICATION = "strata"
LOOK_SECONDS = 2.0  # how often Serve is asked what it is doing while nothing answers yet
Tell = Callable[[str], None]


def publish(settings: Settings) -> None:
    """Deploy the application; returns when Serve has taken it, which is before it answers.

    Raises what `build` raises, before anything is deployed.
    """
    from ray import serve  # noqa: PLC0415 - not before Ray's environment stands

    from pipelines.app import answer, build  # noqa: PLC0415 - as above

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    application = build(settings)
    answer(settings.cluster)
    target = serve.RunTarget(application, name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)


def wait(settings: Settings, key: str, tell: Tell) -> None:
    """Until `/ready` says that every model made a token through all its ranks.

    Raises NotReady after a while and Unavailable, with Serve's reason, as soon as the deployment has failed.
    """
    deadline = time.monotonic() + settings.cluster.ready_seconds
    look, said = time.monotonic() + LOOK_SECONDS, ""
    with httpx.Client(base_url=settings.cluster.url, trust_env=False, timeout=5.0) as http:
        while (state := _ready(http, key)) != "ready":
            now = time.monotonic()
            if now > look:
                look = now + LOOK_SECONDS
                _check_failed()
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


def _ready(http: httpx.Client, key: str) -> str:
    try:
        response = http.get("/ready", headers={"authorization": f"Bearer {key}"})
        if response.is_success:
            return "ready"
        waiting = [name for name, ready in response.json()["models"].items() if not ready]
        return f"waiting for the first token of {', '.join(waiting)}"
    except (httpx.TransportError, ValueError, KeyError, TypeError, AttributeError):
        return "waiting for the gateway"


def _application() -> Any:
    from ray import serve  # noqa: PLC0415 - not before Ray's environment stands

    return serve.status().applications.get(APPLICATION)


def _check_failed() -> None:
    application = _application()
    if application is None or application.status != "DEPLOY_FAILED":
        return
    messages = [found.message for found in application.deployments.values() if "FAIL" in found.status.value.upper()]
    reason = " ".join([*messages, application.message])
    raise Unavailable("the application", _last_words(reason))


def _last_words(reason: str) -> str:
    """The end of Serve's report, which is a traceback with its cause in the last line."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[-1] if lines else "Serve gives no reason"
