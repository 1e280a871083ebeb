"""A process that is killed at any of its file operations leaves a registry that is whole."""

import os
import shutil
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from actors.registry.aliases import Aliases
from actors.registry.desk import Desk
from actors.registry.merging import Strategy
from actors.registry.registry import Registry
from actors.registry.requests import Requirements, State
from actors.registry.stages import Stage, Stages
from cluster.errors import Conflict
from tests.actors.registry.conftest import write_model

# the child does nothing but what is killed, so threads of others that it lacks are not missed
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.rmtree")
SURE = 400  # file operations, more than any of these takes


def killed_at(number, act):
    """Whether `act` was killed at its file operation of that number, in a process of its own; False if it has fewer.

    Where it only reads it leaves what it leaves at the next that changes something.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event, arguments):
            nonlocal count
            if event in EVENTS and (event != "open" or arguments[2] & os.O_ACCMODE != os.O_RDONLY):
                count += 1
                if count > number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def whole(folder, tmp_path, known):
    """The registry, after looking at all of it: versions count on, each is there to the last byte."""
    registry = Registry(folder)
    assert registry.fsck() == []
    versions = [name for _, names in registry.log("chat") for name in names if name.startswith("v")]
    assert versions == [f"v{number}" for number in range(len(versions), 0, -1)]
    assert len(versions) in (known, known + 1)
    registry.checkout("chat", "main", tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    return registry, len(versions)


def test_a_push_that_is_killed_anywhere(tmp_path):
    old = write_model(tmp_path / "old", {"a": torch.zeros(64)}, number=1)
    new = write_model(tmp_path / "new", {"a": torch.ones(64), "b": torch.ones(8)}, number=2)
    for number in range(SURE):
        folder = tmp_path / f"registry{number}"
        Registry(folder).push("chat", old, author="ada")
        if not killed_at(number, lambda where=folder: Registry(where).push("chat", new, author="ada")):
            break
        registry, known = whole(folder, tmp_path, 1)
        pushed = registry.push("chat", new, author="ada")  # goes on where it was
        assert (pushed.version, pushed.new) == ("v2", known == 1)
        registry.gc()
        whole(folder, tmp_path, 2)
    else:
        pytest.fail("it never came to its end")
    assert number > 20


def test_a_first_push_that_is_killed_anywhere(tmp_path):
    model = write_model(tmp_path / "model", {"a": torch.zeros(64), "b": torch.ones(8)})
    listed = []
    for number in range(SURE):
        folder = tmp_path / f"registry{number}"
        if not killed_at(number, lambda where=folder: Registry(where).push("chat", model, author="ada")):
            break
        registry = Registry(folder)
        assert registry.fsck() == []
        listed.append(registry.models())
        registry.push("chat", model, author="ada")
        assert whole(folder, tmp_path, 1)[1] == 1
    else:
        pytest.fail("it never came to its end")
    assert [] in listed[len(listed) // 3 :], "what was not pushed is not there"


@pytest.mark.parametrize("act", ["gc", "alias", "rollback", "stage"])
def test_what_else_is_killed_anywhere(tmp_path, act):
    model, folder = tmp_path / "model", tmp_path / "registry"
    registry = Registry(folder)
    for value in (0.0, 1.0):
        write_model(model, {"a": torch.full((64,), value)})
        registry.push("chat", model, author="ada")
    aliases, stages = Aliases(registry), Stages(registry)
    aliases.move("chat", "prod", "v1", author="ada")
    for number in range(SURE):
        for piece in range(3):
            registry.blobs.put(f"left behind {number} {piece}".encode())
        now, then = sorted(("v1", "v2"), key=lambda name: "@prod" not in registry.show("chat", name).names)
        other = Stage.DRAFT if stages.of("chat", "v1") is Stage.CANDIDATE else Stage.CANDIDATE
        acts = {
            "gc": registry.gc,
            "alias": lambda a=now, b=then: Aliases(Registry(folder)).move("chat", "prod", b, a, author="ada"),
            "rollback": lambda b=then: Aliases(Registry(folder)).rollback("chat", "prod", b, author="ada"),
            "stage": lambda to=other: Stages(Registry(folder)).move("chat", "v1", to, author="ada"),
        }
        if not killed_at(number, acts[act]):
            break
        whole(folder, tmp_path, 2)
        assert aliases.log("chat", "prod")[0][1].after == aliases.at("chat", "prod")
    else:
        pytest.fail("it never came to its end")
    assert number > 3


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """A registry of which main and tuned went on apart, with a merge request for it; copied for each death."""
    folder = tmp_path_factory.mktemp("forked")
    registry, model = Registry(folder / "registry"), folder / "model"
    for branch, a, b, more in (("main", 0.0, 0.0, "x.md"), ("tuned", 0.0, 1.0, "tuned.md"), ("main", 2.0, 0.0, "x.md")):
        write_model(model, {"a": torch.full((64,), a), "b": torch.full((64,), b)})
        for name in ("x.md", more):
            (model / name).write_text("x")
        registry.push("chat", model, author="ada", branch=branch)
        (model / more).unlink()
    Desk(registry, Requirements(0)).open("chat", "tuned", "Better", author="ada")
    return folder / "registry"


def merged_by(where, way):
    """The version that a merge comes to, by a strategy or by the merge request; one that is there already is it."""
    registry = Registry(where)
    if way == "request":
        return Desk(registry, Requirements(0)).merge("chat", 1, principal="bob").version
    try:
        return registry.merge("chat", "tuned", author="ada", strategy=Strategy(way)).version
    except Conflict:
        return registry.number("chat", "main")


@pytest.mark.parametrize("way", ["clean", "task", "request"])
def test_a_merge_that_is_killed_anywhere(tmp_path, forked, way):
    for number in range(SURE):
        folder = tmp_path / f"registry{number}"
        shutil.copytree(forked, folder)
        if not killed_at(number, lambda where=folder: merged_by(where, way)):
            break
        registry = Registry(folder)
        assert registry.fsck() == []
        there = registry.number("chat", "main")
        assert there in ("v3", "v4")
        assert registry.history("chat").refs("refs/tags/").keys() == {"v1", "v2", "v3", there}
        found, missing = Desk(registry, Requirements(0)).show("chat", 1)
        assert found.merged_as in ("", registry.show("chat", "main").entry.id)
        assert (found.merged_as == "" and missing == []) or there == "v4"
        registry.gc()
        if found.state is State.OPEN:
            assert merged_by(folder, way) == "v4"
        assert registry.fsck() == []
        registry.checkout("chat", "main", tmp_path / "out")
        kept = load_file(tmp_path / "out" / "model.safetensors")
        assert (float(kept["a"][0]), float(kept["b"][0])) == ((2.0, 0.5) if way == "task" else (2.0, 1.0))
        assert (tmp_path / "out" / "tuned.md").is_file()
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(folder)
    else:
        pytest.fail("it never came to its end")
    assert number > 20
