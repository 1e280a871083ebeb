"""The examples, run as their heads say: a real bare repository, a real push, a gateway with a registry behind."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import uvicorn

from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from actors.registry.service import Place, Registrar
from cluster.errors import Conflict
from cluster.security.keys import KeyRing
from pipelines.gateway import app
from tests.actors.registry.conftest import write_model

ROOT = Path(__file__).parent.parent


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry")
    for value in (1.0, 2.0, 3.0):
        write_model(tmp_path / "model", {"a": torch.full((8,), value)})
        made.push("chat", tmp_path / "model", author="ada")
    Aliases(made).move("chat", "prod", "v1", author="ada")
    return made


@pytest.fixture
def gateway(tmp_path: Path, registry: Registry) -> Iterator[tuple[str, KeyRing]]:
    """Its address, and who gives keys to it."""
    ring, registrar = KeyRing(tmp_path / "keys.json"), Registrar()

    async def ask(principal, act, given):
        return await registrar.ask(Place(str(registry.folder)), principal, act, given)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app.create({}, ring, registry=ask), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", ring
        server.should_exit = True
        thread.join()


class Repository:
    """A bare repository with the hook, and a clone that pushes to it."""

    def __init__(self, folder: Path, url: str, key: str) -> None:
        self.bare, self.clone, self.pushed = folder / "aliases.git", folder / "clone", ""
        self.git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(self.bare))
        shutil.copy(ROOT / "examples" / "pre-receive", self.bare / "hooks" / "pre-receive")
        (self.bare / "strata.env").write_text(f"STRATA_URL={url}\nSTRATA_API_KEY={key}\n")
        self.git(folder, "init", "--quiet", "--initial-branch", "main", str(self.clone))
        self.git(self.clone, "remote", "add", "origin", str(self.bare))

    @staticmethod
    def git(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        who = {f"GIT_{role}_{what}": "ada" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        plain = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **who}
        return subprocess.run(["git", *words], cwd=folder, env=plain, capture_output=True, text=True, check=check)

    def push(self, files: dict[str, str], branch: str = "main") -> tuple[bool, str]:
        """Whether it was taken, and what the hook said."""
        for name, text in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git(self.clone, "add", "-A")
        self.git(self.clone, "commit", "--quiet", "--allow-empty", "-m", "Promote")
        done = self.git(self.clone, "push", "origin", f"HEAD:{branch}", check=False)
        if done.returncode:
            self.git(self.clone, "reset", "--quiet", "--hard", "HEAD~1", check=False)
        return done.returncode == 0, done.stderr


@pytest.fixture
def repository(tmp_path: Path, gateway: tuple[str, KeyRing]) -> Repository:
    url, ring = gateway
    return Repository(tmp_path, url, ring.issue("git", "acme", "admin", created=1))


def at(registry: Registry, alias: str = "prod") -> str:
    return registry.number("chat", Aliases(registry).at("chat", alias))


def test_a_push_moves_aliases(repository: Repository, registry: Registry) -> None:
    taken, said = repository.push({"README.md": "Who is live", "aliases/chat/prod": "v2\n"})
    assert (taken, at(registry)) == (True, "v2"), said
    assert "promote: chat@prod is v2" in said
    taken, said = repository.push({"aliases/chat/next": "v3", "aliases/chat/prod": "v3"})
    assert (taken, at(registry), at(registry, "next")) == (True, "v3", "v3"), said
    (entry, _), *_ = Aliases(registry).log("chat", "prod")
    assert entry.author == "git"
    taken, said = repository.push({"README.md": "More"})
    assert (taken, "promote" in said) == (True, False)
    assert repository.push({"aliases/chat/prod": "v1"}, "draft")[0]
    assert at(registry) == "v3", "other branches say nothing"


def test_a_file_that_is_renamed_moves_the_alias_that_it_is_of_now(repository: Repository, registry: Registry) -> None:
    assert repository.push({"aliases/chat/next": "v3\n"})[0]
    repository.git(repository.clone, "mv", "aliases/chat/next", "aliases/chat/prod")
    taken, said = repository.push({})
    assert (taken, at(registry)) == (True, "v3"), said
    assert "promote: chat@prod is v3" in said


@pytest.mark.parametrize("second", [
    {"aliases/chat/prod": "v9"}, {"aliases/talk/prod": "v1"}, {"aliases/chat/prod": "v2\nv3"}, {"aliases/prod": "v2"},
])  # fmt: skip
def test_of_a_push_that_is_refused_no_alias_moves(
    repository: Repository, registry: Registry, second: dict[str, str]
) -> None:
    taken, said = repository.push({"aliases/chat/next": "v2", **second})
    assert not taken, said
    assert Aliases(registry).all("chat").keys() == {"prod"}
    assert at(registry) == "v1"


def test_what_moved_before_a_move_that_is_refused_is_told(
    repository: Repository, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Aliases.move

    def late(self, model, alias, *given, **more):
        if alias == "prod":
            raise Conflict("chat@prod", "v1", "v3")
        return move(self, model, alias, *given, **more)

    monkeypatch.setattr(Aliases, "move", late)
    taken, said = repository.push({"aliases/chat/next": "v2", "aliases/chat/prod": "v2"})
    assert (taken, at(registry), at(registry, "next")) == (False, "v1", "v2"), said
    assert "promote: moved already, and left there: chat@next" in said
    assert "promote: chat@prod stays where it is" in said


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"aliases/chat/prod": "v9"}, "no version, alias or branch chat@v9"),
        ({"aliases/talk/prod": "v1"}, "no model talk"),
        ({"aliases/chat/prod": 'v2", "x": "'}, "write one version in it"),
        ({"aliases/chat/prod": "v2\nv3"}, "write one version in it"),
        ({"aliases/prod": "v2"}, "name it aliases/MODEL/ALIAS"),
        ({"aliases/chat/$(touch x)": "v2"}, "name it aliases/MODEL/ALIAS"),
    ],
)
def test_a_push_that_the_registry_refuses_is_refused(
    repository: Repository, registry: Registry, files: dict[str, str], says: str
) -> None:
    taken, said = repository.push(files)
    assert not taken
    assert says in said
    assert at(registry) == "v1"
    assert repository.git(repository.bare, "for-each-ref").stdout == ""


def test_a_key_that_may_not_promote_cannot_by_pushing(
    tmp_path: Path, gateway: tuple[str, KeyRing], registry: Registry
) -> None:
    url, ring = gateway
    key = ring.issue("dev", "acme", "developer", created=1)
    taken, said = Repository(tmp_path, url, key).push({"aliases/chat/prod": "v2"})
    assert (taken, at(registry)) == (False, "v1")
    assert "lacks the permission registry.promote" in said
    assert key not in said
