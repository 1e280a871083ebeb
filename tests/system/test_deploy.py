"""What a deploy to a running stack replaces, and what it leaves alone."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from safetensors.torch import load_file, save_file

from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from tests.system.conftest import ROOT, Stack, submit, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


def gangs(stack: Stack) -> set[tuple[int, ...]]:
    """Every gang by its processes."""
    return {(entry.leader_pid, *entry.shard_pids) for entry in stack.entries()}


def gateways() -> set[int]:
    """The processes of the gateways that serve now."""
    from ray import serve

    client = serve.context._get_global_client()
    deployment = client.get_serve_details()["applications"]["strata"]["deployments"]["gateway"]
    return {replica["pid"] for replica in deployment["replicas"]}


def deployed(stack: Stack) -> tuple[subprocess.CompletedProcess[str], set[int]]:
    """A job that deploys the clone, and every status that `/ready` had meanwhile."""
    seen: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(submit, stack.clone)
        while not job.done():
            seen.add(stack.get("/ready").status_code)
    return job.result(), seen


def test_a_deploy_replaces_what_has_changed_and_nothing_else(stack: Stack) -> None:
    """Of the gateway a new one answers before the old one ends; the gangs know nothing of it."""
    until(lambda: len(stack.entries()) == 2)
    before, front = gangs(stack), gateways()
    file = stack.clone / "strata.yaml"
    written = file.read_text()
    settings = yaml.safe_load(written)
    settings["gateway"]["messages"] = 4000
    file.write_text(yaml.safe_dump(settings))  # another folder, as Ray sees it
    done, seen = deployed(stack)
    assert done.returncode == 0, done.stdout[-3000:]
    assert seen == {200}
    assert gangs(stack) == before
    assert not gateways() & front
    front = gateways()
    done, seen = deployed(stack)
    assert (done.returncode, seen, gangs(stack), gateways()) == (0, {200}, before, front)


def test_a_file_that_cannot_be_deployed_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    until(lambda: len(stack.entries()) == 2)
    before, front = gangs(stack), gateways()
    settings = yaml.safe_load((stack.clone / "strata.yaml").read_text())
    settings["models"] = [{"name": "a", "path": "/nope"}]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "deploy", "-f", str(tmp_path / "bad.yaml")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "/nope: there is no such folder; set the path of model a" in done.stderr
    assert "Traceback" not in done.stderr
    assert (gangs(stack), gateways()) == (before, front)
    assert stack.get("/ready").status_code == 200


def deploy(file: Path) -> subprocess.CompletedProcess[str]:
    """As a person on the head does."""
    words = [sys.executable, "-m", "pipelines.cli", "deploy", "-f", str(file)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_a_deploy_serves_the_version_that_an_alias_is_at(stack: Stack, tmp_path: Path) -> None:
    """The same again replaces nothing, a moved alias the gangs, and what nobody signed is refused before either."""
    until(lambda: len(stack.entries()) == 2)
    registry = Registry(stack.settings.state / "registry")
    registry.push("tiny", stack.folder, author="ada")
    other = shutil.copytree(stack.folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: weight.flip(0) for name, weight in weights.items()}, other / "model.safetensors")
    registry.push("tiny", other, author="ada")
    Aliases(registry).move("tiny", "prod", "v1", author="ada")
    settings = yaml.safe_load((stack.clone / "strata.yaml").read_text())
    (model,) = settings["models"]
    del model["path"]
    model["registry"] = "tiny@prod"
    file = tmp_path / "versions.yaml"
    file.write_text(yaml.safe_dump(settings))
    words = {"model": "tiny", "prompt": "abc", "temperature": 0, "max_tokens": 24, "ignore_eos": True}

    def text() -> str:
        answer = httpx.post(f"{stack.url}/v1/completions", json=words, headers=stack.headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    said = text()
    try:
        done = deploy(file)
        assert done.returncode == 0, done.stderr
        assert f"tiny@prod is tiny@{registry.show('tiny', 'v1').entry.id}" in done.stderr
        before = gangs(stack)
        assert text() == said
        assert deploy(file).returncode == 0
        assert gangs(stack) == before

        Aliases(registry).move("tiny", "prod", "v2", "v1", author="ada")
        assert deploy(file).returncode == 0
        until(lambda: len(stack.entries()) == 2)
        rolled = gangs(stack)
        assert not rolled & before
        assert text() != said

        known = stack.get("/v1/registry/models").json()["data"]
        assert [(each["name"], each["aliases"]) for each in known] == [("tiny", {"prod": "v2"})]
        path = f"{stack.url}/v1/registry/models/tiny/aliases/prod"
        held = {**stack.headers, "if-match": stack.get("/v1/registry/models/tiny/aliases/prod").headers["etag"]}
        moved = [httpx.put(path, json={"version": "v1"}, headers=held, timeout=60) for _ in range(2)]
        assert [answer.status_code for answer in moved] == [200, 409]
        registry_log = Aliases(registry).log("tiny", "prod")
        assert [entry.author for entry, _ in registry_log] == ["tests", "ada", "ada"]

        trusted = stack.settings.state / "registry" / "allowed_signers"
        keys = trusted.read_text()
        trusted.write_text("")
        done = deploy(file)
        trusted.write_text(keys)
        assert done.returncode == 1
        assert "tiny@prod: it is not signed by a key of" in done.stderr
        assert gangs(stack) == rolled
    finally:
        assert deploy(stack.clone / "strata.yaml").returncode == 0
        until(lambda: len(stack.entries()) == 2)
