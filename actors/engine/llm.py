"""The offline entry: a folder in, completions out, in the shape that vLLM users know. No Ray.

`tensor_parallel_size=1` computes in this process; more ranks are processes of their own on this machine.
"""

import inspect
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from actors import foreign
from actors.engine import arguments
from actors.engine.admission import Facts, guessed_tokens
from actors.engine.draft_folder import load_draft
from actors.engine.grammar import Grammars
from actors.engine.loop import Engine, Executor
from actors.engine.output import CompletionOutput, RequestOutput
from actors.engine.runner import Runner
from actors.engine.serving import serving
from actors.engine.tokens import Detokenizer, Tokenizer
from actors.gang import Gang, context_of, kv_blocks, kv_places
from actors.local import Processes
from actors.messages import Assignment, Delta, SamplingParams, ShardFacts, Submit
from actors.models import load
from actors.shard import free_bytes
from cluster.errors import InvalidRequest, SettingsInvalid, revived, sent

Prompt = str | Sequence[int] | Mapping[str, Any]


class LLM:
    """One model, ready to generate.

    model: a Hugging Face folder. dtype: "auto", "bfloat16", "float16" or "float32". quantization: round the
    weights at load to "int8", "int4" or "fp8"; a folder that is quantized already is read as it is. kv_cache_dtype:
    "int8" keeps keys and values as bytes, about 1.9 times as many tokens; "auto" in the model's type. max_model_len:
    prompt plus answer; default what the model was made for. kv_offload_gb: room for blocks that leave the KV cache, to
    be fetched again where that is faster than computing them. max_num_batched_tokens: computed in one step at the most.
    gap_stretch: times the gap between a running answer's tokens may grow while prompts join; default any, nobody waits.
    speculation: "ngram" guesses tokens from the text so far and checks them where that pays, "off" does not;
    "draft" lets the model of the folder `draft_model`, which has the same tokenizer, guess where a text is new.
    deterministic: load only where an answer cannot depend on what else is computed beside it.
    gpu_memory_utilization: of a GPU's memory that is free once the model is loaded, for the KV cache.
    enable_prefix_caching: reuse what was computed of a prompt's beginning. `others`: see `actors.foreign`.
    Raises InvalidRequest for an argument, ModelInvalid or ArchitectureUnsupported for a folder that cannot be served.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        quantization: str | None = None,
        kv_cache_dtype: str = "auto",
        deterministic: bool = False,
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int | None = 2048,
        block_size: int = 16,
        kv_cache_tokens: int | None = None,
        kv_offload_gb: float = 0.0,
        device: str = "auto",
        seed: int | None = None,
        speculation: str = "ngram",
        draft_model: str | Path | None = None,
        gap_stretch: float | None = None,
        gpu_memory_utilization: float = 0.85,
        enable_prefix_caching: bool = True,
        **others: Any,
    ) -> None:
        foreign.check(others, foreign.LLM, (*inspect.signature(LLM).parameters,))
        folder, ranks = arguments.folder(model), tensor_parallel_size
        arguments.whole("tensor_parallel_size", ranks, 1, arguments.MOST_RANKS)
        chosen = arguments.device(device)
        arguments.check_ways(speculation, draft_model, gpu_memory_utilization, seed)
        limits = arguments.limits(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=2048 if max_num_batched_tokens is None else max_num_batched_tokens,
            block_size=block_size,
            kv_cache_tokens=kv_cache_tokens,
            kv_offload_gb=kv_offload_gb,
            gap_stretch=gap_stretch,
        )
        self._seed = secrets.randbits(63) if seed is None else seed
        self._seeded = 0
        self._shared = bool(enable_prefix_caching)
        self.tokenizer = Tokenizer.from_folder(folder)
        self._grammars = Grammars(lambda: self.tokenizer)
        assignment = Assignment(
            model=folder.absolute().name, path=str(model), dtype=dtype, rank=0, ranks=ranks, device=chosen,
            cpus=max(1, torch.get_num_threads() // ranks), limits=limits,
            quantization=quantization, kv_cache_dtype=kv_cache_dtype, deterministic=deterministic,
            speculation=speculation,
            draft_model=None if draft_model is None else str(draft_model), gpu_share=gpu_memory_utilization,
        )  # fmt: skip
        self._gang: Gang | None = None
        try:
            self.engine = self._engine(assignment)
        except SettingsInvalid as wrong:
            raise arguments.in_our_names(wrong) from None

    def _engine(self, assignment: Assignment) -> Engine:
        ends = self.tokenizer.end_tokens
        if assignment.ranks == 1:
            executor, facts = _alone(assignment, ends)
            return Engine(executor, facts, assignment.limits)
        self._gang = gang = Gang(assignment, Processes(assignment), ends)
        guesses = guessed_tokens(assignment)
        facts = Facts(assignment.model, gang.vocab_size, gang.context_tokens, gang.blocks, ends, guesses, gang.places)
        return Engine(gang, facts, assignment.limits)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        **others: Any,
    ) -> list[RequestOutput]:
        """Complete each prompt (text, token ids, or {"prompt": ...} / {"prompt_token_ids": ...}); same order out.

        Raises InvalidRequest or ContextTooLong before anything is computed, InvalidRequest for a form that turns out
        to be too ambiguous to follow, StrataError where the engine failed. What one prompt raises ends all of them.
        """
        foreign.check(others, foreign.GENERATE, ("sampling_params",))
        listed = arguments.prompts(prompts)
        wanted = arguments.sampling(sampling_params, len(listed))
        for index, one in enumerate(wanted):
            if one.constraint is not None:
                with arguments.at_prompt(f"{index}"):
                    self._grammars.check(one.constraint)
        requests = [self._request(index, prompt) for index, prompt in enumerate(listed)]
        return self._run(requests, wanted)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        **others: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation, or each of many, by the model's chat template."""
        foreign.check(others, foreign.CHAT, ("sampling_params",))
        many: Any = messages
        if not isinstance(many, list | tuple):
            raise InvalidRequest("messages", sent(many), "it is a list of messages, or a list of such lists")
        many = many if many and not isinstance(many[0], Mapping) else [many]
        return self.generate([self.tokenizer.chat(one) for one in many], sampling_params)

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer, ours: `encode`, `decode`, `chat`."""
        return self.tokenizer

    def close(self) -> None:
        """End the ranks; harmless when called twice."""
        if self._gang is not None:
            self._gang.close()
            self._gang = None

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _request(self, index: int, given: Any) -> RequestOutput:
        prompt = arguments.prompt(given, f"prompts[{index}]")
        if isinstance(prompt, str):
            return RequestOutput(str(index), prompt, list(self.tokenizer.encode(prompt)), [])
        return RequestOutput(str(index), None, prompt, [])

    def _run(self, requests: list[RequestOutput], params: list[SamplingParams]) -> list[RequestOutput]:
        live: dict[int, _Choice] = {}
        try:
            for request, wanted in zip(requests, params, strict=True):
                with arguments.at_prompt(request.request_id):
                    self._add(request, wanted, live)
            while live:
                for key, delta in self.engine.step():
                    if live[key].take(delta):
                        self.engine.cancel(key)
                        del live[key]
        finally:
            for key in live:
                self.engine.cancel(key)
        return requests

    def _add(self, request: RequestOutput, wanted: SamplingParams, live: "dict[int, _Choice]") -> None:
        seed = self._next_seed() if wanted.seed is None else wanted.seed
        for index in range(wanted.n):
            salt = "" if self._shared else f"{self._next_seed()}"  # prompts of different salt share nothing
            submit = Submit(0, tuple(request.prompt_token_ids), wanted, seed, choice=index, salt=salt)
            words = Detokenizer(self.tokenizer, wanted, continues=True)
            choice = _Choice(request, CompletionOutput(index, ""), words, wanted)
            request.outputs.append(choice.output)
            live[self.engine.add(submit)] = choice

    def _next_seed(self) -> int:
        self._seeded += 1
        return (self._seed + self._seeded * 0x9E3779B97F4A7C15) % 2**63  # the golden ratio: far apart, never equal


class _Choice:
    """One sequence's deltas becoming its output."""

    def __init__(
        self, request: RequestOutput, output: CompletionOutput, detokenizer: Detokenizer, params: SamplingParams
    ) -> None:
        self._request, self.output, self._detokenizer, self._params = request, output, detokenizer, params

    def take(self, delta: Delta) -> bool:
        """Whether the sequence is over. Raises the error that ended it, of a refusal with the prompt that it is of."""
        if delta.error is not None:
            with arguments.at_prompt(self._request.request_id):
                raise revived(*delta.error)
        output, request = self.output, self._request
        request.num_cached_tokens = max(request.num_cached_tokens, delta.cached_tokens)
        piece = self._detokenizer.push(delta.tokens, ended=delta.finish == "stop")
        output.token_ids += delta.tokens[: piece.kept_tokens]
        if self._params.logprobs is not None:
            output.logprobs = [*(output.logprobs or []), *delta.logprobs[: piece.kept_tokens]]
        output.text += piece.text
        if piece.stopped:
            output.finish_reason, output.stop_reason = "stop", piece.stop
            return True
        if delta.finish is None:
            return False
        output.text += self._detokenizer.flush().text
        output.finish_reason = delta.finish
        if delta.finish == "stop" and delta.tokens[-1] in self._params.stop_ids:
            output.stop_reason = delta.tokens[-1]
        return True


class _InProcess:
    """An executor without processes."""

    def __init__(self, runner: Runner) -> None:
        self.execute: Any = runner.execute

    def check(self) -> None:
        """This process is alive if it asks."""

    def interrupt(self, wanted: bool) -> None:
        """Nobody could: who calls `execute` waits for it."""


def _alone(assignment: Assignment, ends: tuple[int, ...]) -> tuple[Executor, Facts]:
    device = assignment.device
    model = load(
        assignment.path, dtype=assignment.dtype, quantization=assignment.quantization,
        kv_cache_dtype=assignment.kv_cache_dtype, device=device, deterministic=assignment.deterministic,
    )  # fmt: skip
    draft = load_draft(assignment)
    kv_bytes = model.kv_bytes_per_token + (draft.kv_bytes_per_token if draft is not None else 0)
    shard = ShardFacts(0, 0, model.vocab_size, model.context_tokens, kv_bytes, free_bytes(device), (), 0.0, 0)
    context = context_of(assignment, model.context_tokens)
    blocks = kv_blocks(assignment, [shard], context)
    runner = serving(model, assignment, blocks, context, ends, draft=draft)
    guesses = guessed_tokens(assignment)
    places = kv_places(assignment, [shard])
    return _InProcess(runner), Facts(assignment.model, model.vocab_size, context, blocks, ends, guesses, places)
