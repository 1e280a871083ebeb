import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deepspeed
import numpy as np
import pytest
import torch

from pipelines.lifecycle import collectives
from pipelines.lifecycle.declared import Train
from pipelines.lifecycle.recipe import Recipe

RANK = """
import sys
import torch
from pipelines.lifecycle.collectives import agreed
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
print([agreed(wish, torch.device("cpu")) for wish in ((True, False, False), (False, True, False))[rank]])
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("fails", [False, True])
def test_workers_meet_with_what_is_compiled_and_deepspeed_is_as_before(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    backend, built = sys.modules["deepspeed.comm.torch"], []
    before = backend.build_shm_op
    monkeypatch.setattr(collectives, "shm_operator", lambda build: built.append(build) or "the op")

    def init_distributed(**how: object) -> None:
        assert how["dist_backend"] == "gloo"
        assert backend.build_shm_op() == "the op"
        if fails:
            raise RuntimeError("nobody came")

    monkeypatch.setattr(deepspeed, "init_distributed", init_distributed)
    if fails:
        with pytest.raises(RuntimeError, match="nobody came"):
            collectives.join()
    else:
        collectives.join()
    assert built == [before]
    assert backend.build_shm_op is before


def rank_0_says(monkeypatch: pytest.MonkeyPatch, *wishes: bool) -> None:
    """This process is another rank of the group."""
    said = iter(wishes)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda flag, src: flag.fill_(int(next(said))))


@pytest.mark.parametrize("wish", [False, True])
def test_every_rank_does_what_rank_0_wishes(monkeypatch: pytest.MonkeyPatch, wish: bool) -> None:
    rank_0_says(monkeypatch, True, False)
    assert [collectives.agreed(wish, torch.device("cpu")) for _ in range(2)] == [True, False]


def tune(out: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.lifecycle import tuning

    monkeypatch.setattr(tuning, "start", lambda *_: engine)
    monkeypatch.setattr(tuning, "resume", lambda *_: 0)
    monkeypatch.setattr(tuning, "one_step", lambda *_: (0.5, 1))
    monkeypatch.setattr(tuning, "batch", lambda *_: ())
    np.savez(out / "data.npz", ends=[1, 2], tokens=[1, 2], learnt=[True, True])
    train = Train(data="data.jsonl", steps=3, workers=2, checkpoint="1h").model_dump(mode="json")
    tuning.tune_worker({"train": train, "base": "base", "data": str(out / "data.npz"), "out": str(out)})


def train(out: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.lifecycle import loop

    monkeypatch.setattr(loop, "Tokenizer", SimpleNamespace(from_file=lambda _: None))
    monkeypatch.setattr(loop, "start", lambda _: (engine, engine.device))
    monkeypatch.setattr(loop, "resume", lambda *_: 0)
    monkeypatch.setattr(loop, "one_step", lambda *_: (0.5, 1))
    recipe = Recipe(steps=3, workers=2, checkpoint_seconds=3600.0)
    loop.train_worker({"recipe": recipe.plain(), "out": str(out)})


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as DeepSpeed's Muon is imported
@pytest.mark.parametrize("work", [tune, train])
def test_a_checkpoint_is_written_when_rank_0_is_due_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Path, Any, pytest.MonkeyPatch], None]
) -> None:
    saved: list[str] = []
    rank_0_says(monkeypatch, True, False)
    engine = SimpleNamespace(
        global_rank=1, device=torch.device("cpu"), save_checkpoint=lambda _folder, tag, **_state: saved.append(tag)
    )
    work(tmp_path, engine, monkeypatch)
    assert saved == ["step000001", "step000003"]


def test_two_ranks_with_wishes_of_their_own_agree(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        told = [rank.communicate(timeout=120)[0].splitlines()[-1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert told == ["[True, False, False]"] * 2
