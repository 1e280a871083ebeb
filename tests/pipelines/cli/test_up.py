"""What `strata up` refuses, and that it ends what it started and nothing else; the rest is in tests/system."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cluster import hardware, runtime
from cluster.errors import SettingsInvalid
from cluster.runtime import Running
from cluster.settings import ClusterSettings
from pipelines.cli import build, down, serving, up
from pipelines.settings import Settings

HERE = Running("127.0.0.1:1", 1, "", "http://127.0.0.1:8000", "", "127.0.0.1")


def test_another_port_or_host_than_what_runs_is_refused_at_once() -> None:
    up.refuse(ClusterSettings(), HERE)
    for other in ({"http_port": 8001}, {"host": "0.0.0.0"}):
        with pytest.raises(SettingsInvalid, match=r"runs on 127\.0\.0\.1:8000 already; `strata down` first"):
            up.refuse(ClusterSettings.model_validate(other), HERE)


def test_a_taken_port_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "port_problem", lambda host, port: f"nginx listens on {port}")
    with pytest.raises(SettingsInvalid, match="nginx listens on 8000"):
        up.refuse(ClusterSettings(), None)
    up.refuse(ClusterSettings(), HERE)  # it is ours


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Running], list[str]]:
    """Run `up` where the cluster is as given and publishing fails as nobody foresaw; what was ended."""
    ended: list[str] = []

    def fail(*_: Any) -> NoReturn:
        raise RuntimeError("HAProxyManager.ready()")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRATA_CLUSTER__STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(up, "refuse", lambda *_: None)
    monkeypatch.setattr(up, "interruptible", lambda: None)
    monkeypatch.setattr(build, "ensure", lambda _: {})
    monkeypatch.setattr(runtime, "connect", lambda *_: None)
    monkeypatch.setattr(runtime, "environment", lambda _: {})
    monkeypatch.setattr(serving, "HEAVY", ())
    monkeypatch.setattr(serving, "publish", fail)
    monkeypatch.setattr(down, "everything", lambda _: ended.append("cluster"))

    def run(running: Running) -> list[str]:
        monkeypatch.setattr(runtime, "start", lambda *_: running)
        with pytest.raises(RuntimeError, match="HAProxyManager"):
            up.run(None, {}, detach=True, as_json=True)
        ClusterSettings(state_dir=tmp_path / "state").run_dir.rmdir()
        return ended

    return run


def test_whatever_ends_it_what_it_started_is_ended(world: Callable[[Running], list[str]]) -> None:
    assert world(Running("a:1", 1, new=True)) == ["cluster"]


def test_a_cluster_that_was_there_before_is_left_alone(world: Callable[[Running], list[str]]) -> None:
    assert world(Running("a:1", 1)) == []


def test_what_is_heavy_is_imported_once_ray_s_environment_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None]] = []
    monkeypatch.setenv("RAY_MARK", "before")
    monkeypatch.setattr(runtime, "environment", lambda _: {"RAY_MARK": "stands"})
    monkeypatch.setattr(serving, "import_module", lambda name: seen.append((name, os.environ.get("RAY_MARK"))))
    serving.anticipate(Settings()).join()
    assert seen == [(name, "stands") for name in serving.HEAVY]
