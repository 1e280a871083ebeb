"""What a controller of releases knows, in one file that is always whole, and every step of it in another, once.

`state.json` is replaced whole. It holds the records that belong to it, which are then added to `audit.jsonl`: whoever
finds it after a crash adds those that are missing. Knows files. Knows nothing of what is in them.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import SettingsInvalid

STATE, AUDIT = "state.json", "audit.jsonl"


class Ledger:
    """One owner writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._written = 0  # the number of the last record in the audit
        self._records: list[dict[str, Any]] = []  # those of the last state that had any

    def load(self) -> dict[str, Any]:
        """The last state, nothing before the first. Raises SettingsInvalid for a file that is not whole."""
        self._written = self._mend()
        path = self._folder / STATE
        try:
            kept = json.loads(path.read_text("utf-8"))
            state: dict[str, Any] = kept["state"]
            self._records = kept["records"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            raise SettingsInvalid(
                str(path), "not what was written there", "put back a copy, or remove it: then routes are the settings'"
            ) from None
        self._append()
        return state

    def save(self, state: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Keep a state, and with it what has happened: numbered, dated, on the disk when this returns."""
        if records:
            first = self._written + 1
            self._records = [
                {"number": first + place, "at": time.time(), **record} for place, record in enumerate(records)
            ]
        scratch = self._folder / f"{STATE}.{os.getpid()}"
        with scratch.open("w", encoding="utf-8") as file:
            json.dump({"state": state, "records": self._records}, file, separators=(",", ":"))
            if records:
                file.flush()
                os.fsync(file.fileno())
        scratch.replace(self._folder / STATE)
        self._append()

    def audit(self) -> list[dict[str, Any]]:
        """Every record, oldest first."""
        try:
            lines = (self._folder / AUDIT).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def _append(self) -> None:
        missing = [record for record in self._records if record["number"] > self._written]
        if not missing:
            return
        with (self._folder / AUDIT).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n" for record in missing)
            file.flush()
            os.fsync(file.fileno())
        self._written = missing[-1]["number"]

    def _mend(self) -> int:
        """Cut off half a line that a crash left; the number of the last record."""
        path = self._folder / AUDIT
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return 0
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            os.truncate(path, len(whole))
        return int(json.loads(whole.splitlines()[-1])["number"]) if whole else 0
