"""A registry with a model in it, a pipeline over it, and hands that need no cluster."""

import copy
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from actors.registry.aliases import Aliases
from actors.registry.candidates import Candidates
from actors.registry.registry import Registry
from cluster.errors import Unavailable
from pipelines.lifecycle import places, starting
from pipelines.lifecycle.declared import Pipeline, Train
from pipelines.settings import HOME, Settings, load
from pipelines.versions import registry_of

SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WHY = {"promoted": "all is well", "rolled back": "p50_itl > 1.2 baseline: it is slow"}
PIPELINE: dict[str, Any] = {
    "name": "tune",
    "model": "chat",
    "on": {"data": True, "merge_request": True},
    "train": {"data": "train.jsonl", "steps": 3},
    "evaluate": {"sets": {"sums": "sums.jsonl"}, "require": ["exact_match >= baseline - 0.02"]},
    "push": {},
    "merge_request": {},
    "canary": {"patience": "10s"},
    "live": {},
}


class Place:
    """A folder with settings, a registry with chat@v1 at every alias, data and sets."""

    def __init__(self, folder: Path, **registry: Any) -> None:
        self.folder = folder
        self.values: dict[str, Any] = {
            "cluster": {"state_dir": str(folder / "state")}, "models": [{"name": "chat", "registry": "chat@prod"}],
            "routes": {"chat": {"release": {"steps": [50, 100]}}}, "registry": {"approvals": 0, **registry},
        }  # fmt: skip
        self.settings = Settings.of(self.values)
        self.registry = registry_of(self.settings)
        self.registry.push("chat", model(folder / "model", 1.0), author="ann", metadata={"license": "mit"})
        Aliases(self.registry).move("chat", "prod", "v1", author="ann")
        (folder / "train.jsonl").write_text('{"prompt": "1 + 1", "answer": "2"}\n' * 3)
        (folder / "sums.jsonl").write_text('{"prompt": "2 + 2", "answer": "4"}\n')
        self.runs = places.runs_of(self.settings)

    def pipeline(self, **changes: Any) -> Pipeline:
        """As the settings declare it; what is None is left out."""
        values = {name: value for name, value in (PIPELINE | changes).items() if value is not None}
        file = self.folder / "strata.yaml"
        file.write_text(yaml.safe_dump({**self.values, "pipelines": [values]}))
        return starting.declared(load(file, {}).settings, values["name"])

    def begin(self, pipeline: Pipeline, request: int | None = None) -> str:
        """A run, which nobody drives."""
        steps = [(name, request is None or name not in ("train", "push")) for name in pipeline.steps]
        return self.runs.begin(pipeline.model_dump(mode="json"), steps, "by hand", "ann", {}, request)

    def hands(self, good: dict[float, float] | None = None, ends: str = "promoted") -> "Made":
        """See `Made`."""
        return Made(self.registry, good, ends)

    def at(self, alias: str) -> str:
        return self.registry.number("chat", alias)


def model(folder: Path, value: float) -> Path:
    """The starter's tokenizer around one small weight."""
    folder.mkdir(exist_ok=True)
    for name in SMALL:
        shutil.copy(HOME / "models" / "starter" / name, folder)
    save_file({"weight": torch.full((4, 4), value)}, folder / "model.safetensors")
    return folder


class Made:
    """Hands that train by adding 1, find as good as `good` says by weight, and end releases as `ends` says.

    The gateway is `away` for so many questions.
    """

    def __init__(self, registry: Registry, good: dict[float, float] | None, ends: str) -> None:
        self.candidates, self.good, self.ends = Candidates(registry), good or {}, ends
        self.done: Counter[str] = Counter()
        self.away = 0
        self.rollouts: list[dict[str, Any]] = []

    def needs(self, train: Train) -> str:
        return f"{train.threads} CPUs"

    def free(self) -> str:
        return "0 of 2 CPUs"

    def tune(self, config: dict[str, Any]) -> None:
        self.done["tune"] += 1
        out, base = Path(config["out"]), Path(config["base"])
        part = out / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(base, part)
        weight = load_file(base / "model.safetensors")["weight"]
        save_file({"weight": weight + 1}, part / "model.safetensors")
        (part / "training.json").write_text(json.dumps({"steps": 3, "loss": 0.5, "examples": 3}))
        part.rename(out / "model")

    def measure(self, folder: str, files: dict[str, str], max_tokens: int, cpus: int, begun: str) -> dict[str, Any]:
        self.done["measure"] += 1
        weight = float(load_file(Path(folder) / "model.safetensors")["weight"][0, 0])
        good = self.good.get(weight, 1.0)
        return {"metrics": {"sums.exact_match": good, "exact_match": good}, "wrong": []}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        if self.away:
            self.away -= 1
            raise Unavailable("the gateway", "it is away")
        if path == "/v1/routes":
            return {"data": [{"model": "chat", "waits": "room for one more gang"}]}
        if path == "/v1/rollouts":
            self._release()
            return {"data": self.rollouts}
        assert method == "GET", "a run begins no rollout of its own"
        found = next(each for each in self.rollouts if each["name"] == path.rpartition("/")[2])
        if found["state"] == "ramping":
            found |= {"state": self.ends, "reason": WHY[self.ends]}
        elif not found["audit"]:
            self._told(found["terms"]["new"])
            found["audit"].append({"event": "registry"})
        return copy.deepcopy(found)

    def _release(self) -> None:
        """What the releaser does, one step of it."""
        due = None if self.ends == "nobody" else self.candidates.next("chat", "prod", "main")
        if due is None or any(each["terms"]["new"] == due.version for each in self.rollouts):
            return
        self.done["rollout"] += 1
        self.rollouts.insert(0, {
            "name": f"chat-{due.version}", "state": "ramping", "share": 50, "answers": {}, "reason": "", "seconds": 1.0,
            "step": 0, "terms": {"model": "chat", "old": "v1", "new": due.version, "steps": [50, 100]}, "audit": [],
        })  # fmt: skip
        self.candidates.begin("chat", due.version, due.cause)

    def _told(self, version: str) -> None:
        if self.ends == "promoted":
            self.candidates.begin("chat", version, "a merge")
            self.candidates.release("chat", "prod", self.candidates.live("chat", "prod"), version, "a merge")
        else:
            self.candidates.take_back("chat", version, "a merge", "it is slow")

    def pause(self, seconds: float) -> None:
        self.done["pause"] += 1
