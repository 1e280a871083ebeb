import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import runtime
from cluster.errors import Unavailable
from cluster.loopback import reachable
from cluster.settings import ClusterSettings


def test_two_state_folders_share_nothing(tmp_path: Path) -> None:
    one, two = ClusterSettings(state_dir=tmp_path / "1"), ClusterSettings(state_dir=tmp_path / "2")
    assert one.run_dir != two.run_dir
    assert len(str(one.run_dir)) <= 20  # see test_loopback: sockets lie deep below it


def test_a_local_cluster_is_closed_and_silent(tmp_path: Path) -> None:
    names = runtime.environment(ClusterSettings(state_dir=tmp_path))
    assert names["RAY_AUTH_MODE"] == "token"
    assert names["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "ray.token")
    assert names["RAY_USAGE_STATS_ENABLED"] == "0"
    joined = runtime.environment(ClusterSettings(state_dir=tmp_path, address="auto"))
    assert joined == {"RAY_USAGE_STATS_ENABLED": "0"}  # the rest is the cluster's own affair


def test_a_record_of_a_dead_head_is_not_believed(tmp_path: Path) -> None:
    settings = ClusterSettings(state_dir=tmp_path)
    assert runtime.find(settings) is None
    (tmp_path / "runtime.json").write_text(f'{{"address": "a:1", "pid": {os.getpid()}, "dashboard": "", "url": ""}}')
    assert runtime.find(settings) is None  # that number is this test's, which is no head
    (tmp_path / "runtime.json").write_text("torn")
    assert runtime.find(settings) is None
    assert runtime.processes(settings) == set()


def test_settings_that_only_a_start_reads_are_named_where_they_changed(tmp_path: Path) -> None:
    before = ClusterSettings(state_dir=tmp_path, num_cpus=2)
    running = runtime.Running("a:1", 1, settings=before.at_start)
    assert runtime.unread(before, running) == []
    assert runtime.unread(before, runtime.Running("a:1", 1)) == [], "a head of an older Strata"
    after = before.model_copy(update={"num_cpus": None, "dashboard": False, "spare_nodes": 1, "drain_seconds": 1.0})
    remedy = "`strata down`, then `strata up` has it count"
    assert runtime.unread(after, running) == [
        f"cluster.dashboard is false, and Strata was started with true: {remedy}",
        f"cluster.num_cpus is null, and Strata was started with 2: {remedy}",
    ]


def test_stopping_nothing_is_fine(tmp_path: Path) -> None:
    assert runtime.stop(ClusterSettings(state_dir=tmp_path / "never")) == 0
    assert not (tmp_path / "never").exists()


@pytest.mark.cluster
def test_the_cluster_listens_on_loopback_alone(ray_cluster: ClusterSettings) -> None:
    members = runtime.processes(ray_cluster)
    assert len(members) > 3
    assert reachable(members) == []


@pytest.mark.cluster
def test_a_second_start_finds_the_first(ray_cluster: ClusterSettings) -> None:
    running = runtime.find(ray_cluster)
    assert running is not None
    assert runtime.start(ray_cluster) == running


@pytest.mark.cluster
def test_workers_know_the_token_and_nothing_phones_home(ray_cluster: ClusterSettings) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def surroundings() -> dict[str, str]:
        return dict(os.environ)

    names = ray.get(surroundings.remote())
    assert names["RAY_AUTH_TOKEN_PATH"] == str(ray_cluster.state / "ray.token")
    assert names["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_is_meant_for_another_cluster_does_not_reach_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another's")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("KEPT", "1")
    names = runtime.surroundings(ClusterSettings(state_dir=tmp_path), {"MORE": "2"})
    assert not {"RAY_AUTH_TOKEN", "RAY_ADDRESS"} & names.keys()
    assert (names["KEPT"], names["MORE"], names["RAY_AUTH_TOKEN_PATH"]) == ("1", "2", str(tmp_path / "ray.token"))


@pytest.mark.cluster
def test_a_killed_head_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = ClusterSettings(state_dir=tmp_path, num_cpus=1, dashboard=False)
    running = runtime.start(settings)
    members = runtime.processes(settings)
    os.kill(running.pid, 9)
    runtime.stop(settings)
    assert running.pid in members
    assert runtime.processes(settings) == set()
    assert not settings.run_dir.exists()


def test_the_cluster_that_is_joined_is_the_jobs_own_or_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[tuple[str, object]] = []
    monkeypatch.setattr(
        runtime, "connect", lambda settings, running=None, python="": joined.append((settings.address, running))
    )
    with pytest.raises(Unavailable, match="strata up --detach"):
        runtime.join(ClusterSettings(state_dir=tmp_path))
    runtime.join(ClusterSettings(state_dir=tmp_path, address="head:6379"))
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    runtime.join(ClusterSettings(state_dir=tmp_path))
    assert joined == [("head:6379", None), ("auto", None)]


def test_a_ray_that_was_imported_without_its_token_is_told_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # whatever it is, it is there and must not be asked
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(Unavailable, match="strata node-env"):
        runtime.connect(ClusterSettings(state_dir=tmp_path))
    assert "RAY_AUTH_MODE" not in os.environ


def test_what_a_job_calls_python_is_the_interpreter_that_strata_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = shutil.which("python", path=runtime.search_path())
    assert found is not None
    code = "import sys; print(sys.prefix)"
    assert subprocess.run([found, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == sys.prefix


def test_a_start_that_is_broken_off_leaves_no_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ClusterSettings(state_dir=tmp_path)
    heads: list[subprocess.Popen[bytes]] = []

    def interrupted(*_: object) -> None:
        heads.append(runtime._started[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime, "_until", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runtime.start(settings)
    assert heads[0].wait(10) != 0
    assert runtime.processes(settings) == set()
    shutil.rmtree(settings.run_dir)
