"""The sets of questions that rollouts are judged by, kept once each by their digest.

Knows one folder. Knows nothing of who asks them.
"""

import json
from collections.abc import Collection
from pathlib import Path

from cluster.errors import NotFound
from pipelines.routing import cases
from pipelines.routing.cases import Cases


class Casebook:
    """One owner writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, found: Cases) -> None:
        """Have it there from now on."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(found.digest)
        if not path.exists():
            scratch = path.with_suffix(".part")
            scratch.write_text(found.text, "utf-8")
            scratch.replace(path)

    def find(self, digest: str) -> Cases:
        """The set of that digest. Raises NotFound."""
        try:
            return cases.of(json.loads(self._path(digest).read_text("utf-8")), digest)
        except FileNotFoundError:
            raise NotFound("set of questions", digest) from None

    def sweep(self, wanted: Collection[str]) -> None:
        """Forget all but these."""
        for path in self._folder.glob("*.json"):
            if path.stem not in wanted:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"
