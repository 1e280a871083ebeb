"""Programs that are forks of one process: what they see, how they end, and what ends with what."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cluster import forking
from cluster.forking import command
from cluster.forking.wire import JOB, RAYLET

HERE = Path.cwd()
SHOW = """
import json, os, sys, threading, random
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "folder": os.getcwd(), "given": sys.argv[1:],
    "name": __name__, "path": sys.path[0], "word": os.environ.get("WORD"), "threads": os.environ.get("OMP_NUM_THREADS"),
    "imported": "decimal" in sys.modules, "drawn": random.random(), "files": sorted(os.listdir("/proc/self/fd")),
    "inner": threading.active_count(), "read": sys.stdin.read(),
}))
print("said aside", file=sys.stderr)
"""


@dataclass
class Node:
    """What stands for a raylet: a process that sleeps, and whoever asks in its name."""

    folder: Path
    raylet: "subprocess.Popen[bytes]"
    asked: list["subprocess.Popen[str]"] = field(default_factory=list)

    def ask(self, text: str, *given: str, revision: str = "r1", **environment: str) -> "subprocess.Popen[str]":
        """The program `text`, asked for as bash does when Ray starts a worker."""
        program = self.folder / "program.py"
        program.write_text(text)
        known = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(HERE),
            RAYLET: str(self.raylet.pid),
            JOB: "01000000",
        } | environment
        line = f"exec {command([revision, 'json', 'decimal'])} {program} {' '.join(given)}"
        asked = subprocess.Popen(
            ["bash", "-c", line], cwd=self.folder, env=known, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.asked.append(asked)
        return asked

    def seen(self, *given: str, **environment: str) -> dict[str, object]:
        """What a program saw."""
        asked = self.ask(SHOW, *given, **environment)
        said, aside = asked.communicate("read this", timeout=30)
        assert (asked.returncode, aside) == (0, "said aside\n")
        return dict(json.loads(said))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, subprocess.Popen(["sleep", "600"]))
    yield made
    made.raylet.kill()
    made.raylet.wait()
    for asked in made.asked:
        asked.kill()
        asked.communicate()


def ended(pid: int) -> bool:
    """Whether the process with this id has ended, within the time that it may take; it is not a child of this one."""
    try:
        followed = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([followed], [], [], 30)[0])
    finally:
        os.close(followed)


def test_a_program_is_as_if_python_had_been_started_with_it(node: Node) -> None:
    seen = node.seen("one", "two", WORD="said")
    assert seen["given"] == ["one", "two"]
    assert (seen["folder"], seen["path"], seen["name"]) == (str(node.folder), str(node.folder), "__main__")
    assert (seen["word"], seen["threads"], seen["read"]) == ("said", None, "read this")
    assert seen["imported"]
    assert seen["files"] == ["0", "1", "2", "3"], "3 is the listing itself"
    assert seen["inner"] == 1
    assert seen["group"] == seen["pid"], "Ray ends the group of a worker that has ended"


def test_two_have_one_parent_and_draw_other_numbers(node: Node) -> None:
    first, second = node.seen(WORD="a"), node.seen(WORD="b")
    assert first["parent"] == second["parent"]
    assert (first["word"], second["word"]) == ("a", "b")
    assert first["drawn"] != second["drawn"]


def test_of_many_that_ask_at_once_all_get_a_program_of_one_parent(node: Node) -> None:
    asked = [node.ask(SHOW) for _ in range(8)]
    said = [json.loads(each.communicate("", timeout=60)[0]) for each in asked]
    assert len({each["pid"] for each in said}) == 8
    assert len({each["parent"] for each in said}) == 1


def test_other_code_has_another_parent(node: Node) -> None:
    said = [json.loads(node.ask(SHOW, revision=name).communicate("", timeout=30)[0]) for name in ("r1", "r2")]
    assert said[0]["parent"] != said[1]["parent"]


def test_another_job_has_another_parent(node: Node) -> None:
    """Ray has read the job's id as it was imported."""
    assert node.seen()["parent"] != node.seen(**{JOB: "02000000"})["parent"]


def test_the_parent_may_be_there_before_anybody_asks(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(node.folder)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    with forking.ahead(["r1", "json", "decimal"], node.raylet.pid, "01000000") as parent:
        assert node.seen()["parent"] == parent.pid
        node.raylet.kill()


@pytest.mark.parametrize(
    ("text", "code", "aside"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('no good')", 1, "no good\n"),
        ("import os; os._exit(3)", 3, ""),
        ("raise ValueError('wrong')", 1, "ValueError: wrong\n"),
        ("import os; os.kill(os.getpid(), 9)", 128 + 9, ""),
        ("import atexit, sys; atexit.register(lambda: sys.stderr.write('at last\\n'))", 0, "at last\n"),
    ],
)
def test_who_asked_ends_as_the_program_ends(node: Node, text: str, code: int, aside: str) -> None:
    asked = node.ask(text)
    _, said = asked.communicate("", timeout=30)
    assert asked.returncode == code
    assert said.endswith(aside)


def test_a_program_ends_with_who_asked_for_it(node: Node) -> None:
    asked = node.ask(
        "import os; print(os.getpid(), flush=True)\nwhile True: os.read(0, 1) or __import__('time').sleep(1)"
    )
    assert asked.stdout is not None
    pid = int(asked.stdout.readline())
    asked.kill()
    assert ended(pid)


def test_the_parent_ends_with_the_raylet(node: Node) -> None:
    parent = int(str(node.seen()["parent"]))
    assert psutil.Process(parent).num_threads() == 1
    node.raylet.kill()
    node.raylet.wait()
    assert ended(parent)


def test_programs_outlive_their_parent_and_the_next_has_another(node: Node) -> None:
    asked = node.ask("import os, sys; print(os.getpid(), os.getppid(), flush=True); sys.stdin.read()")
    assert asked.stdout is not None
    pid, parent = map(int, asked.stdout.readline().split())
    os.kill(parent, signal.SIGKILL)
    assert ended(parent)
    assert node.seen()["parent"] != parent
    assert psutil.Process(pid).is_running()
    assert asked.poll() is None
    asked.communicate("", timeout=30)
    assert ended(pid)


@pytest.mark.parametrize("environment", [{RAYLET: ""}, {RAYLET: "nobody"}, {RAYLET: "0"}])
def test_without_a_parent_python_runs_the_program_itself(node: Node, environment: dict[str, str]) -> None:
    asked = node.ask(SHOW, **environment)
    said, _ = asked.communicate("", timeout=60)
    seen = json.loads(said)
    assert (asked.returncode, seen["pid"], seen["imported"]) == (0, asked.pid, False)


def test_what_cannot_be_imported_leaves_the_program_to_itself(node: Node) -> None:
    program = node.folder / "program.py"
    program.write_text(SHOW)
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), RAYLET: str(node.raylet.pid), JOB: "01000000"}
    line = f"exec {command(['r1', 'no_such_module'])} {program}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=node.folder, env=known, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["imported"] is False


def test_where_this_python_is_not_there_the_one_of_the_path_is_taken(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking.sys, "executable", "/no/such/python")
    assert command(["r", "json"]).startswith("$([ -x /no/such/python ] && echo /no/such/python || echo python) ")
