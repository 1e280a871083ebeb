"""Say in the terminal of `strata up` when a gang is lost and when another has taken its place.

Knows what the directory knows. A gang that said goodbye, because a deploy replaced it, is no loss.
"""

from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

from actors.directory import Entry


class Watch:
    """Looks at the processes of the gangs, which costs nothing, and asks the directory only when one is gone."""

    def __init__(
        self,
        known: Callable[[], Collection[Entry]],
        alive: Callable[[int], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._known, self._alive, self._tell = known, alive, tell
        self._entries = {entry.replica: entry for entry in known()}
        self._lost: dict[str, int] = {}  # gangs by model that are to come again

    def look(self) -> None:
        """Compare what was there with what is there."""
        gone = [entry for entry in self._entries.values() if not self._whole(entry)]
        if not gone and not self._lost:
            return
        now = {entry.replica: entry for entry in self._known()}
        for entry in gone:
            if entry.replica in now:  # it took no leave
                self._lost[entry.model] = self._lost.get(entry.model, 0) + 1
                self._tell(f"{entry.model}: a gang was lost ({self._ended(entry)} ended), a new one starts")
        before, self._entries = self._entries, {name: entry for name, entry in now.items() if self._whole(entry)}
        for name, entry in self._entries.items():
            if name not in before and self._lost.get(entry.model):
                self._lost[entry.model] -= 1
                self._tell(f"{entry.model}: the new gang answers")
        self._lost = {model: count for model, count in self._lost.items() if count}

    def _whole(self, entry: Entry) -> bool:
        return all(self._alive(pid) for pid in (entry.leader_pid, *entry.shard_pids))

    def _ended(self, entry: Entry) -> str:
        """All that are gone by now: which went first and took the others along, nobody can tell afterwards."""
        gone = [str(pid) for pid in (*entry.shard_pids, entry.leader_pid) if not self._alive(pid)]
        return f"process{'' if len(gone) == 1 else 'es'} {', '.join(gone)}"


def alive(pid: int) -> bool:
    """Whether a process runs: one that is dead and not yet buried does not."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
