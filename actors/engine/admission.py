"""What an engine can serve at all: the facts of its model, and what is refused because of them before it waits."""

from dataclasses import dataclass

from actors.engine.drafts import MOST
from actors.messages import Assignment, Submit
from cluster.errors import ContextTooLong, InvalidRequest


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine must know of a loaded model."""

    name: str
    vocab_size: int
    context_tokens: int
    blocks: int
    end_tokens: tuple[int, ...]
    guesses: int = 0  # tokens that a step may bring a sequence beyond one, where guessing is on
    places: int = 0  # for blocks that leave the cache and may be fetched again


def check(submit: Submit, facts: Facts, capacity: int) -> None:
    """Raises InvalidRequest or ContextTooLong for what can never be served; `capacity`: tokens that one may have."""
    prompt, params, vocab = submit.prompt, submit.params, facts.vocab_size
    if not prompt:
        raise InvalidRequest("prompt", "an empty prompt", "give at least one token")
    if min(prompt) < 0 or max(prompt) >= vocab:
        raise InvalidRequest("prompt", "a token id outside the vocabulary", f"ids go from 0 to {vocab - 1}")
    emitted = submit.emitted
    if emitted and (min(emitted) < 0 or max(emitted) >= vocab):
        raise InvalidRequest("emitted", "a token id outside the vocabulary", f"ids go from 0 to {vocab - 1}")
    if emitted and len(emitted) >= min(params.max_tokens or capacity, capacity - len(prompt)):
        raise ContextTooLong("emitted", f"{len(emitted)} tokens", "the answer is complete already")
    biased = max(params.logit_bias, default=0)
    if biased >= vocab:
        raise InvalidRequest("logit_bias", biased, f"token ids go from 0 to {vocab - 1}")
    stopping = max(params.stop_ids, default=0)
    if stopping >= vocab:
        raise InvalidRequest("stop_token_ids", stopping, f"token ids go from 0 to {vocab - 1}")
    wanted = params.max_tokens or 1
    if len(prompt) + wanted > capacity:
        raise ContextTooLong(
            "max_tokens" if len(prompt) < capacity else "prompt",
            f"{len(prompt)} prompt tokens and {wanted} to generate",
            f"both together fit in {capacity} tokens",
        )


def guessed_tokens(assignment: Assignment) -> int:
    """How many tokens a gang that is made so may guess at a time."""
    return 0 if assignment.speculation == "off" else MOST
