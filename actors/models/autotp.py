"""How the modules of transformers are split over ranks."""

from dataclasses import dataclass, field
from typing import Any

from actors.models.parallel import World
from actors.models.skeleton import Cut


@dataclass
class Split:
    """What each rank keeps, and what its modules do about it."""

    cuts: dict[str, Cut] = field(default_factory=dict)

    def apply(self, module: Any) -> None:
        """Make the modules sum and gather."""


def plan(module: Any, config: Any, world: World) -> Split:
    """Nothing is split in a world of one."""
    return Split()
