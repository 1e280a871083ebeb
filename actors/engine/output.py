"""What the offline entry returns, in the shape that vLLM users know."""

from dataclasses import dataclass, field

from actors.messages import TokenLogprob


@dataclass(slots=True)
class CompletionOutput:
    """One choice. `logprobs` has one entry a token where they were asked for."""

    index: int
    text: str
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprob] | None = None

    @property
    def cumulative_logprob(self) -> float | None:
        """The sum over its tokens."""
        return None if self.logprobs is None else sum(entry.logprob for entry in self.logprobs)


@dataclass(slots=True)
class RequestOutput:
    """One prompt and its choices."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    num_cached_tokens: int = 0
    finished: bool = True
