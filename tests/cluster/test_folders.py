import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cluster import folders
from cluster.errors import SettingsInvalid, Unavailable
from cluster.settings import ClusterSettings


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    made = ClusterSettings(state_dir=tmp_path / "state")
    yield made
    if made.run_dir.exists():
        made.run_dir.rmdir()


def test_folders_and_token_belong_to_us_alone(settings: ClusterSettings) -> None:
    folders.prepare(settings)
    token = settings.state / "ray.token"
    written = token.read_text()
    assert len(written) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.state.stat().st_mode) == 0o700
    token.chmod(0o644)
    folders.prepare(settings)
    assert token.read_text() == written
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert [path.name for path in settings.state.iterdir()] == ["ray.token"]


def test_a_token_that_a_full_disk_cut_short_is_made_again(settings: ClusterSettings) -> None:
    settings.state.mkdir(mode=0o700)
    (settings.state / "ray.token").touch()
    folders.prepare(settings)
    assert len((settings.state / "ray.token").read_text()) == 64


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(SettingsInvalid, match="somebody else"):
        folders.prepare(ClusterSettings(state_dir=tmp_path / "state"))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/strata"])
def test_what_cannot_be_a_folder_is_named_with_a_way_out(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("I was here first")
    with pytest.raises(SettingsInvalid) as caught:
        folders.prepare(ClusterSettings(state_dir=tmp_path / place))
    assert str(tmp_path / place) in str(caught.value)
    assert "set another state_dir" in str(caught.value)


def test_a_full_disk_is_named(settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folders, "_make_token", full)
    with pytest.raises(SettingsInvalid, match=r"No space left on device.*make room"):
        folders.prepare(settings)


def test_one_up_at_a_time_and_the_second_is_told_who_has_it(settings: ClusterSettings) -> None:
    wanted = rf"process {os.getpid()}.*strata deploy"
    with folders.held(settings), pytest.raises(Unavailable, match=wanted), folders.held(settings):
        pytest.fail("two hold it")
    with folders.held(settings):
        assert (settings.state / "up.lock").read_text() == str(os.getpid())


def test_a_holder_that_is_killed_holds_nothing(settings: ClusterSettings) -> None:
    code = (
        "import sys; from cluster import folders; from cluster.settings import ClusterSettings\n"
        "with folders.held(ClusterSettings(state_dir=sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(settings.state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Unavailable, match=f"process {holder.pid}"), folders.held(settings):
        pytest.fail("two hold it")
    holder.kill()
    holder.communicate()
    with folders.held(settings):
        pass
