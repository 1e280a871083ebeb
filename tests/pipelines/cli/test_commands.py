"""The command line as a person meets it: in a process of its own where imports matter, in this one elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.settings import load
from tests.pipelines.cli.conftest import strata

HEAVY = ("rich", "ray", "torch", "transformers", "deepspeed", "numpy", "pydantic", "httpx", "yaml", "fastapi", "psutil")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['strata', '--help']\n"
        "from pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: assert not left.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
    for command in ("up", "status", "chat", "models", "deploy", "down", "bench", "doctor", "config", "keys"):
        assert f" {command} " in said


def test_the_module_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "pipelines.cli", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: strata" in said.stdout


@pytest.mark.usefixtures("home")
def test_explain_says_where_a_value_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("strata.yaml").write_text("cluster:\n  http_port: 9000\n")
    assert strata(monkeypatch, "config", "explain", "cluster.http_port", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "key": "cluster.http_port",
        "value": 9000,
        "source": "strata.yaml:2",
    }
    assert strata(monkeypatch, "config", "show") == 0
    assert "models.0.tensor_parallel_size" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("config", "explain", "cluster.prot"), "unknown key"),
        (("status", "-f", "none.yaml"), "no such file"),
        (("deploy",), "strata up --detach"),
        (("env",), "strata up --detach"),
        (("config", "init", "-f", "nowhere.yaml"), "an existing file"),
        (("config", "init", "-f", "none/s.yaml"), "name a file that can be written"),
        (("up", "-f", "nowhere.yaml"), "there is no such folder"),
        (("models", "--url", "http://127.0.0.1:1"), "No key in STRATA_API_KEY"),
        (("keys", "issue", "--role", "king"), "admin, developer, user, monitor"),
        (("keys", "revoke", "nobody"), "no API key nobody"),
    ],
)
def test_errors_are_a_sentence_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    Path("nowhere.yaml").write_text("models: [{name: a, path: nowhere}]")
    assert strata(monkeypatch, *words) == 1
    said = capsys.readouterr().err
    assert says in said.replace("\n", " ")
    assert "Traceback" not in said
    assert strata(monkeypatch, *words, "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "words",
    [("models",), ("rollouts",), ("experiments",), ("routes",), ("rollout", "chat", "--to", "v7"), ("chat", "hello")],
)
def test_who_is_asked_for_says_that_nothing_runs_before_it_asks_for_a_key(monkeypatch, capsys, words) -> None:
    monkeypatch.delenv("STRATA_API_KEY", raising=False)
    monkeypatch.setattr("cluster.hardware.port_is_free", lambda host, port: True)
    assert strata(monkeypatch, *words) == 1
    assert "Nothing is running. Start with: strata up" in capsys.readouterr().err
    monkeypatch.setattr("cluster.hardware.port_is_free", lambda host, port: False)  # somebody else's
    assert strata(monkeypatch, *words) == 1
    assert "No key in STRATA_API_KEY" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_misuse_is_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert strata(monkeypatch, "fly") == 2
    assert strata(monkeypatch, "bench", "--requests", "0") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_an_error_that_nobody_foresaw_is_still_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("cluster.hardware.look", fail)
    assert strata(monkeypatch, "doctor") == 1
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_nothing_runs_and_nothing_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strata(monkeypatch, "status", "--json") == 1
    assert json.loads(capsys.readouterr().out)["status"] == "stopped"
    assert strata(monkeypatch, "down", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ended_processes": 0}


def test_keys_are_issued_listed_and_revoked(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strata(monkeypatch, "keys", "issue", "--name", "mine", "--role", "user", "--json") == 0
    key = json.loads(capsys.readouterr().out)["key"]
    assert key not in (home / "state" / "keys.json").read_text()
    assert strata(monkeypatch, "keys", "list", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["name"] == "mine"
    assert strata(monkeypatch, "keys", "revoke", record["id"]) == 0
    capsys.readouterr()
    assert strata(monkeypatch, "keys", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_settings_to_start_from_are_the_defaults(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strata(monkeypatch, "config", "init") == 0
    assert str(home) not in (home / "strata.yaml").read_text()
    assert load(home / "strata.yaml").settings == load().settings
    assert "strata.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [("up",), ("build",), ("keys", "issue"), ("keys", "list"), ("keys", "revoke", "x"), ("node-env",)]
)
def test_a_state_folder_that_is_a_file_is_named_by_every_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    (home / "state").write_text("I was here first")
    assert strata(monkeypatch, *words) == 1
    said = capsys.readouterr().err
    assert str(home / "state") in said
    assert "set another state_dir" in said
