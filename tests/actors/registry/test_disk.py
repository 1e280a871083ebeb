"""Disks that refuse: full, read-only, without rights. Each is one typed error with the file and a remedy."""

import errno
import os

import pytest

from actors.registry import disk
from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from actors.registry.stages import Stage, Stages
from cluster.errors import Barred, Unavailable

LOCKS = ("strata.lock", "content.lock", "index.lock")


@pytest.fixture
def pushed(registry, model):
    registry.push("chat", model, author="ada")
    (model / "README.md").write_text("Next")
    return registry


@pytest.fixture
def read_only(monkeypatch, pushed):
    """As a file system that is mounted so, or another account, answers whoever opens a lock."""
    opened = os.open

    def refusing(path, flags, *more, **named):
        if flags & os.O_RDWR and str(path).endswith(LOCKS):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    return pushed


def acts(registry, model):
    yield lambda: registry.push("chat", model, author="ada")
    yield lambda: Aliases(registry).move("chat", "prod", "v1", author="ada")
    yield lambda: Stages(registry).move("chat", "v1", Stage.CANDIDATE, author="ada")
    yield lambda: registry.tag("chat", "spring", "v1")
    yield lambda: registry.branch("chat", "tuned", "v1")


def test_what_only_reads_works_where_nothing_can_be_written(read_only, tmp_path):
    again = Registry(read_only.folder)
    again.checkout("chat", "v1", tmp_path / "out")
    assert again.show("chat").signed
    assert len(list(again.log("chat"))) == 1
    assert again.fsck() == []


def test_what_writes_says_that_it_cannot(read_only, model):
    for act in (*acts(read_only, model), read_only.gc, read_only.repair):
        with pytest.raises(Unavailable, match=r"lock is unavailable: Read-only file system; have it mounted"):
            act()


def test_a_full_disk_is_said_before_anything_is_begun(pushed, model, monkeypatch):
    def full(_descriptor, _at, _size):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = pushed.history("chat").every(lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        for act in acts(pushed, model):
            with pytest.raises(Unavailable, match="No space left on device; make room there"):
                act()
    assert pushed.history("chat").every(lambda *_: None) == before
    assert not [path for path in (pushed.folder / "models" / "chat.git").iterdir() if "room" in path.name]
    for act in acts(pushed, model):
        act()


def test_a_file_system_that_cannot_keep_room_is_none_that_is_full(tmp_path, monkeypatch):
    def unknown(_descriptor, _at, _size):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    disk.ask_room(tmp_path / "room", 4096)
    assert list(tmp_path.iterdir()) == []


def test_what_no_disk_said_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), disk.explained():
        (tmp_path / "none").read_text()


def test_a_folder_that_nobody_can_make_is_a_sentence_and_leaves_nothing(pushed, tmp_path):
    for folder in (pushed.folder / "signing.key" / "out", tmp_path / ("x" * 300)):
        with pytest.raises(Barred, match=rf"the folder {folder} cannot be made \(.*\); name one elsewhere"):
            pushed.checkout("chat", "v1", folder)
    with pytest.raises(Barred, match="is there already"):
        disk.expect_new(tmp_path)
    disk.expect_new(tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []
