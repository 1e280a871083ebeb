import os
import stat
import sys
from pathlib import Path

import pytest

from cluster import runtime
from cluster.errors import SettingsInvalid, Unavailable
from cluster.loopback import reachable
from cluster.settings import ClusterSettings


def test_folders_and_token_belong_to_us_alone(tmp_path: Path) -> None:
    settings = ClusterSettings(state_dir=tmp_path / "state")
    runtime.prepare(settings)
    token = settings.state / "ray.token"
    written = token.read_text()
    assert len(written) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.state.stat().st_mode) == 0o700
    token.chmod(0o644)
    runtime.prepare(settings)
    assert token.read_text() == written
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    settings.run_dir.rmdir()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(SettingsInvalid, match="somebody else"):
        runtime.prepare(ClusterSettings(state_dir=tmp_path / "state"))


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
    monkeypatch.setattr(runtime, "connect", lambda settings, running=None: joined.append((settings.address, running)))
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
