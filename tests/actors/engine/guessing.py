"""Engines that guess wherever there is anything to guess, over models whose every mistake shows."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from actors.engine.admission import Facts
from actors.engine.draft_model import DraftModel
from actors.engine.drafts import MOST, Drafter, Guesser
from actors.engine.loop import Engine
from actors.engine.runner import Runner
from actors.engine.sampler import Sampler
from actors.models import Model
from actors.models.offload import offload
from actors.settings import Limits
from tests.actors.engine.remembering import VOCAB, Checked, Remembering


class Eager(Drafter):
    """Guesses whatever it costs; with a draft model, always by that."""

    def __init__(self, slots: int, model: Guesser | None = None, looks: bool = True) -> None:
        super().__init__(slots, model)
        self._looks = looks

    @classmethod
    def instead_of(cls, drafter: Drafter | None, slots: int = 64) -> "Eager":
        """One with the draft model, if any, of another."""
        assert drafter is not None
        return cls(slots, drafter._model, looks=drafter._model is None)

    def worthy(self, slots: list[int]) -> list[int]:
        return list(range(len(slots)))

    def _looked_up(self, asked: dict[int, np.ndarray], rooms: dict[int, int]) -> dict[int, np.ndarray]:
        return super()._looked_up(asked, rooms) if self._looks else {}

    def _draftable(self, rows: int, dues: Mapping[int, float]) -> list[int]:
        return list(dues) if self._model is not None else []

    def _best(self, rows: int, found: dict[int, np.ndarray], drafted: dict[int, int], due: float) -> tuple[int, bool]:
        return MOST, bool(drafted)


def engine(
    model: Model,
    blocks: int,
    size: int,
    draft: Model | None = None,
    vocab: int = VOCAB,
    looks: bool = True,
    places: int = 0,
) -> tuple[Engine, Eager]:
    """Four slots, and `places` for blocks that leave the cache; not even a plan's wire form is left out."""
    limits = Limits(running_sequences=4, step_tokens=16, block_tokens=size, queued_sequences=10_000)
    sampler = Sampler(vocab, 4, ())
    models = [model] if draft is None else [model, draft]
    for one in models:
        one.allocate(blocks, size)
    store = offload([cache for one in models for cache in one.cached()], size, places, None) if places else None
    runner = Runner(
        model, sampler, slots=4, context_tokens=1000, block_tokens=size, speculates=True, draft=draft, offload=store
    )  # fmt: skip
    assert runner._drafter is not None
    reader = runner._drafter._model
    assert (draft is None) == (reader is None)
    assert reader is None or isinstance(reader, DraftModel)
    runner._drafter = eager = Eager(4, reader, looks)
    return Engine(Checked(runner), Facts("eager", vocab, 1000, blocks, (), MOST, places), limits), eager


def remembering(rule: Callable[[Sequence[int]], int]) -> Remembering:
    """A model by that rule."""
    return Remembering(rule)
