"""`strata up` as a person runs it: a process that serves, listens on loopback alone, and leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from cluster import runtime
from cluster.loopback import free_ports, reachable
from cluster.settings import ClusterSettings
from pipelines.cli import keys
from pipelines.driver import connect
from tests.pipelines.gateway import folder
from tests.system.conftest import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# A shell of somebody who only pastes: no settings of Strata's, no proxy on the way to this machine.
PLAIN = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_PROXY": "*", "PYTHONIOENCODING": "utf-8"}


@dataclass(frozen=True)
class Strata:
    """A running `strata up`."""

    process: "subprocess.Popen[str]"
    settings: ClusterSettings
    file: Path
    said: str  # what it printed when it was up
    progress: Path  # what it says beside that, to the end

    @property
    def key(self) -> str:
        """The first API key, as it is shown."""
        return self.said.partition("shown this once: ")[2].split()[0]

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *words, "-f", str(self.file)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip


def model(path: Path) -> Path:
    """A decoder that says nothing sensible, with a tokenizer of one token a byte."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=260, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=128, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=256, pad_token_id=None,
    )  # fmt: skip
    folder.write(path)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def strata(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strata]:
    home = tmp_path_factory.mktemp("up")
    path = str(model(home / "model"))
    cluster = {"state_dir": str(home / "state"), "http_port": free_ports(1)[0], "num_cpus": 4, "dashboard": False}
    file = home / "strata.yaml"
    file.write_text(yaml.safe_dump({
        "cluster": cluster, "models": [{"name": "tiny", "path": path, "tensor_parallel_size": 2}],
    }))  # fmt: skip
    progress = home / "progress"
    with progress.open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "up", "-f", str(file)], env={**os.environ, "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE, stderr=told, text=True, start_new_session=True,
        )  # fmt: skip
    settings = ClusterSettings.model_validate(cluster)
    try:
        assert process.stdout
        text = ""
        for line in process.stdout:  # printed when every rank has made a token
            text += line
            if line.startswith("Or: strata chat"):
                break
        yield Strata(process, settings, file, text, progress)
    finally:
        process.kill()
        process.communicate()
        runtime.stop(settings)


def test_it_answers_and_says_how_to_ask(strata: Strata) -> None:
    assert f"Strata answers at {strata.settings.url}/v1\n" in strata.said
    with connect(strata.settings.url, strata.key) as client:
        assert client.models() == ["tiny"]
        answer = client.chat("hello", max_tokens=5, temperature=0, ignore_eos=True)
        assert answer.usage["completion_tokens"] == 5
    assert strata.key not in strata.settings.keys_file.read_text()


def test_the_curl_line_works_as_it_is_printed(strata: Strata) -> None:
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    (line,) = (line for line in strata.said.splitlines() if line.startswith("curl "))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=60, env=PLAIN)
    answer = json.loads(done.stdout)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["prompt_tokens"] > len("What is 7 times 8?")


def test_the_python_snippet_works_as_it_is_printed(strata: Strata, tmp_path: Path) -> None:
    snippet = strata.said[strata.said.index("# pip install openai") : strata.said.index("\nOr: strata chat")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env=PLAIN,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n"), "the answer, whatever a random model says"


def test_nothing_listens_beyond_loopback(strata: Strata) -> None:
    members = runtime.processes(strata.settings)
    assert len(members) > 10
    assert reachable(members) == []


def test_the_other_commands_find_it(strata: Strata) -> None:
    status = json.loads(strata.command("status", "--json").stdout)
    assert status["deployments"]["model-tiny"]["replicas"] == {"RUNNING": 1}
    (card,) = json.loads(strata.command("models", "--json").stdout)
    assert card["id"] == "tiny"
    said = strata.command("chat", "hi", "--max-tokens", "3", "--json")
    assert json.loads(said.stdout)["usage"]["completion_tokens"] <= 3
    bench = strata.command(
        "bench", "--streams", "2", "--prompt-tokens", "8", "--requests", "4", "--max-tokens", "4", "--json"
    )
    (row,) = json.loads(bench.stdout)["results"]
    assert (row["requests"], row["failed"]) == (4, 0)
    assert keys.mine(strata.settings) in strata.settings.operator_key_file.read_text()


def test_a_second_up_is_refused_and_harms_nothing(strata: Strata) -> None:
    said = strata.command("up", "--detach")
    assert said.returncode == 1
    assert f"a `strata up` holds it (process {strata.process.pid})" in said.stderr
    other = strata.command("up", "--detach", "--http-port", str(free_ports(1)[0]))
    assert other.returncode == 1
    assert json.loads(strata.command("status", "--json").stdout)["status"] == "running"


def test_a_lost_gang_is_told_in_our_words(strata: Strata) -> None:
    shard = next(
        pid for pid in runtime.processes(strata.settings) if "ShardActor" in " ".join(psutil.Process(pid).cmdline())
    )
    os.kill(shard, signal.SIGKILL)
    lost = re.compile(
        rf"^tiny: a gang was lost \(process(es)? [\d, ]*\b{shard}\b[\d, ]* ended\), a new one starts$", re.MULTILINE
    )
    until(lambda: lost.search(strata.progress.read_text()))
    until(lambda: "tiny: the new gang answers" in strata.progress.read_text())


def test_ctrl_c_drains_and_leaves_nothing(strata: Strata) -> None:
    os.kill(strata.process.pid, signal.SIGINT)
    assert strata.process.wait(timeout=120) == 0
    told = strata.progress.read_text()
    assert "Draining" in told
    assert not [line for line in told.splitlines() if "raylet" in line or "Traceback" in line or "worker died" in line]
    assert runtime.processes(strata.settings) == set()
    assert not strata.settings.run_dir.exists()
    assert runtime.find(strata.settings) is None
