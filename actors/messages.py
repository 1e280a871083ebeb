"""Every value that crosses a process: frozen, plain, msgpack-friendly.

Between gateway and leader travel `Submit`, `Cancel` and one `Frame` per engine step, which carries a
`Delta` for each of that gateway's sequences that moved. Between leader and shards travel a `Plan` and
a `Result`. Nothing here is ever pickled from outside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, cast

from actors import foreign
from actors.constraint import StructuredOutputsParams, structured
from actors.settings import Limits
from cluster.errors import InvalidRequest, sent

MAX_LOGPROBS = 20  # the OpenAI API's own limit for `top_logprobs`
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 512
MAX_LOGIT_BIAS = 1024  # the OpenAI API documents 300 as usual; each costs one scatter per step
MAX_CHOICES = 128


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to turn logits into tokens, in the names that vLLM and OpenAI users know.

    Raises InvalidRequest naming the field for anything out of range. `logprobs` is None for none, 0 for
    the chosen token's alone, k for the k likeliest as well. `max_tokens` None means up to the context.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: str | Sequence[str] | None = ()
    stop_token_ids: Sequence[int] | None = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputsParams | Mapping[str, Any] | str | None = None

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", _listed("stop", stop, MAX_STOP_STRINGS))
        object.__setattr__(self, "stop_token_ids", _listed("stop_token_ids", self.stop_token_ids, MAX_LOGIT_BIAS))
        _whole("n", self.n, 1, MAX_CHOICES)
        _number("temperature", self.temperature, 0.0, 100.0)
        _number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _whole("top_k", self.top_k, -1, 2**31 - 1)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_low=True)
        _optional_whole("seed", self.seed, -(2**63), 2**63 - 1)
        _optional_whole("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _whole("min_tokens", self.min_tokens, 0, 2**31 - 1)
        _optional_whole("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        _flag("include_stop_str_in_output", self.include_stop_str_in_output)
        _flag("ignore_eos", self.ignore_eos)
        _flag("skip_special_tokens", self.skip_special_tokens)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest("min_tokens", self.min_tokens, f"at most max_tokens ({self.max_tokens})")
        object.__setattr__(self, "structured_outputs", structured(self.structured_outputs))
        self._check_stops()
        self._check_bias()

    def _check_stops(self) -> None:
        for text in self.stops:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_CHARACTERS:
                raise InvalidRequest("stop", sent(text), f"each is a text of 1 to {MAX_STOP_CHARACTERS} characters")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InvalidRequest("stop", sent(text), "send text without lone surrogates")
        for token in self.stop_ids:
            _whole("stop_token_ids", token, 0, 2**31 - 1)

    def _check_bias(self) -> None:
        if not isinstance(self.logit_bias, dict):
            raise InvalidRequest("logit_bias", sent(self.logit_bias), "it is an object of token ids and numbers")
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidRequest("logit_bias", f"an object of {len(self.logit_bias)}", f"give at most {MAX_LOGIT_BIAS}")
        for token, bias in self.logit_bias.items():
            _whole("logit_bias", token, 0, 2**31 - 1)
            _number("logit_bias", bias, -100.0, 100.0)

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as it is kept: always a tuple."""
        return cast("tuple[str, ...]", self.stop)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """`stop_token_ids` as they are kept: always a tuple."""
        return cast("tuple[int, ...]", self.stop_token_ids)

    @property
    def constraint(self) -> str | None:
        """`structured_outputs` as it is kept: the text that travels."""
        return cast("str | None", self.structured_outputs)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < 1e-5  # vLLM's threshold: below it a division would overflow


def _with_foreign(init: Callable[..., None]) -> Callable[..., None]:
    """`init` that also takes what vLLM's users write and that asks for nothing here, and names what it does not."""
    own = frozenset(SamplingParams.__dataclass_fields__)

    @wraps(init)
    def made(self: SamplingParams, *given: Any, **named: Any) -> None:
        if not named.keys() <= own:
            foreign.check({name: named.pop(name) for name in named.keys() - own}, foreign.SAMPLING, own)
        init(self, *given, **named)

    return made


SamplingParams.__init__ = _with_foreign(SamplingParams.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability of the token taken and of the likeliest ones, before temperature and penalties."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Submit:
    """One sequence to generate. A request with n choices is n of these with the same prompt.

    `id` is unique per link. `salt` separates prefix caches (one per tenant). `choice` enters the random
    counter, so that the choices of one seed differ. `deadline` is seconds left, None for none.
    `emitted` are tokens that an earlier replica already gave the client: they are replayed as prompt,
    yet count as output (positions of the random counter, penalties, max_tokens). `suspect`: a gang may have
    died of it, so that it is to begin with no other beginner beside it.
    """

    id: int
    prompt: tuple[int, ...]
    params: SamplingParams
    seed: int
    choice: int = 0
    salt: str = ""
    priority: int = 0
    deadline: float | None = None
    emitted: tuple[int, ...] = ()
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client of sequence `id` went away."""

    id: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added to one sequence. The last one of a sequence has `finish`.

    `finish`: None, "stop" (end token or stop id), "length", "cancelled" or "error"; with "error", `error` says which.
    `cached_tokens`: how much of the prompt came from the prefix cache; `queued_seconds` from arrival to the first
    step that computed any of it, `prefill_seconds` from there to the first token: all on the first delta only.
    """

    id: int
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None
    cached_tokens: int = 0
    queued_seconds: float = 0.0
    prefill_seconds: float = 0.0
    error: tuple[str, tuple[Any, ...]] | None = None

    def __add__(self, later: "Delta") -> "Delta":
        """Both as one: `later` follows on this one."""
        return replace(
            self,
            tokens=self.tokens + later.tokens,
            logprobs=self.logprobs + later.logprobs,
            finish=later.finish,
            error=later.error,
            cached_tokens=self.cached_tokens + later.cached_tokens,
            queued_seconds=self.queued_seconds + later.queued_seconds,
            prefill_seconds=self.prefill_seconds + later.prefill_seconds,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a replica is as of one step (gauges) and what it has done since it started (counters, in tokens).

    `queued_tokens`: tokens of prompts that are not computed yet. `places`: sequences that run at once; `stay_seconds`:
    how long one of late kept its place; `token_seconds`: what a prompt token takes beside all else; 0.0: not known.
    `queue`: of those that wait the priority, how many have it, and their tokens. `standing`: the share of the last
    seconds in which somebody waited for a first turn.
    """

    running: int = 0
    waiting: int = 0
    kv_used: float = 0.0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    queued_tokens: int = 0
    places: int = 0
    stay_seconds: float = 0.0
    token_seconds: float = 0.0
    queue: tuple[tuple[int, int, int], ...] = ()
    standing: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """All that one engine step did for one gateway."""

    deltas: tuple[Delta, ...]
    load: Load


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a rank is to be. `rendezvous` is where the process group meets, torch's URL; None for a gang of one.

    A rank that neither beats nor computes for `load_silence_seconds` while it loads counts as frozen. `gpu_share`: of
    a GPU's free memory, for the KV cache.
    """

    model: str
    path: str
    dtype: str
    rank: int
    ranks: int
    device: str
    cpus: int
    limits: Limits
    rendezvous: str | None = None
    speculation: str = "ngram"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    deterministic: bool = False
    draft_model: str | None = None
    load_silence_seconds: float = 20.0
    gpu_share: float = 0.85


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a loaded shard tells its leader."""

    rank: int
    pid: int
    vocab_size: int
    context_tokens: int
    kv_bytes_per_token: int
    free_bytes: int
    cores: tuple[int, ...]
    load_seconds: float
    peak_bytes: int


def _number(name: str, value: Any, low: float, high: float, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(name, sent(value), f"it is a number from {low:g} to {high:g}")
    # Compared, never converted: NaN fails every comparison, and an integer may be too large for a float.
    if not ((low < value if open_low else low <= value) and value <= high):
        raise InvalidRequest(
            name, sent(value), f"it is {'above' if open_low else 'at least'} {low:g} and at most {high:g}"
        )


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(name, sent(value), f"it is a whole number from {low} to {high}")


def _optional_whole(name: str, value: Any, low: int, high: int) -> None:
    if value is not None:
        _whole(name, value, low, high)


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(name, sent(value), "it is true or false")


def _listed(name: str, value: Any, most: int) -> tuple[Any, ...]:
    """`value` as a tuple; its length is looked at before it is read."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise InvalidRequest(name, sent(value), "it is a list")
    if len(value) > most:
        raise InvalidRequest(name, f"a list of {len(value)}", f"give at most {most}")
    return tuple(value)
