import json
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from pipelines.lifecycle.card import write_card
from pipelines.lifecycle.folder import write_json


def train(out, how):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.pipelines.lifecycle.small_run", str(out), how, port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(out, "afresh")
    return out


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "progress.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_twenty_steps_make_the_loss_fall(whole_run):
    found = losses(whole_run)
    assert len(found) == 20
    assert sum(found[-3:]) / 3 < 0.8 * found[0]


@pytest.mark.slow
def test_a_resumed_run_ends_where_the_whole_one_does(whole_run, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(whole_run, again)
    (again / "checkpoints" / "latest").write_text("step000012")
    (again / "progress.jsonl").unlink()
    train(again, "resume")
    assert losses(again) == losses(whole_run)[12:]
    one, two = (load_file(out / "model" / "model.safetensors") for out in (whole_run, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_the_folder_is_a_model_that_transformers_loads(whole_run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = whole_run / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert made.shape[1] <= ids["input_ids"].shape[1] + 4
    assert model.config.model_type == "qwen3"
    assert model.dtype == torch.bfloat16


@pytest.mark.slow
def test_the_card_tells_the_scores_and_the_size(whole_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole_run / "model", folder)
    tasks = {"dates": {"right": 9, "asked": 10, "percent": 90.0}, "all": {"right": 9, "asked": 10, "percent": 90.0}}
    write_json(folder / "evaluation.json", {"answered_by": "strata", "tasks": tasks})
    write_card(folder)
    card = (folder / "README.md").read_text()
    assert "| dates | 9 | 10 | 90.0 % |" in card
    assert "small and narrow" in card
    assert "20 steps of 1024 tokens" in card
