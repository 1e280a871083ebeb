"""All that the refs of a model lead to, read past whatever is broken, and what is wrong with it.

Owns the walk and the list of faults. Knows no store and no signatures.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from actors.registry import pieces
from actors.registry.history import History, numbered, spans
from actors.registry.pieces import SUFFIX, Pieces
from cluster.errors import StrataError

BROKEN = (StrataError, OSError)
MOST = 6  # names of one kind that a line for a person has


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault was met. `at`: a version's number, the first digits of another commit, a ref; `file` of it."""

    model: str
    at: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and everywhere that it was met."""

    wrong: str
    places: tuple[Place, ...]

    def __str__(self) -> str:
        """For a person: of each model the versions and the files, the first of many."""
        models = dict.fromkeys(place.model for place in self.places)
        return f"{'; '.join(map(self._of, models))}: {self.wrong}"

    def _of(self, model: str) -> str:
        there = [place for place in self.places if place.model == model]
        at = dict.fromkeys(place.at for place in there if place.at)
        versions = [name for name in at if name.startswith("v") and name[1:].isdigit()]
        names = [*spans(versions), *(name for name in at if name not in versions)]
        files = list(dict.fromkeys(place.file for place in there if place.file))
        return " ".join(filter(None, (model, _some(names), _some(files))))


class Faults:
    """What is wrong, each once, with all places where it was met."""

    def __init__(self) -> None:
        self._places: dict[str, dict[Place, None]] = {}

    def add(self, place: Place, wrong: object) -> None:
        """One fault, of the version or ref at `place`."""
        self._places.setdefault(str(wrong), {})[place] = None

    def found(self) -> list[Fault]:
        """All, in the order in which they were met."""
        return [Fault(wrong, tuple(places)) for wrong, places in self._places.items()]


def commits(model: str, history: History, faults: Faults) -> Iterator[tuple[str, Place, dict[str, bytes]]]:
    """All commits of a model, those of merge requests too, each with its place and the files that can be read."""
    numbers = {commit: number for number, commit in numbered(history).items()}
    every = history.every(_told(Place(model), faults))
    waiting = [(commit, Place(model, ref)) for ref, commit in every.items()]
    ended: dict[str, object] = {}  # what is wrong with each that was looked at; nothing, mostly
    while waiting:
        commit, place = waiting.pop()
        own = Place(model, numbers.get(commit, commit[:12]))
        if commit not in ended:
            try:
                parents, ended[commit] = history.parents(commit), None
            except BROKEN as wrong:
                ended[commit] = wrong
            else:
                waiting += [(parent, own) for parent in parents]
                yield commit, own, history.files(commit, _told(own, faults))
        if ended[commit]:
            faults.add(own if commit in numbers else place, ended[commit])


def listed(place: Place, content: Mapping[str, bytes], faults: Faults) -> Iterator[tuple[str, Pieces]]:
    """The large files of a tree, as `tree.listed`, but for those whose list is broken."""
    for name, text in content.items():
        if name.endswith(SUFFIX):
            try:
                yield name.removesuffix(SUFFIX), pieces.parse(name, text)
            except StrataError as wrong:
                faults.add(Place(place.model, place.at, name.removesuffix(SUFFIX)), wrong)


def _told(place: Place, faults: Faults) -> Callable[[str, Exception], None]:
    """`place`: without `at` what is told of is a ref, else a file."""
    if not place.at:
        return lambda name, wrong: faults.add(Place(place.model, name), wrong)
    return lambda name, wrong: faults.add(Place(place.model, place.at, name.removesuffix(SUFFIX)), wrong)


def _some(names: list[str]) -> str:
    more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
    return ", ".join([*names[:MOST], *more])
