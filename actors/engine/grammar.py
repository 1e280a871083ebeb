"""Specs compiled to automata over one model's tokens, by llguidance.

Owns the limits of what an automaton may cost and the cache of those that were compiled. Not thread safe: its owner
calls it from one thread. Knows nothing of requests, slots and logits.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark

from actors.engine.soundness import escapes, sound
from actors.engine.states import States, kind_of
from actors.engine.tokens import Tokenizer
from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

CACHE_BYTES = 64 << 20
# Measured: a compiled schema of two properties takes 110 KiB; an automaton grows with use by some 0.8 KiB a state,
# which all who share it grow together.
MATCHER_BYTES = 128 << 10
GROWTH = 300_000_000  # bytes a second, where every character leads to a new state
BYTES_PER_CHARACTER = 32
VERDICT_BYTES = 512
# Between the elements of JSON: nothing, a space, or a line break and what indents eight levels by four spaces. All that
# JSON allows would be an invitation: a model that has nothing to say fills its answer with it.
JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_pattern": r"( |\n[ \t]{0,32})?"}
COMPACT_OPTIONS: "JsonCompileOptions" = {"whitespace_flexible": False}
# Tokens between which models write calls: text to a grammar, whether or not a tokenizer calls them special.
MARKS = ("<tool_call>", "</tool_call>", "<|python_tag|>")
# Texts that a grammar left no choice about, whose tokens are remembered: keys and signs, which every answer asks for.
SPELLINGS, SPELLED_CHARACTERS = 4096, 64
REHEARSED = 4  # tokens that an answer is tried with: an object with too many optional members fails at its second
REFUSED_CHARACTERS = 300  # of the compiler's own words

# What one automaton may cost. The defaults of llguidance allow a gigabyte and 70 ms a token; with these the worst
# ambiguous grammar that we found takes 40 ms for one token and is then given up (see `masks`), the worst pattern 80 ms
# to be refused and the worst schema within `actors.burden` 150, while one with 200 optional properties still compiles.
LIMITS = LLParserLimits(
    max_items_in_row=1000,
    initial_lexer_fuel=100_000,
    step_lexer_fuel=50_000,
    step_max_items=10_000,
    max_lexer_states=10_000,
    max_grammar_size=30_000,
    verbose_errors=False,  # they would hold the schema
)


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Automaton:
    """One compiled form: a matcher to copy, which has seen nothing, and what its sequences have learnt together."""

    matcher: LLMatcher
    states: States


class Grammars:
    """The automata of one model. `read` gives its tokenizer when the first is compiled."""

    def __init__(self, read: Callable[[], Tokenizer], cache_bytes: int = CACHE_BYTES) -> None:
        self._read = read
        self._vocabulary: LLTokenizer | None = None
        self._compiled: Cache[Automaton] = Cache(cache_bytes)
        self._verdicts: Cache[str] = Cache(cache_bytes // 16)

    @property
    def vocabulary(self) -> LLTokenizer:
        """The tokens as the compiler sees them. Raises InvalidRequest for a tokenizer that it cannot see through."""
        if self._vocabulary is None:
            self._vocabulary = vocabulary(self._read())
        return self._vocabulary

    def automaton(self, spec: str) -> Automaton:
        """What `spec` compiles to. Its matcher may be in error: it knows why."""
        key = digest(spec)
        found = self._compiled.get(key)
        if found is None:
            made = LLMatcher(self.vocabulary, grammar(spec), log_level=0, limits=LIMITS)
            found = Automaton(made, States(kind_of(spec)))
            if not made.is_error():
                self._compiled.put(key, found, MATCHER_BYTES + BYTES_PER_CHARACTER * len(spec))
        return found

    def matcher(self, spec: str) -> LLMatcher:
        """A fresh matcher for `spec`. It may be in error: it knows why."""
        return self.automaton(spec).matcher.deep_copy()

    def forget(self, spec: str) -> None:
        """Compile `spec` anew next time: what its matchers share has grown to its limit."""
        self._compiled.pop(digest(spec))

    def used(self, spec: str, seconds: float) -> None:
        """A matcher of `spec` worked for that long: so much may its automaton have grown, which all of them share."""
        key = digest(spec)
        found = self._compiled.get(key)
        if found is not None:
            self._compiled.grow(key, int(seconds * GROWTH) + found.states.grown())

    def spelled(self, token: int) -> bytes | None:
        """The bytes that `token` adds to a text, none for a sign that is no text; None for what ends a text."""
        words = self.vocabulary
        if token in words.eos_tokens:
            return None
        return b"" if words.is_special_token(token) else words.decode_bytes([token])

    def check(self, spec: str, field: str = "structured_outputs") -> None:
        """Raises InvalidRequest, naming `field`, for what cannot be compiled or can never match."""
        key = digest(spec)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._judged(spec)
            self._verdicts.put(key, verdict, VERDICT_BYTES)
        if verdict:
            raise InvalidRequest(field, "what it asks for", verdict)

    def _judged(self, spec: str) -> str:
        """Why `spec` is refused; empty where it is not. Its automaton is not kept: the gateway matches nothing."""
        try:
            matcher = LLMatcher(self.vocabulary, grammar(spec), log_level=0, limits=LIMITS)
        except InvalidRequest as error:
            return error.remedy
        except (ValueError, RecursionError) as error:
            return said(str(error) or type(error).__name__)
        problem = rehearsed(matcher, self.vocabulary)
        return "nothing can match it" if problem.startswith("NoExtension") else said(problem)


class Cache(Generic[Value]):
    """The values used last, as many as `limit` bytes hold by their owners' estimate."""

    def __init__(self, limit: int) -> None:
        self._limit, self.bytes = limit, 0
        self._held: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()

    def get(self, key: bytes) -> Value | None:
        """The value, which is now the one used last."""
        held = self._held.get(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        return held[0]

    def put(self, key: bytes, value: Value, size: int) -> None:
        """Keep `value`; what was used longest ago goes."""
        self.pop(key)
        if size > self._limit:
            return
        self._held[key] = (value, size)
        self.bytes += size
        while self.bytes > self._limit:
            _, (_, gone) = self._held.popitem(last=False)
            self.bytes -= gone

    def grow(self, key: bytes, more: int) -> None:
        """The value has become larger, unless it is gone."""
        if key in self._held:
            value, size = self._held[key]
            self.put(key, value, size + more)

    def pop(self, key: bytes) -> None:
        """Forget it, if it is there."""
        self.bytes -= self._held.pop(key, (None, 0))[1]

    def __len__(self) -> int:
        return len(self._held)


def rehearsed(matcher: LLMatcher, vocabulary: LLTokenizer) -> str:
    """What goes wrong within the first tokens of an answer; empty where nothing does."""
    for _ in range(REHEARSED):
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error() or matcher.is_stopped():
            break
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little")[: vocabulary.vocab_size])
        said_next = [token for token in allowed.tolist() if token not in vocabulary.eos_tokens]
        if not said_next:
            return "" if matcher.is_accepting() else "nothing that this model's tokens spell can match it"
        matcher.consume_token(said_next[0])
    return matcher.get_error()


def digest(spec: str) -> bytes:
    """A key as short for a long spec as for a short one."""
    return blake2b(spec.encode(errors="surrogatepass"), digest_size=16).digest()


def grammar(spec: str) -> str:
    """What llguidance compiles. Raises ValueError for what is none."""
    kind, _, body = spec.partition(":")
    match kind:
        case "json" | "compact":
            options = JSON_OPTIONS if kind == "json" else COMPACT_OPTIONS
            return LLMatcher.grammar_from_json_schema(sound(body), overrides=options | escapes(body))
        case "regex":
            return LLMatcher.grammar_from_regex(body)
        case "choice":
            return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, json.loads(body))))
        case "grammar":
            return LLMatcher.grammar_from_lark(lark(body))
        case "calls":
            return LLMatcher.grammar_from_lark(body)
    raise ValueError(f"a constraint of kind {kind[:20]!r}")


def lark(text: str) -> str:
    """Lark or GBNF as Lark. Empty lines go first: the translation takes a quadratic time over them."""
    lines = "\n".join(line for line in text.splitlines() if line.strip())
    try:
        return any_to_lark(lines)
    except RecursionError:
        raise
    except Exception as error:  # it raises plain Exception, too
        raise ValueError(str(error)) from error


# What llguidance says in words of its own, or of options that our API has not, and what that means to who asked.
_AMBIGUOUS = "it leaves too many ways open at one place: give fewer optional properties or alternatives"
_MEANT = (
    (r"oneOf constraints are not supported", "oneOf is taken only where its branches exclude each other: use anyOf"),
    (r"Current row has|Too many items", _AMBIGUOUS),
    (r"too many expressions", "its patterns are too large together: make them shorter or fewer"),
    (r"exceed the maximum number of nested", "its pattern, or a number's bound, is nested too deep: make it simpler"),
    (r"fuel exhausted", "its patterns take too long to follow: make them shorter, with fewer and smaller repeats"),
    (r"^Unimplemented keys: \[(.+?)\]", r"leave out \1: no answer can be held to it here; look for it in the answer"),
    (
        r"^Failed to generate regex for \w+ range",
        "numbers of such a range cannot be followed: give closer bounds, or none",
    ),
    (r"^Invalid type: (.+)", r"\1 is no type: there are array, boolean, integer, null, number, object and string"),
    (r"^Unknown format: (.+)", r"the format \1 is not known: leave it out, or give a pattern"),
    (r"^Pointer '(.*?)' does not exist", r"the schema has no #\1 for a $ref to mean: put it there"),
    (r"^Resource '(.*?)' is not present", r"nothing is fetched from \1: put what the $ref means into $defs"),
    (r"^Unsatisfiable schema: (.+)", r"nothing validates against it (\1): give a schema that something matches"),
)


def said(problem: str) -> str:
    """The compiler's words, fit for an answer."""
    text = " ".join(problem.replace("<non-verbose/>", "").split())
    found = ((re.search(pattern, text), meant) for pattern, meant in _MEANT)
    text = next((match.expand(meant) for match, meant in found if match), text)
    return text if len(text) <= REFUSED_CHARACTERS else text[:REFUSED_CHARACTERS] + "..."


class _Spelled:
    """A tokenizer in the shape that LLTokenizer reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = tokenizer.end_tokens[0]
        self.tokens = [tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids - {tokenizer.id_of(mark) for mark in MARKS})
        self._encode, self._known = tokenizer.plain_tokens, lru_cache(SPELLINGS)(tokenizer.plain_tokens)
        self._exact = all(self._returns(text) for text in ('{"a": [1', " b", "c"))
        self.greedy: Callable[[str], Sequence[int]] | None = None

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text that a grammar leaves no choice about; as the model was taught them, where possible."""
        if not self._exact and self.greedy is not None:
            return list(self.greedy(text))
        return self._known(text) if len(text) <= SPELLED_CHARACTERS else self._encode(text)

    def _returns(self, text: str) -> bool:
        return b"".join(self.tokens[token] for token in self._encode(text)) == text.encode()


def holdable(tokenizer: Tokenizer) -> bool:
    """Whether answers in these tokens can be held to a form: each spells its bytes, and one ends them."""
    return bool(tokenizer.end_tokens) and tokenizer.spelling.exact


def vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """The compiler's view of a tokenizer. Raises InvalidRequest for one whose tokens do not spell their text."""
    if not holdable(tokenizer):
        missing = "no end token" if not tokenizer.end_tokens else "tokens that change with their neighbours"
        raise InvalidRequest("structured_outputs", missing, f"this model has {missing}: it cannot be held to a form")
    spelled: Any = _Spelled(tokenizer)
    made = LLTokenizer(spelled, eos_token=list(tokenizer.end_tokens))
    spelled.greedy = made.greedy_tokenize
    return made
