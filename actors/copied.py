"""Have a model's folder on this machine before it is read.

Knows who needs a copy. What making one takes is imported where there is one to make: most models are folders.
"""

from pathlib import Path

from actors.settings import ModelSettings, Pinned


def ensure(model: ModelSettings) -> None:
    """Have the folder that `model.path` names here, if it is a version's. Raises what `Copies.ensure` raises."""
    if isinstance(model, Pinned):
        from actors.registry.copies import Copies  # noqa: PLC0415 - it imports what opens stores: 0.3 s

        Copies(Path(model.cache), model.store, model.cache_gb).ensure(model.manifest, f"{model.registry}")
