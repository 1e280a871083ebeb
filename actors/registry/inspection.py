"""All that the refs of a model lead to, read past whatever is broken, and what is wrong with it.

Owns the walk and the list of faults. Knows no store and no signatures.
"""

from collections.abc import Callable, Iterator, Mapping

from actors.registry import pieces
from actors.registry.history import History
from actors.registry.pieces import SUFFIX, Pieces
from cluster.errors import StrataError

BROKEN = (StrataError, OSError)


class Faults:
    """What is wrong, each once, with the place where it was met first and how many more there are."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, place: str, wrong: object) -> None:
        """One fault, of the version or ref at `place`."""
        self._places.setdefault(str(wrong), []).append(place)

    def lines(self) -> list[str]:
        """A line each, in the order in which they were met."""
        return [f"{first}{_more(rest)}: {wrong}" for wrong, (first, *rest) in self._places.items()]


def commits(model: str, history: History, faults: Faults) -> Iterator[tuple[str, dict[str, bytes]]]:
    """All commits of a model, those of merge requests too, each with the files of it that can be read."""
    waiting = [(commit, f"{model} {ref}") for ref, commit in history.every(_told(model, faults)).items()]
    ended: dict[str, object] = {}  # what is wrong with each that was looked at; nothing, mostly
    while waiting:
        commit, place = waiting.pop()
        if commit not in ended:
            try:
                parents, ended[commit] = history.parents(commit), None
            except BROKEN as wrong:
                ended[commit] = wrong
            else:
                own = f"{model} {commit[:12]}"
                waiting += [(parent, own) for parent in parents]
                yield commit, history.files(commit, _told(own, faults))
        if ended[commit]:
            faults.add(place, ended[commit])


def listed(place: str, content: Mapping[str, bytes], faults: Faults) -> Iterator[tuple[str, Pieces]]:
    """The large files of a tree, as `tree.listed`, but for those whose list is broken."""
    for name, text in content.items():
        if name.endswith(SUFFIX):
            try:
                yield name.removesuffix(SUFFIX), pieces.parse(name, text)
            except StrataError as wrong:
                faults.add(place, wrong)


def _told(place: str, faults: Faults) -> Callable[[str, Exception], None]:
    return lambda name, wrong: faults.add(f"{place} {name}".rstrip(), wrong)


def _more(rest: list[str]) -> str:
    return f" and {len(rest)} more" if rest else ""
