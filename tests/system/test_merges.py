"""Merge means release, on the whole stack: from a merge request over HTTP to who is live."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from cluster.security.keys import KeyRing
from tests.pipelines.test_webhooks import SECRET, Ear
from tests.system.conftest import Stack, also, deploy, until
from tests.system.model import write

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "talk"
RELEASE = {"on": "main", "steps": [50, 100], "every_seconds": 0.5, "answers": 5, "margin": None, "keep_seconds": 0}


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Who is told what happens."""
    made = Ear()
    yield made
    made.close()


@pytest.fixture
def talk(stack: Stack, ear: Ear, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A model by the alias prod, one more version of it in a branch, and the settings that release it by itself."""
    folder, registry = tmp_path_factory.mktemp("talk"), Registry(stack.settings.state / "registry")
    registry.push(NAME, write(folder / "one"), author="ada")
    Aliases(registry).move(NAME, "prod", "v1", author="ada")
    registry.push(NAME, write(folder / "two", seed=5), author="ada", branch="tuned")
    (folder / "secret").write_text(SECRET)
    hook = {"url": ear.url, "secret_file": str(folder / "secret"), "events": ["merge_request.*", "alias.moved"]}

    def edit(settings: dict[str, Any]) -> None:
        more = {"name": NAME, "registry": f"{NAME}@prod", "tensor_parallel_size": 1, "replicas": 1}
        settings["models"].append({**settings["models"][0], **more})
        del settings["models"][-1]["path"]
        settings |= {"routes": {NAME: {"release": RELEASE}}, "registry": {"webhooks": [hook]}}

    with also(stack, edit):
        yield registry


@contextmanager
def crowd(stack: Stack) -> Iterator[Counter[str]]:
    """Two who ask all the time, each time as another user: the versions that answered. Nobody is failed."""
    over, outcomes, versions = threading.Event(), Counter[int](), Counter[str]()

    def keep_asking(number: int) -> None:
        with httpx.Client(base_url=stack.url, headers=stack.headers, trust_env=False, timeout=60) as http:
            turn = 0
            while not over.is_set():
                turn += 1
                messages = [{"role": "user", "content": "Hello"}]
                body = {"model": NAME, "messages": messages, "max_tokens": 4, "user": f"{number}-{turn}"}
                answer = http.post("/v1/chat/completions", json=body)
                outcomes[answer.status_code] += 1
                versions[answer.headers.get("x-strata-version", "")] += 1

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield versions
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert set(outcomes) == {200}, outcomes


def test_what_is_merged_becomes_live_and_goes_back_and_nobody_is_failed(stack: Stack, talk: Registry, ear: Ear) -> None:
    key = KeyRing(stack.settings.keys_file).issue("bob", "default", "developer", 0)
    with httpx.Client(base_url=stack.url, headers=stack.headers, trust_env=False, timeout=60) as http:

        def call(method: str, path: str, body: Any = None, who: str = stack.key) -> dict[str, Any]:
            answer = http.request(method, f"/v1/registry/models/{NAME}{path}", json=body, headers=bearer(who))
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        with crowd(stack) as versions:
            number = call("POST", "/merge-requests", {"source": "tuned", "title": "Better"}, key)["number"]
            call("POST", f"/merge-requests/{number}/reviews", {"approves": True})
            version = call("POST", f"/merge-requests/{number}/merge", {}, key)["version"]
            until(lambda: call("GET", "/aliases/prod")["version"] == version, 120, lambda: call_routes(http)["waits"])
        assert set(versions) == {"v1", version}
        (rollout,) = (each for each in http.get("/v1/rollouts").json()["data"] if each["terms"]["model"] == NAME)
        assert (rollout["state"], rollout["by"]) == ("promoted", f"merge request !{number}")
        assert call("GET", f"/versions/{version}")["stage"] == "live"
        (card,) = (each for each in http.get("/v1/models").json()["data"] if each["id"] == NAME)
        assert card["strata"]["version"] == version
        until(lambda: call_routes(http)["versions"] == [version], 60)  # the old one has given its place back
        assert call("POST", "/aliases/prod/rollback")["version"] == "v1"
        with crowd(stack) as versions:
            deploy(stack)
            route = call_routes(http)
            assert (route["weights"], route["follow"]) == ({"v1": 100}, []), "deploy returns when it is so"
            until(lambda: call_routes(http)["versions"] == ["v1"], 60)
        assert set(versions) == {"v1", version}
    until(lambda: "alias.moved" in [each["type"] for each in ear.heard], 30)
    assert all(each["good"] for each in ear.heard)
    kinds = [str(each["type"]).removeprefix("merge_request.") for each in ear.heard]
    assert kinds[:4] == ["opened", "reviewed", "merged", "alias.moved"]


def call_routes(http: httpx.Client) -> dict[str, Any]:
    """The model's route; as it was where the controller of releases is being replaced."""
    answer = http.get(f"/v1/routes/{NAME}")
    return (
        dict(answer.json()) if answer.status_code == 200 else {"versions": [], "weights": {}, "follow": [], "waits": ""}
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
