"""When `deploy` may say that it is done."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cluster.errors import NotReady, Unavailable
from pipelines.cli import serving
from pipelines.settings import Settings

SETTINGS = Settings.of({"models": [{"name": "new", "path": "m"}], "cluster": {"ready_seconds": 0.001}})


def deployment(status: str, message: str = "") -> Any:
    return SimpleNamespace(status=SimpleNamespace(value=status), message=message, replica_states={})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Serve says of the application, and what `/ready` answers, each a value that the test sets."""
    made = SimpleNamespace(status="RUNNING", deployments={}, ready={"new": True}, asked=0, waiting=[])

    def answer(request: httpx.Request) -> httpx.Response:
        made.asked += 1
        return httpx.Response(200 if all(made.ready.values()) else 503, json={"models": made.ready})

    client = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **given: client(transport=httpx.MockTransport(answer), base_url=given["base_url"])
    )
    monkeypatch.setattr(serving, "_application", lambda: made)
    monkeypatch.setattr(serving.places, "waiting", lambda models: made.waiting)
    return made


def test_it_is_done_when_serve_is_and_the_gateway_names_the_models(world: SimpleNamespace) -> None:
    serving.wait(SETTINGS, "key", lambda _: None)
    assert world.asked == 1


@pytest.mark.parametrize(
    ("status", "ready", "says"),
    [
        ("DEPLOYING", {"new": True}, "waiting until Serve says"),  # the gang that is being replaced answers
        ("UNHEALTHY", {"new": True}, "waiting until Serve says"),
        ("RUNNING", {"old": True}, "first token of new"),  # the gateway that is being replaced answers
        ("RUNNING", {"old": True, "new": True}, "serves nothing else"),
        ("RUNNING", {"new": False}, "first token of new"),
    ],
)
def test_an_answer_of_what_was_there_before_is_not_believed(
    world: SimpleNamespace, status: str, ready: dict[str, bool], says: str
) -> None:
    world.status, world.ready = status, ready
    told: list[str] = []
    with pytest.raises(NotReady, match=says):
        serving.wait(SETTINGS, "key", told.append)


def test_a_failure_ends_the_wait_with_its_reason(world: SimpleNamespace) -> None:
    world.status, world.ready = "DEPLOY_FAILED", {"new": False}
    failed = deployment("DEPLOY_FAILED", "Traceback\ncluster.errors.ModelInvalid: /m: is broken; fetch it again\n")
    world.deployments = {"gateway": deployment("HEALTHY"), "model-new": failed}
    with pytest.raises(Unavailable, match="model-new is unavailable: /m: is broken; fetch it again; the whole story"):
        serving.wait(SETTINGS, "key", lambda _: None)


def test_a_gang_that_waits_for_a_place_is_told_of_with_its_reason(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.status, world.ready = "DEPLOYING", {"new": False}
    world.waiting = ["new: 1 gang waits for a place: each needs 4 CPU on one node; there is a: 2 CPU free; add a node"]
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.0)
    told: list[str] = []
    settings = SETTINGS.model_copy(update={"cluster": SETTINGS.cluster.model_copy(update={"ready_seconds": 0.35})})
    with pytest.raises(NotReady, match=r"there is a: 2 CPU free; add a node for 0.35 s"):
        serving.wait(settings, "key", told.append)
    assert told == ["waiting for the first token of new", f"waiting for the first token of new; {world.waiting[0]}"]


@pytest.mark.parametrize(("starting", "lines"), [(1, 1), (0, 0)])
def test_a_gang_that_fails_to_start_is_told_while_it_is_tried(starting: int, lines: int) -> None:
    message = (
        "A replica failed to start with exception. Retrying. Error:\n"
        "[Node 127.0.0.1] Traceback (most recent call last):\n"
        "OSError: Failed to download runtime_env file package gcs://x.zip\n"
    )
    found = {"model-a": {"message": message, "replicas": {"RUNNING": 1, "STARTING": starting}}}
    said = serving.troubles(["a", "b"], found)
    assert len(said) == lines
    for line in said:
        assert line.startswith("a: a gang failed to start and is tried again: OSError: Failed to download")
