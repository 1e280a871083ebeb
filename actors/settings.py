"""What the settings file may say of a model. Units stand in the names; defaults fit a laptop."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.layers import refused

_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")  # Ray's rules of labels, those of Kubernetes
_LABEL = re.compile(r"([a-z0-9.-]+/)?" + _VALUE.pattern)


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
    batch_stretch: float | None = Field(
        2.2,
        gt=1.0,
        description="times that a step may last what it lasts for one sequence, by more running at once: where they "
        "gain each other nothing, the next one waits for its turn; null: up to running_sequences, whatever it costs",
    )
    block_tokens: int = Field(
        16, ge=1, le=256, description="tokens in one KV block; on CPU a multiple of 16, or kernels are left out"
    )
    kv_cache_tokens: int | None = Field(
        None,
        ge=16,
        le=2**32,
        description="taken whole where it is said; default: as far as used, an eighth of free memory at most, and 64 "
        "full contexts",
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
            least = f"it is at least running_sequences ({self.running_sequences}), or some starve"
            raise refused("step_tokens", self.step_tokens, least)
        return self


class Scaling(BaseModel):
    """Between how many gangs, and by what. A target that is null is not looked at; the one missed most counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(1, ge=0, le=10_000, description="gangs that always stay; 0: none, the first request wakes one")
    max: int = Field(ge=1, le=10_000, description="gangs at the most")
    wait_seconds: float | None = Field(1.0, gt=0, description="that requests may wait in a gang's queue")
    first_token_seconds: float | None = Field(None, gt=0, description="until a request's first token")
    kv_used: float | None = Field(0.8, gt=0, le=1, description="share of its KV cache that a gang may hold")
    running: float | None = Field(
        0.8, gt=0, le=1, description="share of the sequences that run at once which a gang may have"
    )
    requests_per_second: float | None = Field(None, gt=0, description="that one gang may get")
    down_seconds: float = Field(
        300.0, ge=0, description="gangs end only if nothing within so long asked for more than are left"
    )
    idle_seconds: float | None = Field(
        None, gt=0, description="with min: 0, without any request until the last gang ends; default 300"
    )

    @model_validator(mode="after")
    def _can_be_kept(self) -> "Scaling":
        if self.max < self.min:
            raise refused("max", self.max, f"it is at least min, {self.min}")
        if self.min and self.idle_seconds is not None:
            remedy = f"it ends the last gang, which min: {self.min} keeps; set min: 0 or leave it out"
            raise refused("idle_seconds", self.idle_seconds, remedy)
        targets = (self.wait_seconds, self.first_token_seconds, self.kv_used, self.running, self.requests_per_second)
        if self.max > max(self.min, 1) and not any(targets):
            raise ValueError("there is nothing to scale by: give wait_seconds, kv_used, running or another target")
        return self


class Placement(BaseModel):
    """Which nodes may hold a model's gangs; without a word, any that has room."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[str, str] = Field({}, description="labels that a node has to have, as `ray start --labels` gave them")
    accelerators: tuple[str, ...] = Field((), description="types that will do, such as H100, by Ray's names of them")

    @model_validator(mode="after")
    def _labels_are_ray_s(self) -> "Placement":
        for key, value in self.labels.items():
            if not _LABEL.fullmatch(key) or not _VALUE.fullmatch(value):
                raise refused("labels", f"{key}: {value}", "a label is a name and a value of letters, digits, - _ .")
        for name in self.accelerators:
            if not _VALUE.fullmatch(name):
                raise refused("accelerators", name, "a type is Ray's name of it, such as H100")
        return self


class ModelSettings(BaseModel):
    """One served model."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-/]*(@[A-Za-z0-9][A-Za-z0-9._\-]*)?$",
        description="for requests; NAME@VERSION is one of several versions, of which `routes` says who gets which",
    )
    path: str = Field("", description="a Hugging Face folder; or give `registry`")
    registry: str | None = Field(
        None,
        min_length=1,
        description="a version instead of `path`: chat@v3, chat@prod, chat; settled once, by a deploy",
    )
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
    replicas: int = Field(1, ge=1, le=10_000, description="gangs; with `scaling`, those to begin with")
    spares: int = Field(
        0,
        ge=0,
        le=1_000,
        description="gangs more than `replicas` that are loaded and get nothing to do until one of those is lost",
    )
    scaling: Scaling | None = Field(
        None, description="between how many gangs, and by what; default: `replicas`, always"
    )
    shard_cpus: int = Field(1, ge=1, description="cores of a shard where it has no GPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    placement: Placement = Placement()
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
    def _is_a_folder_or_a_version(self) -> "ModelSettings":
        if bool(self.path) == (self.registry is not None):
            raise ValueError("give `path`, a folder, or `registry`, a version such as chat@prod: one of the two")
        return self

    @model_validator(mode="after")
    def _blocks_are_whole_tiles(self) -> "ModelSettings":
        if self.deterministic and self.limits.block_tokens % 16:
            remedy = "`deterministic: true` wants a multiple of 16"
            raise refused("limits.block_tokens", self.limits.block_tokens, remedy)
        return self

    @model_validator(mode="after")
    def _a_draft_is_used(self) -> "ModelSettings":
        if (self.speculation == "draft") != (self.draft_model is not None):
            remedy = "`speculation: draft` and `draft_model: FOLDER` go together: give both or neither"
            raise refused("draft_model", self.draft_model, remedy)
        return self

    @model_validator(mode="after")
    def _spares_stand_beside_a_fixed_number(self) -> "ModelSettings":
        if self.spares and self.scaling is not None:
            raise refused(
                "spares", self.spares, "they stand beside a fixed number of `replicas`: leave them out, or raise "
                "scaling.min so far that the rest can do the work of one that is lost",
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _begins_within_its_bounds(self) -> "ModelSettings":
        if self.scaling is None or "replicas" not in self.model_fields_set:
            return self
        least, most = max(1, self.scaling.min), self.scaling.max
        if not least <= self.replicas <= most:
            remedy = f"`scaling` begins with {least} to {most}; or leave it out"
            raise refused("replicas", self.replicas, remedy)
        return self

    def pinned(
        self,
        registry: str,
        manifest: str,
        store: str,
        cache: str,
        path: str,
        cache_gb: float | None = None,
        origin: "ModelSettings | None" = None,
        number: str = "",
    ) -> "Pinned":
        """As what its version was found to be."""
        kept = {name: getattr(self, name) for name in self.model_fields_set} | {"registry": registry, "path": path}
        asked = self.registry or ""
        return Pinned.model_construct(
            self.model_fields_set, **kept, manifest=manifest, store=store, cache=cache, cache_gb=cache_gb,
            origin=origin, asked=asked, number=number,
        )  # fmt: skip

    @property
    def model(self) -> str:
        """What clients ask for: the name without the version."""
        return self.name.partition("@")[0]

    @property
    def version(self) -> str:
        """The version that it is, or nothing."""
        return self.name.partition("@")[2]

    @property
    def serving(self) -> int | None:
        """How many gangs answer where others are spare; None: all that there are."""
        return self.replicas if self.spares else None

    @property
    def first_replicas(self) -> int:
        """How many gangs a deploy starts: with `scaling` one at least, or nobody would know whether it can answer."""
        return self.replicas + self.spares if self.scaling is None else max(self.replicas, self.scaling.min)


class Pinned(ModelSettings):
    """A model whose version is settled: `registry` names a commit, `path` is where a copy of it lies on any machine.

    `Copies(cache, store, cache_gb).ensure(manifest, registry)` makes that copy.
    """

    manifest: str
    store: str
    cache: str
    cache_gb: float | None = None
    origin: ModelSettings | None = None  # what the settings name, where several versions of it are served
    asked: str = ""  # what `registry` was before it was settled
    number: str = ""  # the version's, such as v7

    @property
    def told(self) -> dict[str, str]:
        """Which version it is, for those who look."""
        commit = (self.registry or "").partition("@")[2]
        return {"registry": self.asked, "version": self.number, "commit": commit, "digest": self.manifest}
