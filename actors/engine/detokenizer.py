"""One sequence's tokens to text as they come, up to the first stop string.

Knows bytes and stop strings. Knows nothing of why a sequence ends otherwise. What is out is never taken
back: half a character and what may become a stop string wait. Bytes that never become a character are
left out at the end, where a token limit may have cut one in two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.engine.spelling import Spelling
from actors.engine.stops import StopWatch
from actors.messages import SamplingParams


class Speller(Protocol):
    """A tokenizer as far as it matters here."""

    @property
    def spelling(self) -> Spelling:
        """The bytes of its tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """What some tokens added to a text.

    `kept_tokens`: how many of those pushed belong to the answer; the rest came after the stop string.
    `stop`: the stop string that ended the text, if one did.
    """

    text: str
    kept_tokens: int = 0
    stop: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self.stop is not None


class Detokenizer:
    """The text of one sequence.

    `continues`: the text goes on from a prompt (a completion), so a first word keeps its space; a chat
    answer is a text of its own, as the tokenizer would decode it.
    """

    def __init__(self, tokenizer: Speller, params: SamplingParams, *, continues: bool = False) -> None:
        spelling = tokenizer.spelling
        self._say = spelling.speech(skip_special=params.skip_special_tokens, continues=continues).say
        self._watch = StopWatch(params.stops) if params.stops else None
        self._include = params.include_stop_str_in_output
        self._early = params.min_tokens - 1  # tokens in whose text no stop string counts, as in vLLM
        self._stop: str | None = None

    def push(self, tokens: Sequence[int], *, ended: bool = False) -> Piece:
        """Take the next tokens. `ended`: the last is the end token or stop id that ended it, and says nothing."""
        if self._stop is not None:
            return Piece("", 0, self._stop)
        said = tokens[:-1] if ended and not self._include else tokens
        if self._watch is None:
            return Piece("".join([self._say(token) for token in said]), len(tokens))
        texts = []
        for place, token in enumerate(said):
            text = self._say(token)
            if self._early > 0:
                self._early -= 1
                texts.append(text)
                continue
            text, self._stop = self._watch.feed(text)
            texts.append(text)
            if self._stop is not None:
                if self._include:
                    texts.append(self._stop)
                return Piece("".join(texts), place + 1, self._stop)
        return Piece("".join(texts), len(tokens))

    def flush(self) -> Piece:
        """The sequence is over: what was held back as the possible begin of a stop string."""
        held = self._watch.drain() if self._watch is not None and self._stop is None else ""
        return Piece(held, 0, self._stop)
