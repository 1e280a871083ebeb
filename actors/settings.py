"""What the settings file may say of a model. Units stand in the names; defaults fit a laptop."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Limits(BaseModel):
    """What one replica takes at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_tokens: int | None = Field(
        None, ge=1, description="prompt plus answer; default: what the model was made for"
    )
    running_sequences: int = Field(64, ge=1, le=4096, description="sequences in one step")
    queued_sequences: int = Field(256, ge=0, description="sequences waiting before 429")
    step_tokens: int = Field(512, ge=16, description="tokens computed in one step; longer prompts are chunked")
    gap_stretch: float | None = Field(
        2.0, gt=1.0, description="times the gap between an answer's tokens may grow while prompts join; null: any"
    )
    block_tokens: int = Field(
        16, ge=1, le=256, description="tokens in one KV block; on CPU a multiple of 16, or kernels are left out"
    )
    kv_cache_tokens: int | None = Field(
        None, ge=16, le=2**32, description="default: an eighth of free memory, at most 64 full contexts"
    )

    kv_offload_gb: float = Field(
        0.0,
        ge=0.0,
        le=1e6,
        description="room of each shard for KV blocks that leave the cache, to be fetched again where that is faster "
        "than computing them: in a file, of a GPU's in main memory. 0: none, as prompts seen once would only cost",
    )
    kv_offload_folder: str | None = Field(
        None, min_length=1, description="where that file is; default: the system's folder for temporary files"
    )

    @model_validator(mode="after")
    def _every_sequence_moves(self) -> "Limits":
        if self.step_tokens < self.running_sequences:
            raise ValueError(f"step_tokens is at least running_sequences ({self.running_sequences}), or some starve")
        return self


class ModelSettings(BaseModel):
    """One served model."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-/]*$")
    path: str = Field(min_length=1, description="a Hugging Face folder")
    tensor_parallel_size: int = Field(1, ge=1, le=64, description="shards in a gang")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Literal["int8", "int4", "fp8"] | None = Field(
        None, description="what weights are rounded to at load; a folder that is quantized already needs no word of it"
    )
    kv_cache_dtype: Literal["auto", "int8"] = Field(
        "auto", description="what keys and values are kept as; int8 holds about 1.9 times the tokens of bfloat16"
    )
    deterministic: bool = Field(
        False,
        description="refuse to serve where an answer could depend on what else is computed beside it or on how it was "
        "interrupted: only our kernels keep one order of sums",
    )
    replicas: int = Field(1, ge=1, le=10_000)
    shard_cpus: int = Field(1, ge=1, description="cores of a shard where it has no GPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    speculation: Literal["ngram", "draft", "off"] = Field(
        "ngram",
        description="guess tokens and check several in one step, where that pays: from the sequence's own past (ngram) "
        "and, where that says nothing, by a small model (draft)",
    )
    draft_model: str | None = Field(
        None, min_length=1, description="with `speculation: draft`, the folder of a small model with the same tokenizer"
    )
    load_silence_seconds: float = Field(
        20.0, ge=1.0, description="a shard that loads and gives no sign of life for so long counts as frozen"
    )
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _blocks_are_whole_tiles(self) -> "ModelSettings":
        if self.deterministic and self.limits.block_tokens % 16:
            raise ValueError(
                f"`deterministic: true` wants limits.block_tokens a multiple of 16, not {self.limits.block_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _a_draft_is_used(self) -> "ModelSettings":
        if (self.speculation == "draft") != (self.draft_model is not None):
            raise ValueError("`speculation: draft` and `draft_model: FOLDER` go together: give both or neither")
        return self
