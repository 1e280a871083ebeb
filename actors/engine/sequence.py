"""One sequence on its way through the engine: its tokens, how many are computed, which blocks it holds."""

from dataclasses import dataclass, field

from actors.messages import Submit


@dataclass(slots=True, eq=False)
class Sequence:
    """Owned by the scheduler. `tokens` is the prompt and all output; `computed` of them have keys and values cached."""

    key: int
    submit: Submit
    tokens: list[int]
    limit: int  # tokens at which it ends with "length"
    arrived: float
    expires: float | None = None
    computed: int = 0
    slot: int = -1  # row of the runner's mirror; -1 while waiting
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)  # of its full blocks, as far as they were needed
    sealed: int = 0  # leading blocks known to the prefix cache
    cached: int = 0  # prompt tokens that were found there at first admission
    started: float | None = None
    first_step: int | None = None  # of the engine, with which it has started
    first_token: float | None = None
    preemptions: int = 0

    @classmethod
    def of(cls, key: int, submit: Submit, limit: int, now: float) -> "Sequence":
        """A fresh sequence; tokens that another replica already emitted count as output."""
        expires = None if submit.deadline is None else now + submit.deadline
        return cls(key, submit, [*submit.prompt, *submit.emitted], limit, now, expires)

    @property
    def generated(self) -> int:
        """Output tokens so far, those of earlier replicas included."""
        return len(self.tokens) - len(self.submit.prompt)

    @property
    def begins(self) -> bool:
        """Whether it has made no token here yet."""
        return self.first_token is None

    @property
    def pending(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return len(self.tokens) - self.computed

    @property
    def prefilling(self) -> bool:
        """Whether more than the last token is still to be computed."""
        return self.pending > 1
