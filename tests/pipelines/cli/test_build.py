import json
import subprocess
import threading
from pathlib import Path

import pytest

from cluster.errors import Unavailable
from cluster.settings import ClusterSettings
from pipelines.cli import build


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled; nothing really is."""
    made: list[str] = []
    monkeypatch.setattr(build, "_collectives", lambda: made.append("collectives"))
    monkeypatch.setattr(build, "_kernels", lambda: made.append("kernels"))
    return made


def test_what_is_built_is_not_built_again(tmp_path: Path, compiled: list[str]) -> None:
    cluster = ClusterSettings(state_dir=tmp_path)
    assert set(build.ensure(cluster)) == {"collectives", "kernels"}
    assert build.ensure(cluster) == {}
    (tmp_path / "built").write_text("another machine")
    build.ensure(cluster)
    assert compiled == ["collectives", "kernels"] * 2
    cluster.run_dir.rmdir()


def test_the_command_builds_always_and_answers_with_one_document(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRATA_CLUSTER__STATE_DIR", str(tmp_path))
    for _ in range(2):
        build.run(None, as_json=True)
        assert set(json.loads(capsys.readouterr().out)["seconds"]) == {"collectives", "kernels"}
    assert len(compiled) == 4
    ClusterSettings(state_dir=tmp_path).run_dir.rmdir()


def test_a_long_compile_is_heard_and_falls_silent_when_it_is_over() -> None:
    heard = threading.Semaphore(0)
    with build.ticking(heard.release, 0.001):
        assert heard.acquire(timeout=10)
        assert heard.acquire(timeout=10)
    assert not any(thread.name == "ticking" for thread in threading.enumerate())


def test_a_failed_compile_falls_silent_too() -> None:
    with pytest.raises(ZeroDivisionError), build.ticking(lambda: None, 60):
        raise ZeroDivisionError
    assert not any(thread.name == "ticking" for thread in threading.enumerate())


def test_a_compiler_that_fails_is_named_with_what_it_said_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch raises it: an error of its own whose cause has the output."""

    def ninja() -> None:
        output = b"[1/2] /bin/false -c x.cpp\nFAILED: x.o\nx.cpp:1: fatal error: no such thing\nninja: stopped\n"
        try:
            raise subprocess.CalledProcessError(1, ["ninja"], output=output)
        except subprocess.CalledProcessError as wrong:
            raise RuntimeError("Error building extension 'deepspeed_shm_comm'") from wrong

    with pytest.raises(Unavailable) as caught:
        build.timed("collectives over shared memory (about a minute)", ninja)
    said = str(caught.value)
    assert "collectives over shared memory is unavailable: x.cpp:1: fatal error: no such thing" in said
    assert "set CXX" in said
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(Unavailable, match=r"the compiler /bin/false does not compile.*install g"):
        build.timed("collectives over shared memory (about a minute)", ninja)
