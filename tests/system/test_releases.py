"""Versions side by side on the whole stack: bad ones are taken back by themselves, good ones change unnoticed."""

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from pipelines.routing.route import Facts, Ramp, Route, choose
from tests.system.conftest import MODEL, Stack, also, until
from tests.system.model import write

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

USERS = [f"user-{number}" for number in range(3_000)]
SHARE = 0.4  # percent at the first step, so that no more than 0.5 % of these users meet it
ENDS = ("promoted", "rolled back")


@dataclass
class Fair:
    """The stack with versions of its model, and a client of it."""

    stack: Stack
    http: httpx.Client

    def ask(self, user: str, tokens: int = 16) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, "user": user}
        return self.http.post("/v1/chat/completions", json=body | {"ignore_eos": True})

    def begin(self, to: str, steps: list[float], **more: Any) -> str:
        answer = self.http.post("/v1/rollouts", json={"model": MODEL, "to": to, "steps": steps, **more})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["name"])

    def look(self, name: str) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/rollouts/{name}").json())

    def state(self, name: str) -> str:
        return str(self.look(name).get("state", "unavailable"))  # for as long as the controller is away


@pytest.fixture(scope="module")
def fair(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fair]:
    """Three versions more: one like the model, one that says something else, and one of two hundred layers that runs
    one sequence at a time.
    """
    folder = tmp_path_factory.mktemp("models")

    def edit(settings: dict[str, Any]) -> None:
        first = settings["models"][0]
        one = {**first, "tensor_parallel_size": 1, "replicas": 1}
        like = {**one, "name": f"{MODEL}@like"}
        unlike = {**one, "name": f"{MODEL}@unlike", "path": str(write(folder / "unlike", seed=4))}
        slow = {**one, "name": f"{MODEL}@slow", "path": str(write(folder / "slow", layers=200))}
        slow["limits"] = {**first["limits"], "running_sequences": 1, "queued_sequences": 0}
        settings["models"] += [like, unlike, slow]

    with (
        also(stack, edit),
        httpx.Client(base_url=stack.url, headers=stack.headers, trust_env=False, timeout=60) as http,
    ):
        yield Fair(stack, http)


def touched(version: str) -> list[str]:
    """The users who meet a version at its first step."""
    route = Route(MODEL, {"base": 100.0}, ramp=Ramp("base", version, SHARE))
    found = [user for user in USERS if choose(route, Facts("default", user)).version == version]
    assert 3 < len(found) <= 0.005 * len(USERS)
    return found


def taken_back(fair: Fair, name: str, canary: list[str], at_once: int) -> dict[str, Any]:
    """Five answers for each who meets the new version, answers for others beside them; the rollout when it is over."""
    until(lambda: fair.state(name) == "ramping", 30)
    others = [user for user in USERS if user not in canary][:200]
    with ThreadPoolExecutor(at_once) as new:
        beside = [fair.ask(user) for user in others[:150]]
        answers = [new.submit(fair.ask, user) for user in canary * 5]
        beside += [fair.ask(user) for user in others[150:]]
        asked = [answer.result() for answer in answers]
    known = time.monotonic()
    assert {answer.status_code for answer in asked + beside} == {200}, "no user was failed"
    assert {answer.headers["x-strata-version"] for answer in beside} == {"base"}
    while fair.state(name) not in ENDS:
        found = fair.look(name)
        assert time.monotonic() - known < 10, (found["answers"], found["findings"])
    return fair.look(name)


def check(fair: Fair, found: dict[str, Any]) -> None:
    """It was proven and switched off at once; the bound is for a machine that runs much else."""
    assert found["state"] == "rolled back", found["reason"]
    broken, told = (line for line in found["audit"] if line["event"] in ("broken", "told"))
    assert told["at"] - broken["at"] < 5.0
    assert broken["findings"]
    assert fair.ask(touched(found["terms"]["new"])[0]).headers["x-strata-version"] == "base"


def test_a_slow_version_is_taken_back(fair: Fair) -> None:
    canary = touched("slow")
    name = fair.begin("slow", [SHARE, 100], every_seconds=600)
    found = taken_back(fair, name, canary, at_once=1)
    check(fair, found)
    assert any(metric in found["reason"] for metric in ("itl", "ttft", "latency")), found["reason"]


def test_a_version_that_fails_is_taken_back_and_its_users_are_answered(fair: Fair) -> None:
    name = fair.begin("slow", [SHARE, 100], every_seconds=600, margin=None, abort_if=["error_rate > baseline + 5%"])
    found = taken_back(fair, name, touched("slow"), at_once=8)
    check(fair, found)
    assert "error_rate" in found["reason"]


def test_a_version_that_answers_wrongly_is_taken_back_by_questions(fair: Fair) -> None:
    questions = [{"prompt": f"Question {number}?", "max_tokens": 8} for number in range(40)]
    for question in questions:
        body = {"model": MODEL, "messages": [{"role": "user", "content": question["prompt"]}], "max_tokens": 8}
        said = fair.http.post("/v1/chat/completions", json=body | {"temperature": 0}).json()
        question["answer"] = said["choices"][0]["message"]["content"]
    asked = {"evals": {"exact_match": [question for question in questions if question["answer"].strip()]}}
    rules = {"abort_if": ["eval.exact_match < baseline - 0.02"], "margin": None}
    name = fair.begin("unlike", [SHARE, 100], every_seconds=600, **asked, **rules)
    until(lambda: fair.state(name) in ENDS, 30)
    found = fair.look(name)
    check(fair, found)
    assert "eval.exact_match" in found["reason"]
    (broken,) = (line for line in found["audit"] if line["event"] == "broken")
    assert broken["answers"] == 0, "before a user has met it"

    rules["abort_if"] = ["eval.exact_match < baseline - 0.2"]  # it adds up on one rank what the first does on two
    name = fair.begin("like", [SHARE, 100], every_seconds=600, **asked, **rules)
    all_asked = re.compile(r".* (\S+) \(\1 to \1\) against the limit (\S+) \(\2 to \2\), kept")
    until(lambda: any(map(all_asked.fullmatch, fair.look(name)["findings"])), 30)
    fair.http.post(f"/v1/rollouts/{name}", json={"action": "abort"})
    until(lambda: fair.state(name) == "rolled back", 30)


def test_a_version_that_drifts_is_taken_back_by_what_users_are_told_instead(fair: Fair) -> None:
    name = fair.begin(
        "unlike", [SHARE, 100], every_seconds=600, mirror=100, margin=None, abort_if=["shadow.agreement < 0.5"]
    )
    until(lambda: fair.state(name) == "ramping", 30)
    canary = touched("unlike")
    others = itertools.cycle(user for user in USERS if user not in canary)
    until(lambda: fair.ask(next(others), tokens=8).status_code == 200 and fair.state(name) in ENDS, 30)
    found = fair.look(name)
    check(fair, found)
    assert "shadow.agreement" in found["reason"]


def test_an_experiment_is_settled_by_what_users_say(fair: Fair) -> None:
    asked = {"name": "tone", "model": MODEL, "arms": {"base": 50, "like": 50}, "rate": 0.2, "effect": 0.6}
    refused = fair.http.post("/v1/experiments", json=asked | {"users": 10})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "users"), "it could not be settled"
    begun = fair.http.post("/v1/experiments", json=asked | {"users": 1_000})
    assert begun.status_code == 200, begun.text
    until(lambda: any(fair.ask(user, 1).headers["x-strata-version"] == "like" for user in USERS[:8]), 30)

    def rate(user: str) -> str:
        """The version that a user meets, whose answers are liked where they are `like`'s; each says so twice."""
        for _ in range(2):
            answer = fair.ask(user, tokens=2)
            version = answer.headers["x-strata-version"]
            said = {"id": answer.json()["id"], "rating": "up" if version == "like" else "down"}
            assert fair.http.post("/v1/feedback", json=said).status_code == 200
        return version

    users = USERS[:160]
    with ThreadPoolExecutor(4) as crowd:
        met = Counter(crowd.map(rate, users))
    assert min(met.values()) > 50, "160 draws at one half, of users who keep what they drew"

    def arms() -> list[dict[str, Any]]:
        return list(fair.http.get("/v1/experiments/tone").json()["findings"])

    until(lambda: sum(arm["users"] for arm in arms()) >= len(users), 30)
    base, like = arms()
    assert (base["users"], like["users"]) == (met["base"], met["like"]), "each counts once"
    assert like["said"].startswith("better"), like
    ended = fair.http.post("/v1/experiments/tone", json={"action": "end", "keep": "base"})
    assert ended.status_code == 200, ended.text
    until(lambda: {fair.ask(user, 1).headers["x-strata-version"] for user in USERS[:8]} == {"base"}, 30)


def test_good_versions_change_places_under_load_and_nobody_notices(fair: Fair) -> None:
    over, outcomes, versions = threading.Event(), Counter[int](), Counter[str]()

    def keep_asking(users: Iterator[str]) -> None:
        while not over.is_set():
            answer = fair.ask(next(users), tokens=4)
            outcomes[answer.status_code] += 1
            versions[answer.headers.get("x-strata-version", "")] += 1

    crowd = [threading.Thread(target=keep_asking, args=(itertools.cycle(USERS[place::4]),)) for place in range(4)]
    for thread in crowd:
        thread.start()
    try:
        for turn in range(6):
            name = fair.begin("base" if turn % 2 else "like", [50, 100], every_seconds=0.5, answers=5, margin=None)
            if turn == 2:
                end_controller()
            until(lambda: fair.state(name) == "promoted", 60)  # noqa: B023
    finally:
        over.set()
        for thread in crowd:
            thread.join()
    assert set(outcomes) == {200}, outcomes
    assert set(versions) == {"base", "like"}
    assert min(versions.values()) > 20, versions


def end_controller() -> None:
    """Kill the process that decides: Serve starts it again, and it goes on where it was."""
    import ray

    names = ray.util.list_named_actors(all_namespaces=True)
    (found,) = [each for each in names if each["name"].startswith("SERVE_REPLICA::strata#releases#")]
    ray.kill(ray.get_actor(found["name"], namespace=found["namespace"]), no_restart=True)
