"""Versions, aliases, stages and merge requests over HTTP, with a registry behind as it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from actors.registry.service import Place, Registrar
from cluster.errors import Unavailable
from pipelines.gateway.registry import BASE
from tests.actors.registry.conftest import write_model
from tests.pipelines.gateway.conftest import Stage


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two versions of chat, the second on a branch of its own."""
    made = Place(str(tmp_path / "registry"), conditions=("eval.score >= baseline",))
    registry = Registry(Path(made.folder))
    for value, branch in ((1.0, "main"), (2.0, "tuned")):
        write_model(tmp_path / "model", {"a": torch.full((8,), value)})
        registry.push("chat", tmp_path / "model", author="ada", branch=branch, metadata={"license": "mit"})
    return made


@pytest.fixture
def stage(make_stage: Callable[..., Stage], place: Place) -> Stage:
    registrar = Registrar()

    async def registry(principal, act, given):
        return await registrar.ask(place, principal, act, given)

    return make_stage(registry=registry)


def error(answer: Any) -> tuple[int, str, str]:
    told = answer.json()["error"]
    return answer.status_code, told["code"], told["message"]


async def test_models_and_versions(stage: Stage):
    async with stage.http() as http:
        assert (await http.get(BASE)).json() == {
            "object": "list",
            "data": [{"object": "registry.model", "name": "chat", "versions": 2, "aliases": {},
                      "branches": {"main": "v1", "tuned": "v2"}}],
        }  # fmt: skip
        rows = (await http.get(f"{BASE}/chat/versions")).json()["data"]
        assert [(row["version"], row["parents"], row["stage"], row["author"]) for row in rows] == [
            ("v2", ["v1"], "draft", "ada"), ("v1", [], "draft", "ada"),
        ]  # fmt: skip
        one = (await http.get(f"{BASE}/chat/versions/tuned")).json()
        assert (one["version"], one["metadata"], one["signed"], one["tensors"]) == ("v2", {"license": "mit"}, True, 1)
        found = (await http.post("/v1/registry/search", json={"query": "license = mit and branch = tuned"})).json()
        assert [row["version"] for row in found["data"]] == ["v2"]
        assert error(await http.get(f"{BASE}/talk"))[:2] == (404, "model_not_found")
        assert error(await http.get(f"{BASE}/chat/versions/v9")) == (
            404, "not_found", "no version, alias or branch chat@v9; there is v1-v2, main, tuned",
        )  # fmt: skip
        assert error(await http.post("/v1/registry/search", json={"query": "license ="}))[:2] == (400, "invalid_value")
        for limit in (-1, 0):
            asked = {"query": "license = mit", "limit": limit}
            assert error(await http.post("/v1/registry/search", json=asked)) == (
                400, "invalid_value", f"limit: {limit} is not accepted; it is a whole number from 1; "
                "the answer has at most 1000",
            )  # fmt: skip
        assert error(await http.get(f"{BASE}/Chat!"))[:2] == (400, "invalid_value")


async def test_an_alias_moves_from_the_revision_that_its_mover_saw(stage: Stage):
    path = f"{BASE}/chat/aliases/prod"
    async with stage.http() as http:
        assert error(await http.get(path))[:2] == (404, "not_found")
        assert error(await http.put(path, json={"version": "v1"}))[:2] == (400, "invalid_value")
        new = {"if-none-match": "*"}
        made = await http.put(path, json={"version": "v1"}, headers=new)
        assert (made.status_code, made.json()["version"]) == (200, "v1")
        assert error(await http.put(path, json={"version": "v2"}, headers=new))[:2] == (409, "conflict")
        seen = await http.get(path)
        assert seen.headers["etag"] == made.headers["etag"] == f'"{seen.json()["revision"]}"'
        held = {"if-match": seen.headers["etag"]}
        answers = await asyncio.gather(*(http.put(path, json={"version": "v2"}, headers=held) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
        back = await http.post(f"{path}/rollback")
        assert back.json()["version"] == "v1"
        assert error(await http.put(path, json={"version": "v2"}, headers=held))[:2] == (409, "conflict"), (
            "though at v1"
        )
        moves = (await http.get(f"{path}/history")).json()["data"]
        assert [(move["from"], move["to"], move["back"], move["author"]) for move in moves] == [
            ("v2", "v1", True, "tests"), ("v1", "v2", False, "tests"), (None, "v1", False, "tests"),
        ]  # fmt: skip
        assert (await http.get(f"{BASE}/chat/aliases")).json()["data"][0]["alias"] == "prod"


@pytest.mark.parametrize("look", ["once", "each"])
async def test_of_a_hundred_promotions_at_once_each_revision_has_one_winner(stage: Stage, place: Place, look: str):
    """A hundred people, from the one revision that they all saw, or each from what is there when they look."""
    path, people = (
        f"{BASE}/chat/aliases/prod",
        [stage.ring.issue(f"p{n}", "acme", "admin", created=1) for n in range(8)],
    )
    async with stage.http() as http:
        made = await http.put(path, json={"version": "v1"}, headers={"if-none-match": "*"})

        async def promote(number: int) -> tuple[str, Any]:
            held = {"authorization": f"Bearer {people[number % len(people)]}"}
            there = await http.get(path, headers=held) if look == "each" else made
            seen, version = there.headers["etag"], "v1" if there.json()["version"] == "v2" else "v2"
            return seen, await http.put(path, json={"version": version}, headers={**held, "if-match": seen})

        ended = await asyncio.gather(*map(promote, range(100)))
        codes = [answer.status_code for _, answer in ended]
        assert set(codes) == {200, 409}
        assert {error(answer)[1] for _, answer in ended if answer.status_code == 409} == {"conflict"}
        won = {seen: answer.headers["etag"] for seen, answer in ended if answer.status_code == 200}
        assert len(won) == codes.count(200), "two winners of one revision"
        assert look == "each" or len(won) == 1
        chain = [made.headers["etag"]]
        while chain[-1] in won:
            chain.append(won[chain[-1]])
        assert len(chain) == len(won) + 1, "each winner started from what the one before left"
        assert (await http.get(path)).headers["etag"] == chain[-1]
        moves = (await http.get(f"{path}/history")).json()["data"][::-1]
        assert len(moves) == len(chain)
        assert [move["from"] for move in moves] == [None, *(move["to"] for move in moves[:-1])]
    entries = [entry for entry, _ in Aliases(Registry(Path(place.folder))).log("chat", "prod")]
    assert [list(entry.parents) for entry in entries] == [*([entry.id] for entry in entries[1:]), []], "a line"


@pytest.mark.parametrize("match", ["", "*", 'a"b', '""'])
async def test_a_revision_that_is_none(stage: Stage, match: str):
    async with stage.http() as http:
        answer = await http.put(f"{BASE}/chat/aliases/prod", json={"version": "v1"}, headers={"if-match": match})
        assert error(answer)[0] == 400
        assert answer.json()["error"]["param"] == "If-Match"


async def test_a_stage_by_legal_moves(stage: Stage):
    path = f"{BASE}/chat/versions/v1/stage"
    async with stage.http() as http:
        assert (await http.put(path, json={"stage": "candidate"})).json()["stage"] == "candidate"
        code = error(await http.put(path, json={"stage": "live"}))
        assert code[:2] == (409, "illegal_move")
        assert "it goes to draft or canary or retired, not to live" in code[2]
        assert error(await http.put(path, json={"stage": "canary", "expected": "draft"}))[:2] == (409, "conflict")
        assert error(await http.put(path, json={"stage": "prod"}))[:2] == (400, "invalid_value")


async def test_a_merge_request_from_opened_to_merged(stage: Stage):
    path = f"{BASE}/chat/merge-requests"
    bob = stage.ring.issue("bob", "acme", "developer", created=1)
    async with stage.http() as http, stage.http(bob) as other:
        opened = (await http.post(path, json={"source": "tuned", "title": "Better"})).json()
        assert (opened["number"], opened["state"], opened["author"]) == (1, "open", "tests")
        assert len(opened["missing"]) == 2
        code = error(await http.post(f"{path}/1/reviews", json={"approves": True}))
        assert code[0] == 400
        assert "somebody else" in code[2]
        assert (await other.post(f"{path}/1/reviews", json={"approves": True, "comment": "fine"})).status_code == 200
        assert error(await other.post(f"{path}/1/merge"))[:2] == (409, "conflict")
        for of in ("source", "target"):
            done = await other.post(f"{path}/1/evaluations", json={"metrics": {"eval.score": 0.5}, "of": of})
        assert done.json()["missing"] == []
        merged = (await other.post(f"{path}/1/merge")).json()
        assert (merged["state"], merged["version"]) == ("merged", "v3")
        assert [row["state"] for row in (await http.get(path)).json()["data"]] == ["merged"]
        assert error(await http.post(f"{path}/1/close"))[:2] == (409, "conflict")
        assert error(await http.get(f"{path}/7"))[:2] == (404, "not_found")
        assert error(await http.get(f"{path}/x"))[:2] == (400, "invalid_value")


async def test_what_both_changed_is_told_and_a_strategy_decides(
    make_stage: Callable[..., Stage], place: Place, tmp_path: Path
):
    path, registrar = f"{BASE}/chat/merge-requests", Registrar()
    write_model(tmp_path / "model", {"a": torch.full((8,), 3.0)})
    Registry(Path(place.folder)).push("chat", tmp_path / "model", author="ada")

    async def registry(principal, act, given):
        return await registrar.ask(Place(place.folder, approvals=0), principal, act, given)

    async with make_stage(registry=registry).http() as http:
        opened = (await http.post(path, json={"source": "tuned", "title": "Better"})).json()
        clash = "a decision on 1 tensor (a) of model.safetensors, which both changed"
        assert (opened["strategy"], opened["missing"]) == ("clean", [clash])
        code = error(await http.post(f"{path}/1/merge"))
        assert code[:2] == (409, "merge_conflict")
        assert clash in code[2]
        assert (await http.get(f"{path}/1")).json()["state"] == "open"
        body = {"source": "tuned", "title": "Better", "strategy": "linear"}
        assert (await http.post(path, json=body)).json()["missing"] == []
        assert (await http.post(f"{path}/2/merge")).json()["version"] == "v4"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"version": "v1", "versoin": "v2"}, "versoin"),
        ({}, "version"),
        ({"version": 1}, "version"),
        ({"version": None}, "version"),
        ({"version": True}, "version"),
        ([], "body"),
    ],
)
async def test_bodies_that_are_none(stage: Stage, body: Any, param: str):
    async with stage.http() as http:
        answer = await http.put(f"{BASE}/chat/aliases/prod", json=body, headers={"if-none-match": "*"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


async def test_who_may_not_learns_what_is_missing(stage: Stage):
    key = stage.ring.issue("dev", "acme", "developer", created=1)
    async with stage.http(key) as http:
        answer = await http.put(f"{BASE}/chat/versions/v1/stage", json={"stage": "candidate"})
        assert error(answer) == (403, "permission_denied", "dev lacks the permission registry.promote")


async def test_a_gateway_without_a_registry_or_whose_registry_is_away_says_so(make_stage: Callable[..., Stage]):
    async def away(principal, act, given):
        raise Unavailable("the registry", "its process ended; ask again")

    async with make_stage(registry=away).http() as http:
        assert error(await http.get(BASE))[:2] == (503, "unavailable")


async def test_a_name_that_would_break_a_commit_does_not(stage: Stage):
    key = stage.ring.issue("eve\nparent 0 <x>", "acme", "admin", created=1)
    async with stage.http(key) as http:
        assert (await http.put(f"{BASE}/chat/versions/v1/stage", json={"stage": "candidate"})).status_code == 200
        assert (await http.get(f"{BASE}/chat/versions/v1")).json()["stage"] == "candidate"


async def test_what_became_of_one_version_in_another(stage: Stage):
    async with stage.http() as http:
        found = (await http.get(f"{BASE}/chat/diff", params={"from": "main", "to": "tuned"})).json()
        assert (found["from"], found["to"], found["changed"]) == ("v1", "v2", ["model.safetensors"])
        assert found["tensors"]["model.safetensors"]["changed"] == ["a"]
        (sizes,) = found["sizes"].items()
        assert (sizes[0], sizes[1][0] == sizes[1][1], found["entries"]) == ("model.safetensors", True, {})
        assert found["tensors"]["model.safetensors"]["norms"] == {"a": 1.0}
        for query, field in (
            ({"from": "v1"}, "to"), ({"from": "v1", "to": ""}, "to"), ({"from": "v1", "to": "v2", "by": "x"}, "by")
        ):  # fmt: skip
            answer = await http.get(f"{BASE}/chat/diff", params=query)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
        assert (await http.get(f"{BASE}/chat/diff", params={"from": "v1", "to": "v9"})).status_code == 404
