import threading
from pathlib import Path

from ray.exceptions import RaySystemError

from cluster.packages import FOR_EVER_SECONDS, PREFIX, Packages

ONE, TWO = f"{PREFIX}1.zip".encode(), f"{PREFIX}2.zip".encode()


class Store:
    """As much of Ray's key-value store as a package needs; away, unless it is `up`."""

    def __init__(self, **content: bytes) -> None:
        self.content = {f"{PREFIX}{name}.zip".encode(): each for name, each in content.items()}
        self.pinned: dict[str, int] = {}
        self.up = True

    def _internal_kv_list(self, prefix: str) -> list[bytes]:
        if not self.up:
            raise RaySystemError("not yet")
        return [name for name in self.content if name.startswith(prefix.encode())]

    def _internal_kv_get(self, name: bytes) -> bytes | None:
        return self.content.get(name)

    def _internal_kv_put(self, name: bytes, content: bytes) -> None:
        self.content[name] = content

    def _pin_runtime_env_uri(self, uri: str, *, expiration_s: int) -> None:
        self.pinned[uri] = expiration_s


def test_what_is_gone_after_a_death_is_put_back_and_all_is_pinned(tmp_path: Path) -> None:
    store = Store(**{"1": b"one", "2": b"two"})
    packages = Packages(store, tmp_path / "packages")
    assert packages.look()
    packages.died()
    store.up = False
    assert not packages.look()
    store.up = True
    del store.content[ONE]  # an actor ended before anybody looked
    store.content[f"{PREFIX}3.zip".encode()] = b"three"
    assert packages.look()
    assert store.content[ONE] == b"one"
    assert store.pinned == dict.fromkeys((f"{PREFIX}{number}.zip" for number in (1, 2, 3)), FOR_EVER_SECONDS)


def test_what_is_gone_in_life_is_let_go(tmp_path: Path) -> None:
    store = Store(**{"1": b"one", "2": b"two"})
    packages = Packages(store, tmp_path)
    packages.look()
    assert len(list(tmp_path.iterdir())) == 2
    del store.content[ONE]
    packages.look()
    assert [copy.read_bytes() for copy in tmp_path.iterdir()] == [b"two"]
    packages.died()
    packages.look()
    assert set(store.content) == {TWO}
    assert len(store.pinned) == 1


def test_a_list_of_the_next_store_lets_nothing_go(tmp_path: Path) -> None:
    """It dies after it was asked, and the one that answers in its place has lost something."""
    store = Store(**{"1": b"one"})
    packages = Packages(store, tmp_path)
    packages.look()
    listed = store._internal_kv_list

    def dies(prefix: str) -> list[bytes]:
        packages.died()
        return []

    store._internal_kv_list = dies  # type: ignore[method-assign]
    packages.look()
    store._internal_kv_list = listed  # type: ignore[method-assign]
    store.content.clear()
    packages.look()
    assert store.content == {ONE: b"one"}


def test_it_looks_until_it_is_told_to_end(tmp_path: Path) -> None:
    store, ended = Store(**{"1": b"one"}), threading.Event()
    packages = Packages(store, tmp_path)
    looking = threading.Thread(target=packages.keep, args=(ended, 0.001))
    looking.start()
    while not list(tmp_path.iterdir()):
        pass
    ended.set()
    looking.join()
