"""What sequences do to their logits before anything is drawn: logit_bias, min_tokens, penalties.

Owns what that takes of each slot; most slots have none of it. Knows nothing of drawing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from actors.engine.logits import Logits, Rows
from actors.engine.penalties import Seen, penalise, wanted
from actors.messages import SamplingParams


@dataclass(frozen=True, slots=True)
class Edit:
    """One slot's."""

    bias_ids: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float32]
    banned: npt.NDArray[np.int64]  # until `min_tokens` tokens are out
    min_tokens: int
    seen: Seen | None = field(repr=False)


class Edits:
    """Those of all slots over one vocabulary."""

    def __init__(self, vocab_size: int, end_tokens: tuple[int, ...]) -> None:
        self._vocab, self._ends = vocab_size, end_tokens
        self._of: dict[int, Edit] = {}

    def join(self, slot: int, params: SamplingParams, prompt: Sequence[int], emitted: Sequence[int]) -> bool:
        """Let a sequence have `slot`: whether it has any."""
        penalised = wanted(params)
        if not (params.logit_bias or penalised or len(emitted) < params.min_tokens):
            return False
        banned = sorted(token for token in {*self._ends, *params.stop_ids} if token < self._vocab)
        bias = {token: amount for token, amount in params.logit_bias.items() if token < self._vocab}
        self._of[slot] = Edit(
            np.fromiter(bias.keys(), np.int64, len(bias)),
            np.fromiter(bias.values(), np.float32, len(bias)),
            np.array(banned, np.int64),
            params.min_tokens,
            Seen(params, prompt, emitted) if penalised else None,
        )
        return True

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`."""
        self._of.pop(slot, None)

    def apply(self, work: Logits, slots: Rows, positions: Rows) -> None:
        """Change the rows of `work` whose `slots` have any; `positions`: by slot, how many tokens are out.

        A ban may take a row's last number, and a penalty may make one infinite.
        """
        if not self._of:
            return
        edited = [(row, slot, self._of[slot]) for row, slot in enumerate(slots.tolist()) if slot in self._of]
        for row, slot, edit in edited:
            work[row, edit.bias_ids] += edit.bias
            if positions[slot] < edit.min_tokens:
                work[row, edit.banned] = -np.inf
        with np.errstate(over="ignore"):
            penalise(work, [(row, edit.seen) for row, _, edit in edited if edit.seen is not None])

    def record(self, slots: Rows, tokens: Sequence[int]) -> None:
        """These were taken."""
        if not self._of:
            return
        for slot, token in zip(slots.tolist(), tokens, strict=True):
            edit = self._of.get(slot)
            if edit is not None and edit.seen is not None:
                edit.seen.add(token)
