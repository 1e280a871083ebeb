"""What can be known of a model before anything is replaced: folder, config, tokenizer, the headers of its weights.

Reads no weight and starts no gang. Raises what a gang or the gateway would raise later, when the old one is gone.
"""

from collections.abc import Sequence
from pathlib import Path

from actors import copied
from actors.settings import ModelSettings
from cluster.errors import ModelInvalid


def check(models: Sequence[ModelSettings]) -> None:
    """Look at the models' folders on this machine. Raises ModelInvalid, ArchitectureUnsupported, what `ensure` does."""
    from actors.engine.tokens import Tokenizer  # noqa: PLC0415 - it and torch take seconds to import
    from actors.models import weights  # noqa: PLC0415
    from actors.models.checkpoint import Listed  # noqa: PLC0415
    from actors.models.config import read_config, refuse_stateful  # noqa: PLC0415
    from actors.models.family import describe, language_part  # noqa: PLC0415

    for model in models:
        copied.ensure(model)
        for folder in (Path(path) for path in (model.path, model.draft_model) if path):
            _readable(folder, model.name)
            config = read_config(folder)
            refuse_stateful(config)
            Tokenizer.from_folder(folder)
            listed = Listed(folder)
            if not listed.tensors:
                raise ModelInvalid(str(folder), "there is no tensor in its safetensors files", "fetch the model again")
            family = describe(language_part(config))
            if family is not None:  # what transformers hosts is only known once it is built
                weights.check(family, listed)


def _readable(folder: Path, name: str) -> None:
    try:
        next(folder.iterdir(), None)
    except OSError as wrong:
        said = "there is no such folder" if isinstance(wrong, FileNotFoundError) else f"{wrong.strerror}"
        raise ModelInvalid(str(folder), said, f"set the path of model {name}") from None
