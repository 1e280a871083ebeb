"""Histories that were damaged: every fault is named, of every model, and nothing is collected meanwhile."""

import subprocess
import zlib

import pytest

from actors.registry.aliases import Aliases
from actors.registry.inspection import Fault, Place
from cluster.errors import ModelInvalid, StrataError


@pytest.fixture
def damaged(registry, model):
    """Two models with two versions each, content that no version names, and the repository of one of them."""
    for name in ("chat", "other"):
        registry.push(name, model, author="ada")
        (model / "README.md").write_text(name)
        registry.push(name, model, author="ada")
    registry.blobs.put(b"of a push that was cut")
    return registry, registry.folder / "models" / "chat.git"


def loose(repository, name):
    path = repository / "objects" / name[:2] / name[2:]
    path.chmod(0o644)
    return path


def objects(registry, version="v2"):
    history = registry.history("chat")
    commit = history._repo[history.resolve(version).encode()]
    config = history._repo[commit.tree][b"config.json"][1].decode()
    return {"commit": commit.id.decode(), "tree": commit.tree.decode(), "blob": config}


@pytest.mark.parametrize("holds", ["zzzz", "", "0" * 39, "1" * 40, "ref: refs/heads/gone"])
def test_a_ref_that_leads_nowhere_is_named(damaged, holds):
    registry, repository = damaged
    (repository / "refs" / "heads" / "trash").write_text(holds)
    (problem,) = registry.fsck()
    assert "refs/heads/trash" in str(problem)
    with pytest.raises(ModelInvalid, match=r"refs/heads/trash.*nothing was removed"):
        registry.gc()
    assert registry.show("chat", "v1").signed
    (repository / "refs" / "heads" / "trash").unlink()
    assert (registry.fsck(), registry.gc()) == ([], 1)


def test_a_branch_whose_ref_is_empty_is_not_begun_again(damaged, model):
    registry, repository = damaged
    (repository / "refs" / "heads" / "main").write_text("")
    with pytest.raises(ModelInvalid, match="refs/heads/main: is a ref and names no commit"):
        registry.push("chat", model, author="ada")


@pytest.mark.parametrize("kind", ["commit", "tree", "blob"])
@pytest.mark.parametrize("damage", [b"", b"no object at all", zlib.compress(b"blob 3\x00{} "), None])
def test_every_broken_object_of_every_model_is_named(damaged, kind, damage):
    registry, repository = damaged
    name = objects(registry)[kind]
    other = registry.folder / "models" / "other.git" / "refs" / "heads" / "trash"
    other.write_text("zzzz")
    path = loose(repository, name)
    path.unlink() if damage is None else path.write_bytes(damage)
    problems = list(map(str, registry.fsck()))
    assert len(problems) == 2
    assert f"its object {name} was changed" in problems[0] or f"its object {name} is missing" in problems[0]
    assert "other refs/heads/trash" in problems[1]
    assert problems[0].startswith("chat ")
    with pytest.raises(ModelInvalid, match="nothing was removed; of 2 such faults"):
        registry.gc()
    with pytest.raises(StrataError):
        registry.show("chat")
    if kind == "commit":
        with pytest.raises(StrataError):
            list(registry.log("chat"))


@pytest.mark.parametrize("repaired", [True, False])
@pytest.mark.parametrize("damage", [b"no object at all", None])
@pytest.mark.parametrize("kind", ["tree", "blob"])
def test_a_push_of_the_same_heals_what_was_changed(damaged, model, tmp_path, kind, damage, repaired):
    registry, repository = damaged
    (model / "README.md").write_text("chat")
    path = loose(repository, objects(registry)[kind])
    path.unlink() if damage is None else path.write_bytes(damage)
    if repaired:
        faults, removed = registry.repair()
        assert (len(faults), len(removed)) == (1, int(damage is not None))
    assert not registry.push("chat", model, author="ada").new
    assert registry.fsck() == []
    registry.checkout("chat", "v2", tmp_path / "out")


def test_what_a_tip_lost_that_is_not_pushed_stays_lost(damaged, model):
    registry, repository = damaged
    loose(repository, objects(registry)["blob"]).unlink()
    (model / "config.json").write_text('{"model_type": "llama", "new": 1}')
    assert registry.push("chat", model, author="ada").version == "v3"
    (problem,) = map(str, registry.fsck())
    assert problem.startswith("chat v1-v2 config.json: ")
    assert "push this version again" in problem


def test_a_lost_piece_is_one_line_whatever_needs_it(damaged):
    registry, _ = damaged
    digest = next(digest for digest in registry.blobs if digest in digests(registry))
    registry.blobs.remove(digest)
    (fault,) = registry.fsck()
    assert set(fault.places) == {
        Place(model, version, "model.safetensors") for model in ("chat", "other") for version in ("v1", "v2")
    }
    problem = str(fault)
    assert problem.startswith("chat v1-v2 model.safetensors; other v1-v2 model.safetensors: ")
    assert problem.endswith(f"the piece {digest} is missing; push one of these versions again")


def test_a_line_has_the_first_of_many_places():
    places = [Place("chat", f"v{number}", "a") for number in (9, *range(1, 8))]
    places += [Place("chat", "v9", f"b{number}") for number in range(8)]
    places += [Place("other", name) for name in ("refs/heads/x", "v11", "v10", "0a1b2c3d4e5f")]
    said = "chat v1-v7, v9 a, b0, b1, b2, b3, b4, and 3 more; other v10-v11, refs/heads/x, 0a1b2c3d4e5f: gone"
    assert str(Fault("gone", tuple(places))) == said


def test_a_repository_that_is_none_any_more_is_named(damaged):
    registry, repository = damaged
    (repository / "objects").rename(repository / "gone")
    (problem,) = map(str, registry.fsck())
    assert problem.startswith("chat: ")
    assert "put it back" in problem


def test_a_tag_of_git_with_a_message_is_read(damaged, tmp_path):
    registry, repository = damaged
    line = ["git", "--git-dir", str(repository), "-c", "user.name=a", "-c", "user.email=a", "tag", "-a", "x", "-m", "x"]
    subprocess.run([*line, "v1"], check=True)
    assert registry.fsck() == []
    registry.checkout("chat", "x", tmp_path / "out")
    Aliases(registry).move("chat", "prod", "v1", author="ada")
    assert registry.gc() == 1


def digests(registry):
    history = registry.history("chat")
    return history.files(history.resolve("v1"))["model.safetensors.pieces"].decode()
