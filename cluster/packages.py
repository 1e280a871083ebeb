"""The code that jobs brought along, through a death of Ray's control store.

A store that was started again knows no more which actors use a package and deletes it with the first one that ends: no
gang could start on a new node after that. So each package has a copy here, and after a death what is gone by then is
put back, and all of them are pinned. Knows Ray's key-value store. Knows no processes.
"""

import threading
from collections.abc import Collection
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

PREFIX = "gcs://_ray_pkg_"  # what their names begin with
FOR_EVER_SECONDS = 10 * 365 * 24 * 3600


class Packages:
    """Copies in a folder. `store` is `ray.experimental.internal_kv`."""

    def __init__(self, store: Any, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._copies: dict[bytes, Path] = {}
        self._died = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)

    def died(self) -> None:
        """The control store has died. To be said before another is started: what that one lists counts no more."""
        self._died.set()

    def keep(self, ended: threading.Event, seconds: float) -> None:
        """Look every so often, until `ended`."""
        while not ended.wait(seconds):
            self.look()

    def look(self) -> bool:
        """Copy what is new and let go of what is gone, or put it back after a death. Whether the store answered."""
        died = self._died.is_set()
        self._died.clear()  # first: what is said from now on is of yet another death
        try:
            if died:
                self._put_back()
            else:
                self._copy(self._listed())
        except (RayError, OSError):  # it is away, or there is no room for a copy: again at the next look
            if died:
                self._died.set()
            return False
        return True

    def _listed(self) -> set[bytes]:
        return set(self._store._internal_kv_list(PREFIX))

    def _copy(self, there: set[bytes]) -> None:
        for name in there - self._copies.keys():
            content = self._store._internal_kv_get(name)
            if content is not None:
                copy = self._folder / blake2b(name, digest_size=16).hexdigest()
                copy.write_bytes(content)
                self._copies[name] = copy
        if self._died.is_set():  # meanwhile: it may have been the next one that said what is there
            return
        for name in self._copies.keys() - there:
            self._copies.pop(name).unlink(missing_ok=True)

    def _put_back(self) -> None:
        self._pin(self._copies.keys())  # none of them goes from here on
        there = self._listed()
        for name in self._copies.keys() - there:
            self._store._internal_kv_put(name, self._copies[name].read_bytes())
        self._pin(there - self._copies.keys())

    def _pin(self, names: Collection[bytes]) -> None:
        for name in names:
            self._store._pin_runtime_env_uri(name.decode(), expiration_s=FOR_EVER_SECONDS)
