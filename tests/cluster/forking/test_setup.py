"""The first stage of a worker: what asks by itself, what is left to Ray's own script, and that both see the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.forking import SETUP, command, setup

WORDS = ["r1", "json", "decimal"]
OURS = {"py_executable": command(WORDS), "env_vars": {}, "command_prefix": []}
# Stands for the module that asks, and shows what it was given.
SHOW = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv[1:], "name": __name__, "folder": os.getcwd(), "path": sys.path, "ray": "ray" in sys.modules,
    "word": os.environ.get("WORD"), "pythonpath": os.environ.get("PYTHONPATH"),
}))
"""


def started(line: list[str], folder: Path, **environment: str) -> dict[str, object]:
    plain = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(line, cwd=folder, env=plain, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job that brings its code along."""
    package = tmp_path / "job" / "cluster" / "forking"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "ask.py").write_text(SHOW)
    return tmp_path / "job"


def test_it_asks_as_the_jobs_own_module_would(job: Path, tmp_path: Path) -> None:
    more = {"WORD": "said by ${NAME}${NOBODY}", "PYTHONPATH": f"{job}/more:${{PYTHONPATH}}"}
    context = OURS | {"env_vars": more, "command_prefix": ["cd", str(job), "&&"]}
    environment = {"NAME": "ada", "PYTHONPATH": str(tmp_path / "before")}
    program = [
        "worker.py",
        "--node=a b",
        "--language",
        "PYTHON",
        f"--serialized-runtime-env-context={json.dumps(context)}",
    ]
    seen = started([sys.executable, SETUP, *program], tmp_path, **environment)
    expanded = {"WORD": "said by ada", "PYTHONPATH": f"{job}/more:{tmp_path}/before", "NAME": "ada"}
    line = [sys.executable, "-m", "cluster.forking.ask", "r1", "json,decimal", "worker.py", "--node=a b"]
    assert seen == started(line, job, **expanded), "it is as if Ray had become that"
    assert seen["argv"] == ["r1", "json,decimal", "worker.py", "--node=a b"]
    assert not seen["ray"]


@pytest.mark.parametrize(
    "context",
    [
        {},
        OURS | {"py_executable": sys.executable},
        OURS | {"py_executable": OURS["py_executable"].replace(sys.executable, "/usr/bin/another")},
        OURS | {"py_executable": OURS["py_executable"] + "; true"},
        OURS | {"command_prefix": ["podman", "run"]},
        OURS | {"command_prefix": ["cd", "/nowhere", "&&"]},
        OURS | {"override_worker_entrypoint": "/another.py"},
        OURS | {"of_a_later_ray": 1},
    ],
)  # fmt: skip
def test_everything_else_is_left_to_ray(context: dict[str, object]) -> None:
    assert setup.wanted(context, "PYTHON") is None
    assert setup.wanted(OURS, "PYTHON") == ("", ["cluster.forking.ask", "r1", "json,decimal"])
    assert setup.wanted(OURS, "JAVA") is None


def test_rays_own_script_takes_what_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SHOW)
    context = json.dumps({"env_vars": {"WORD": "said"}})
    line = [sys.executable, SETUP, "worker.py", "one", "--language=PYTHON", f"{setup.CONTEXT}={context}"]
    seen = started(line, tmp_path)
    assert (seen["argv"], seen["word"], seen["name"]) == (["one"], "said", "__main__")
