import pytest

from cluster.errors import ExtraMissing, NotFound, SettingsInvalid, Unavailable
from cluster.storage import Blobs
from cluster.storage.blobs import UNFINISHED, digest_of


@pytest.fixture(params=["file", "memory"])
def blobs(request, tmp_path):
    return Blobs(str(tmp_path / "content") if request.param == "file" else f"memory://{tmp_path}")


def test_what_was_put_comes_back_and_is_kept_once(blobs):
    assert list(blobs) == []
    digest, new = blobs.put(b"words")
    assert (digest, new) == (digest_of(b"words"), True)
    assert blobs.put(memoryview(b"words")) == (digest, False)
    assert blobs.get(digest) == b"words"
    assert list(blobs) == [digest]


def test_what_is_removed_is_gone(blobs):
    digest, _ = blobs.put(b"words")
    blobs.remove(digest)
    blobs.remove(digest)
    assert not blobs.has(digest)
    with pytest.raises(NotFound, match=digest[:12]):
        blobs.get(digest)


def test_a_piece_that_was_changed_is_not_handed_out(tmp_path):
    blobs = Blobs(str(tmp_path))
    digest, _ = blobs.put(b"words")
    (tmp_path / digest[:2] / digest[2:]).write_bytes(b"sword")
    with pytest.raises(Unavailable, match="was changed"):
        blobs.get(digest)


def test_leftovers_of_a_writer_that_died_are_swept_and_never_listed(tmp_path):
    blobs = Blobs(str(tmp_path))
    digest, _ = blobs.put(b"words")
    (tmp_path / UNFINISHED / "half").write_bytes(b"wo")
    assert list(blobs) == [digest]
    assert blobs.sweep() == 1
    assert blobs.sweep() == 0


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    blobs = Blobs(str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(Unavailable, match="No space left"):
        blobs.put(b"words")


def test_a_store_of_an_unknown_kind_names_the_setting():
    with pytest.raises(SettingsInvalid, match=r"registry\.store"):
        Blobs("nowhere://bucket")


def test_a_piece_is_read_into_memory_that_is_there(tmp_path):
    blobs = Blobs(str(tmp_path))
    short, long = (blobs.put(content)[0] for content in (b"abc", b"x" * 100))
    room = bytearray(10)
    assert bytes(blobs.read(short, room)) == b"abc"
    assert room[:3] == b"abc"
    assert bytes(blobs.read(long, room)) == b"x" * 100, "what does not fit comes in memory of its own"
    (tmp_path / short[:2] / short[2:]).write_bytes(b"abd")
    with pytest.raises(Unavailable, match=f"{short} was changed"):
        blobs.read(short, room)
    with pytest.raises(NotFound):
        blobs.read("0" * 64, room)
    far = Blobs("memory://read")
    assert bytes(far.read(far.put(b"abc")[0], room)) == b"abc"


def test_a_store_that_an_extra_opens_names_it(monkeypatch):
    def open_url(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", open_url)
    with pytest.raises(ExtraMissing, match=r"registry.store: s3:// needs the extra 's3': pip install 'strata\[s3\]'"):
        Blobs("s3://bucket/models")
    with pytest.raises(SettingsInvalid, match="Install s3fs"):
        Blobs("other://bucket/models")


def test_a_far_store_that_does_not_answer_is_unavailable_whatever_it_raises(monkeypatch):
    """As an object store's own errors are: no kin of OSError."""
    blobs = Blobs("memory://away")
    digest = blobs.put(b"abc")[0]

    def fail(*_: object, **__: object):
        raise RuntimeError("no credentials")

    for method in ("exists", "pipe_file", "cat_file", "rm_file", "find"):
        monkeypatch.setattr(type(blobs._system), method, fail)
    for act in (
        lambda: blobs.has(digest),
        lambda: blobs.put(b"new"),
        lambda: blobs.get(digest),
        lambda: blobs.mend(digest),
        lambda: blobs.remove(digest),
        lambda: list(blobs),
    ):
        with pytest.raises(Unavailable, match="the store /away is unavailable: no credentials"):
            act()
