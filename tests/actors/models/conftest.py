from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.models import architectures
from tests.actors.models.ranks import Ranks


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a named architecture, made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = architectures.make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two ranks of one gang, started once."""
    ranks = Ranks(tmp_path_factory.mktemp("meeting"), 2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Four ranks of one gang: more than many a machine has cores."""
    ranks = Ranks(tmp_path_factory.mktemp("meeting-of-four"), 4)
    yield ranks
    ranks.close()
