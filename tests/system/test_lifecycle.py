"""The starter model's whole life by a declared pipeline, on the whole stack: ruined, killed on the way, slow."""

import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from actors.registry.stages import Stages
from pipelines.lifecycle import starting
from pipelines.lifecycle.data.mixture import held_out_set, stream
from pipelines.lifecycle.drive import driven
from pipelines.lifecycle.places import folder_of, runs_of
from pipelines.lifecycle.run import OVER, UNDER_WAY, Run, State
from pipelines.lifecycle.sets import plain, write
from pipelines.settings import HOME, Settings, load
from tests.system.conftest import Stack, also, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "life"
# three times slower than what is live beside it: more than what else runs on the machine can do
RELEASE = {"on": "main", "steps": [50, 100], "every_seconds": 0.5, "answers": 60, "margin": 2.0}
LAYERS = 60  # of the slow one, in place of six


@dataclass
class Life:
    """A model by the alias prod, its registry, and the settings that declare pipelines of it."""

    registry: Registry
    settings: Settings
    file: Path
    folder: Path

    def begin(self, name: str, request: int | None = None) -> str:
        declared = starting.declared(self.settings, name)
        return starting.begin(
            self.settings, declared, "by hand", "ada", starting.surroundings(self.file), request=request
        )  # fmt: skip

    def find(self, run: str) -> Run:
        return runs_of(self.settings).find(run)

    def ended(self, run: str, seconds: float = 300.0) -> Run:
        until(lambda: self.find(run).state not in UNDER_WAY, seconds)
        return self.find(run)

    @property
    def live(self) -> str:
        return self.registry.number(NAME, "prod")


@pytest.fixture(scope="module")
def life(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder, registry = tmp_path_factory.mktemp("life"), Registry(stack.settings.state / "registry")
    registry.push(NAME, HOME / "models" / "starter", author="ada")
    Aliases(registry).move(NAME, "prod", "v1", author="ada")
    write(folder / "train.jsonl", islice(plain(stream(1)), 40))
    write(folder / "held_out.jsonl", plain(held_out_set(1)))
    file = stack.clone / "strata.yaml"
    evaluate = {
        "sets": {"tasks": str(folder / "held_out.jsonl")}, "require": ["exact_match >= baseline - 0.1"],
        "max_tokens": 24,
    }  # fmt: skip
    train = {"data": str(folder / "train.jsonl"), "steps": 3, "rows": 2, "warmup_steps": 0, "learning_rate": 1e-6}
    whole = {"model": NAME, "evaluate": evaluate, "merge_request": {}, "canary": {"patience": "3m"}, "live": {}}
    whole |= {"on": {"merge_request": True}, "push": {"adapter": True}}

    def edit(settings: dict[str, Any]) -> None:
        more = {"name": NAME, "registry": f"{NAME}@prod", "tensor_parallel_size": 1, "replicas": 1}
        settings["models"].append({**settings["models"][0], **more})
        del settings["models"][-1]["path"]
        settings |= {
            "routes": {NAME: {"release": RELEASE}},
            "registry": {"approvals": 0},
            "pipelines": [
                whole | {"name": "tune", "train": train | {"lora": {"rank": 2}}},
                whole | {"name": "ruin", "train": train | {"learning_rate": 1.0}},
            ],
        }

    with also(stack, edit):
        yield Life(registry, load(file, {}).settings, file, folder)


@pytest.fixture
def users(stack: Stack, life: Life) -> Iterator[Counter[int]]:
    """People who ask all the time, each another user; what they were answered."""
    over, outcomes = threading.Event(), Counter[int]()

    def keep_asking(number: int) -> None:
        with httpx.Client(base_url=stack.url, headers=stack.headers, trust_env=False, timeout=60) as http:
            turn = 0
            while not over.is_set():
                turn += 1
                body: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}]}
                more = {"max_tokens": 8, "ignore_eos": True, "user": f"{number}-{turn}"}
                outcomes[http.post("/v1/chat/completions", json=body | more).status_code] += 1

    crowd = [threading.Thread(target=keep_asking, args=(number,)) for number in range(2)]
    for thread in crowd:
        thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        for thread in crowd:
            thread.join()


def test_a_broken_fine_tune_is_stopped_at_evaluation(life: Life) -> None:
    before = life.live
    found = life.ended(life.begin("ruin"))
    assert found.state is State.STOPPED, found.reason
    assert "exact_match >= baseline - 0.1 does not hold" in found.reason
    assert (life.live, found.made("version")) == (before, None)


def test_a_whole_life_whose_driver_is_killed_on_the_way(life: Life, users: Counter[int]) -> None:
    run = life.begin("tune")
    until(lambda: life.find(run).step("train").state == OVER or life.find(run).state not in UNDER_WAY, 300)
    assert life.find(run).state is State.RUNNING, life.find(run).reason
    folder = folder_of(life.settings, run)
    os.kill(driver(run), signal.SIGKILL)
    until(lambda: not driven(folder), 30)
    before = {step.name: step for step in life.find(run).steps if step.state == OVER}
    assert before
    starting.resume(life.settings, run)
    found = life.ended(run)
    assert found.state is State.DONE, found.reason
    assert {name: found.step(name) for name in before} == before, "what was done is not done again"
    assert life.live == found.made("version")
    assert Stages(life.registry).of(NAME, life.live) == "live"
    assert len(starting.desk_of(life.settings).all(NAME)) == 1
    assert set(users) == {200}, users


def test_one_that_answers_as_well_but_slowly_is_taken_back(life: Life, users: Counter[int]) -> None:
    before = life.live
    life.registry.branch(NAME, "deep", before)
    life.registry.push(NAME, deep(life.registry, life.folder), author="bob", branch="deep")
    number = starting.desk_of(life.settings).open(NAME, "deep", "Deeper", author="bob")
    found = life.ended(life.begin("tune", number))
    assert found.state is State.TAKEN_BACK, found.reason
    assert "itl" in found.reason or "ttft" in found.reason or "latency" in found.reason
    assert life.live == before
    assert Stages(life.registry).of(NAME, found.made("version")) == "candidate"
    assert set(users) == {200}, users


def driver(run: str) -> int:
    """The process that drives a run."""
    wanted = ["-m", "pipelines.lifecycle.drive", run]
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            words = (process / "cmdline").read_text(errors="replace").split("\0")
            if words[1:4] == wanted:
                return int(process.name)
    raise AssertionError(f"nobody drives {run}")


def deep(registry: Registry, folder: Path) -> Path:
    """What is live with layers at its end that change nothing, as what they add is nought."""
    registry.checkout(NAME, "prod", folder / "live")
    made = folder / "deep"
    shutil.copytree(folder / "live", made)
    weights = load_file(made / "model.safetensors")
    config = json.loads((made / "config.json").read_text())
    layers = config["num_hidden_layers"]
    first = "model.layers.0."
    for layer in range(layers, LAYERS):
        for name, tensor in list(weights.items()):
            if name.startswith(first):
                nought = name.endswith(("o_proj.weight", "down_proj.weight"))
                weights[f"model.layers.{layer}." + name.removeprefix(first)] = (
                    torch.zeros_like(tensor) if nought else tensor.clone()
                )
    (made / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    return made
