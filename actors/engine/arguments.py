"""What a caller may give to `LLM`: checked, each refusal in the caller's own names.

Knows arguments and their ranges. Loads nothing.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from actors.messages import SamplingParams
from actors.settings import Limits
from cluster.errors import InvalidRequest, SettingsInvalid, sent

MOST_RANKS = 64
DEVICES = ("auto", "cpu", "cuda")
SPECULATIONS = ("ngram", "draft", "off")
CALLED = {  # what our settings call it, and what a caller of `LLM` does
    "limits.context_tokens": "max_model_len",
    "limits.kv_cache_tokens": "kv_cache_tokens",
    "limits.kv_offload_gb": "kv_offload_gb",
}


def folder(model: Any) -> Path:
    """The model's folder."""
    if not isinstance(model, str | Path) or not str(model):
        raise InvalidRequest("model", sent(model), "it is the folder of a Hugging Face model")
    return Path(model)


def limits(
    *,
    max_model_len: Any,
    max_num_seqs: Any,
    max_num_batched_tokens: Any,
    block_size: Any,
    kv_cache_tokens: Any,
    kv_offload_gb: Any,
    gap_stretch: Any,
) -> Limits:
    """The engine's limits by vLLM's names."""
    if max_model_len is not None:
        whole("max_model_len", max_model_len, 1, 2**31 - 1)
    whole("max_num_seqs", max_num_seqs, 1, 4096)
    whole("max_num_batched_tokens", max_num_batched_tokens, 16, 2**31 - 1)
    whole("block_size", block_size, 1, 256)
    if kv_cache_tokens is not None:
        whole("kv_cache_tokens", kv_cache_tokens, max(16, block_size), 2**40)
    if not number(kv_offload_gb, -1.0, 1e6) or kv_offload_gb < 0:
        raise InvalidRequest("kv_offload_gb", sent(kv_offload_gb), "it is a number from 0 to 1000000")
    if gap_stretch is not None and not number(gap_stretch, 1.0, math.inf):
        raise InvalidRequest("gap_stretch", sent(gap_stretch), "it is a number above 1, or None for any gap")
    return Limits(
        context_tokens=max_model_len,
        running_sequences=max_num_seqs,
        queued_sequences=2**31,
        step_tokens=max(max_num_batched_tokens, max_num_seqs),
        block_tokens=block_size,
        kv_cache_tokens=kv_cache_tokens,
        kv_offload_gb=kv_offload_gb,
        gap_stretch=gap_stretch,
        batch_stretch=None,  # nobody waits for one of them: all at once are done soonest
    )


def device(asked: Any) -> str:
    """Where it is computed: "auto" is the GPU if there is one."""
    one_of("device", asked, DEVICES)
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        lacking = "was built without CUDA" if torch.version.cuda is None else "finds no GPU"
        raise InvalidRequest("device", sent(asked), f"take cpu or auto: this machine's torch {lacking}")
    return ("cuda" if there else "cpu") if asked == "auto" else str(asked)


def check_ways(speculation: Any, draft_model: Any, gpu_memory_utilization: Any, seed: Any) -> None:
    """How it is computed."""
    one_of("speculation", speculation, SPECULATIONS)
    if draft_model is not None:
        folder(draft_model)
    if (speculation == "draft") != (draft_model is not None):
        raise InvalidRequest("draft_model", sent(draft_model), 'it goes with speculation="draft": give both or neither')
    if not number(gpu_memory_utilization, 0.0, 1.0):
        raise InvalidRequest("gpu_memory_utilization", sent(gpu_memory_utilization), "it is above 0 and at most 1")
    if seed is not None:
        whole("seed", seed, -(2**63), 2**63 - 1)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(name, sent(value), f"it is a whole number from {low} to {high}")
    return value


def number(value: Any, above: float, most: float) -> bool:
    """Whether `value` is a number in range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most


def one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """One of some words."""
    if value not in known:
        raise InvalidRequest(name, sent(value), f"it is one of {', '.join(known)}")


def in_our_names(wrong: SettingsInvalid) -> InvalidRequest:
    """A refused setting as the argument that it came from."""
    return InvalidRequest(CALLED.get(wrong.key, wrong.key), wrong.value, wrong.remedy)


def prompts(given: Any) -> list[Any]:
    """One prompt or many, as many: texts, lists of token ids, or mappings that hold either."""
    if isinstance(given, str | Mapping):
        return [given]
    given = plain(given)
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
        raise InvalidRequest("prompts", sent(given), "it is a text, a list of token ids, or a list of either")
    return [given] if given and isinstance(given[0], Integral) else list(given)


def prompt(given: Any, at: str) -> str | list[int]:
    """One prompt: its text or its token ids."""
    if isinstance(given, Mapping):
        ids = given.get("prompt_token_ids")
        given = ids if ids is not None else given.get("prompt")
        if given is None:
            raise InvalidRequest(at, "a mapping without a prompt", 'it holds "prompt" or "prompt_token_ids"')
    if isinstance(given, str):
        return given
    given = plain(given)
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
        raise InvalidRequest(at, sent(given), "it is a text or a list of token ids")
    for token in given:
        if isinstance(token, bool) or not isinstance(token, Integral):
            raise InvalidRequest(at, sent(token), "token ids are whole numbers")
    return [int(token) for token in given]


@contextmanager
def at_prompt(index: str) -> Iterator[None]:
    """A refusal within says which prompt it is of: `prompts[INDEX]`, or `prompts[INDEX].FIELD` of its parameters."""
    try:
        yield
    except InvalidRequest as error:
        field = f"prompts[{index}]" if error.field == "prompt" else f"prompts[{index}].{error.field}"
        raise type(error)(field, error.value, error.remedy) from None


def plain(given: Any) -> Any:
    """An array or a tensor as a list."""
    return given.tolist() if hasattr(given, "tolist") else given


def sampling(given: Any, count: int) -> list[SamplingParams]:
    """The sampling parameters of each of `count` prompts."""
    if given is None or isinstance(given, SamplingParams):
        return [given or SamplingParams()] * count
    if not isinstance(given, Sequence) or not all(isinstance(one, SamplingParams) for one in given):
        raise InvalidRequest("sampling_params", sent(given), "it is SamplingParams(...), or a list of them")
    if len(given) != count:
        raise InvalidRequest("sampling_params", f"a list of {len(given)}", f"one for all or one for each of {count}")
    return list(given)
