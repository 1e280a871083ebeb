"""The engine: continuous batching over a paged KV cache. `LLM` is its offline entry."""

from typing import TYPE_CHECKING, Any

from actors.constraint import StructuredOutputsParams
from actors.messages import SamplingParams

if TYPE_CHECKING:
    from actors.engine.llm import LLM
    from actors.engine.output import CompletionOutput, RequestOutput

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams", "StructuredOutputsParams"]


def __getattr__(name: str) -> Any:
    """Import torch and the models only for those who ask for them: a leader does without."""
    if name == "LLM":
        from actors.engine.llm import LLM  # noqa: PLC0415

        return LLM
    if name in ("CompletionOutput", "RequestOutput"):
        from actors.engine import output  # noqa: PLC0415

        return getattr(output, name)
    raise AttributeError(name)
