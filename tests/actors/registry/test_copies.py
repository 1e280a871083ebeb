"""A version as a folder of this machine: whole, checked, shared, found again for a look."""

import multiprocessing
import os

import pytest
import torch

from actors.registry import tree
from actors.registry.copies import Copies
from actors.registry.registry import Registry
from actors.settings import ModelSettings
from cluster.errors import ModelInvalid, NotFound, SettingsInvalid, Unavailable
from cluster.storage import Blobs
from tests.actors.registry.conftest import write_model
from tests.actors.registry.test_killed import SURE, killed_at


@pytest.fixture
def copies(registry, tmp_path):
    return Copies(tmp_path / "cache", registry.store)


@pytest.fixture
def pin(registry, model):
    registry.push("chat", model, author="ada")
    return registry.pin("chat", "main")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def inodes(folder):
    return {path.name: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def nothing_is_fetched(_self, digest):
    raise AssertionError(digest)


def test_a_copy_is_the_folder_that_was_pushed_and_is_made_once(copies, pin, model, monkeypatch):
    done = []
    folder = copies.ensure(pin.manifest, "chat@v1", done.append)
    assert contents(folder) == contents(model)
    assert sum(done) == pin.size
    monkeypatch.setattr("cluster.storage.blobs.Blobs.get", nothing_is_fetched)
    assert copies.ensure(pin.manifest, "chat@v1") == folder


def test_versions_share_the_files_that_are_equal(copies, pin, registry, model):
    first = inodes(copies.ensure(pin.manifest, "chat@v1"))
    (model / "config.json").write_text('{"model_type": "llama", "more": 1}')
    registry.push("chat", model, author="ada")
    second = inodes(copies.ensure(registry.pin("chat", "main").manifest, "chat@v2"))
    assert {name for name in first if first[name] != second[name]} == {"config.json"}


def test_a_sibling_fetches_what_differs(copies, pin, registry, model, weights, monkeypatch):
    copies.ensure(pin.manifest, "chat@v1")
    weights["norm"] *= 2
    write_model(model, weights, hidden_size=1024)
    registry.push("chat", model, author="ada")
    sibling = registry.pin("chat", "main")
    fetched, read = [], Blobs.read
    monkeypatch.setattr(Blobs, "read", lambda *given: fetched.append(given[1]) or read(*given))
    assert contents(copies.ensure(sibling.manifest, "chat@v2")) == contents(model)
    assert len(fetched) == 1
    (copies.path(pin.manifest).parent.parent / "manifests" / ("0" * 64)).write_bytes(b"no manifest")
    for path in copies.path(pin.manifest).parent.parent.glob("files/*"):
        if path.stat().st_size > 1000:  # altered, and made to look as it was: still no piece of it gets into another
            stat = path.stat()
            path.chmod(0o644)
            path.write_bytes(b"x" * stat.st_size)
            os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    write_model(model, weights | {"more": torch.ones(4)}, hidden_size=1024)
    registry.push("chat", model, author="ada")
    assert contents(copies.ensure(registry.pin("chat", "main").manifest, "chat@v3")) == contents(model)


def test_what_was_wanted_longest_ago_makes_room(pin, registry, model, tmp_path):
    """Files that another version has stay, whoever has the others open keeps them, and all can be made again."""
    size = pin.size / 1e9
    copies = Copies(tmp_path / "cache", registry.store, most_gb=2.5 * size)
    pins = [pin]
    for number in range(3):
        write_model(model, {"embed": torch.full((1200, 1024), float(number))}, hidden_size=1024)
        registry.push("chat", model, author="ada")
        pins.append(registry.pin("chat", "main"))
    first = copies.ensure(pins[0].manifest, "chat@v1")
    copies.ensure(pins[1].manifest, "chat@v2")
    with (copies.path(pins[1].manifest) / "model.safetensors").open("rb") as opened:
        os.utime(copies.path(pins[1].manifest), (1, 1))
        copies.ensure(pins[0].manifest, "chat@v1")  # so that v2 is the older one
        copies.ensure(pins[2].manifest, "chat@v3")
        assert [copies.path(each.manifest).exists() for each in pins] == [True, False, True, False]
        assert len(opened.read()) > 4_000_000
    names = {path.name for path in first.iterdir()}
    assert len(list((tmp_path / "cache" / "files").iterdir())) == len(names) + 1, "the small ones are shared"
    assert contents(copies.ensure(pins[3].manifest, "chat@v4")) == contents(model)
    assert (copies.ensure(pins[1].manifest, "chat@v2") / "config.json").is_file()
    Copies(tmp_path / "cache", registry.store, most_gb=0).ensure(pins[2].manifest, "chat@v3")
    assert [copies.path(each.manifest).exists() for each in pins] == [False, False, True, False]


def test_equal_folders_are_one_copy_whoever_pushed_them(registry, model, pin):
    registry.push("other", model, author="bob", metadata={"license": "mit"})
    assert registry.pin("other", "v1").manifest == pin.manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "chat_template.jinja").write_text("ignore all"),
    ],
)
def test_a_copy_that_was_changed_is_made_again(copies, pin, model, change):
    folder = copies.ensure(pin.manifest, "chat@v1")
    for path in folder.iterdir():
        path.chmod(0o644)
    change(folder)
    assert copies.ensure(pin.manifest, "chat@v1") == folder
    assert contents(folder) == contents(model)


def test_content_that_was_changed_or_lost_is_refused_and_leaves_nothing(copies, pin, registry, tmp_path):
    digest = next(d for d in registry.blobs if d != pin.manifest)
    piece = tmp_path / "registry" / "content" / digest[:2] / digest[2:]
    whole = piece.read_bytes()
    piece.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = r"chat@v1 \(model.safetensors\).*was changed; run `strata models fsck --repair`, then push its version"
    with pytest.raises(Unavailable, match=said):
        copies.ensure(pin.manifest, "chat@v1")
    piece.unlink()
    with pytest.raises(
        ModelInvalid, match=r"chat@v1 \(model.safetensors\): its content .* is missing .*; push it again"
    ):
        copies.ensure(pin.manifest, "chat@v1")
    assert not copies.path(pin.manifest).exists()
    piece.write_bytes(whole)
    assert copies.ensure(pin.manifest, "chat@v1").is_dir()


def test_a_manifest_that_is_not_there_or_another(copies, pin, registry, tmp_path):
    registry.blobs.remove(pin.manifest)
    with pytest.raises(ModelInvalid, match=r"chat@v1: is not in .*; the store that it was pushed to"):
        copies.ensure(pin.manifest, "chat@v1")
    registry.pin("chat", "main")
    folder = copies.ensure(pin.manifest, "chat@v1")
    kept = tmp_path / "cache" / "manifests" / pin.manifest
    kept.write_bytes(tree.manifest({"config.json": b"{}"}))
    assert copies.ensure(pin.manifest, "chat@v1") == folder
    assert (folder / "model.safetensors").is_file()


def test_a_machine_that_does_not_see_the_store_says_so(pin, tmp_path):
    with pytest.raises(SettingsInvalid, match=r"registry.store: .*elsewhere is not accepted; the machine \S+ does not"):
        Copies(tmp_path / "cache", str(tmp_path / "elsewhere")).ensure(pin.manifest, "chat@v1")


def test_a_cache_that_cannot_be_written_says_so(pin, registry, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match=r"registry.cache: .*cannot be written"):
        Copies(tmp_path / "file", registry.store).ensure(pin.manifest, "chat@v1")


def test_a_store_of_another_kind(tmp_path, model):
    store = "memory://versions"
    registry = Registry(tmp_path / "far", store)
    registry.push("chat", model, author="ada")
    folder = Copies(tmp_path / "cache", store).ensure(registry.pin("chat", "v1").manifest, "chat@v1")
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def _ensure(folder, store, manifest, start):
    start.wait()
    Copies(folder, store).ensure(manifest, "chat@v1")


def test_many_processes_at_once_make_one(copies, pin, registry, model, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(3)
    asked = (tmp_path / "cache", registry.store, pin.manifest, start)
    processes = [spawn.Process(target=_ensure, args=asked) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    folder = copies.path(pin.manifest)
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not (tmp_path / "cache" / "unfinished").exists()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_who_is_killed_anywhere_leaves_all_or_nothing(tmp_path):
    model = write_model(tmp_path / "model", {"a": torch.ones(8)})
    registry = Registry(tmp_path / "registry")
    registry.push("chat", model, author="ada")
    pin = registry.pin("chat", "v1")
    for number in range(SURE):
        copies = Copies(tmp_path / f"cache{number}", registry.store)
        if not killed_at(number, lambda made=copies: made.ensure(pin.manifest, "chat@v1")):
            break
        folder = copies.path(pin.manifest)
        if folder.exists():
            assert set(os.listdir(folder)) == set(os.listdir(model))  # noqa: PTH208
        copies.ensure(pin.manifest, "chat@v1")
        assert contents(folder) == contents(model)
        assert copies.ensure(pin.manifest, "chat@v1") == folder
    else:
        pytest.fail("it never came to its end")
    assert number > 10


def test_what_is_collected_is_no_manifest_of_a_version(registry, pin):
    assert registry.gc() == 0
    assert registry.blobs.has(pin.manifest)


def test_a_version_that_nobody_signed_is_not_pinned(registry, pin, tmp_path):
    (tmp_path / "registry" / "allowed_signers").write_text("")
    with pytest.raises(ModelInvalid, match="chat@main: it is not signed by a key of"):
        registry.pin("chat", "main")
    with pytest.raises(NotFound, match="prod; there is v1, main"):
        registry.pin("chat", "prod")


def test_a_pinned_model_is_its_settings_and_where_its_copy_lies():
    model = ModelSettings(name="chat", registry="chat@prod", tensor_parallel_size=2)
    pinned = model.pinned("chat@0a1b", "digest", "/store", "/cache", "/cache/versions/digest")
    assert (pinned.registry, pinned.path, pinned.tensor_parallel_size) == (
        "chat@0a1b",
        "/cache/versions/digest",
        2,
    )
    assert pinned.limits == model.limits
    assert isinstance(pinned, ModelSettings)
