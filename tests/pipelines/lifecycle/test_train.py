import json
import os
import subprocess
import sys

import pytest

from pipelines.lifecycle.recipe import Recipe
from pipelines.lifecycle.train import fit, parser


@pytest.mark.slow
@pytest.mark.cluster
def test_the_command_trains_on_ray_and_leaves_a_model(tmp_path):
    flags = ["--out", str(tmp_path), "--steps", "3", "--rows", "4", "--warmup-steps", "1", "--no-compile"]
    command = [sys.executable, "-m", "pipelines.lifecycle.train", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step 3/3" in done.stderr
    assert json.loads((tmp_path / "model" / "training.json").read_text())["steps"] == 3
    assert (tmp_path / "model" / "loss_curve.svg").read_text().startswith("<svg")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 40 * 2**20


def test_without_ray_train_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(SystemExit, match=r"pip install 'strata\[train\]'"):
        fit(Recipe(), tmp_path)
    assert "RAY_AUTH_TOKEN" not in os.environ, "one that stays would reach other clusters of this process"


def test_only_the_folder_must_be_given():
    given = vars(parser().parse_args(["--out", "x"]))
    assert {name for name, value in given.items() if value is not None} == {"out", "resume"}
