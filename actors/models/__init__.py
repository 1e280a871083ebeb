"""Models that compute over a paged KV cache: `load` a folder, `allocate`, then `forward` batch after batch.

Our own decoders run the Llama-like families with merged weights; every other decoder-only architecture runs by
its transformers modules over the same `Batch` and the same paged store.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from actors.models.catalogue import install
from actors.models.parallel import Alone, World
from cluster.errors import ModelInvalid

if TYPE_CHECKING:
    import torch

    from actors.models.batch import Batch

install()

QUANTIZATIONS = (None, "int8", "int4", "fp8")
DTYPES = ("auto", "bfloat16", "float16", "float32")


_VARIES = "`deterministic: true` cannot be kept: our kernels do not run it, and other code adds up in varying orders"
_WAYS = (
    "leave `deterministic` out, or serve a Llama-like model in float32, bfloat16, int8 or int4 on an x86 CPU with AVX2"
)


class Model(Protocol):
    """This rank's part of a model. `kv_bytes_per_token` counts all layers of this rank."""

    vocab_size: int
    context_tokens: int
    kv_bytes_per_token: int

    def allocate(self, blocks: int, block_tokens: int) -> None:
        """Make the paged KV cache; may be called again with another size, which forgets what was cached."""
        ...

    def cached(self) -> "list[torch.Tensor]":
        """All that the KV cache is made of, [slots, ...] each."""
        ...

    def forward(self, batch: "Batch") -> "torch.Tensor":
        """One step: float32 logits [R, vocab_size] of `batch.rows`, complete on rank 0 and not to be read elsewhere."""
        ...


def load(
    path: str | Path,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    kv_cache_dtype: str = "auto",
    device: str = "cpu",
    world: World | None = None,
    progress: Callable[[int, int], None] | None = None,
    deterministic: bool = False,
) -> Model:
    """Load this rank's part of the Hugging Face folder `path`; `progress` hears bytes done and bytes in all.

    `quantization` rounds float weights to "int8", "int4" or "fp8"; a folder that is quantized already is read as it is.
    `kv_cache_dtype` "int8" keeps keys and values as bytes with a scale for each token and head, "auto" as the model's
    dtype. `deterministic`: only where every row of a step is computed as if it were alone.

    Raises ModelInvalid for a folder that cannot be served and ArchitectureUnsupported, which names the nearest
    that can. Code in the folder is never run and nothing is unpickled.
    """
    # torch and transformers take seconds to import; whoever only names a Model should not wait for them
    import torch  # noqa: PLC0415

    from actors.models.cache import KV_CACHE_DTYPES  # noqa: PLC0415
    from actors.models.config import read_config, unsupported  # noqa: PLC0415
    from actors.models.decoder import load_decoder  # noqa: PLC0415
    from actors.models.family import describe, language_part  # noqa: PLC0415
    from actors.models.memory import enough  # noqa: PLC0415

    if dtype not in DTYPES:
        raise ModelInvalid(str(path), f"dtype {dtype!r} is not known", f"one of {', '.join(DTYPES)}")
    if quantization not in QUANTIZATIONS:
        raise ModelInvalid(str(path), f"quantization {quantization!r} is not known", "one of int8, int4, fp8")
    if kv_cache_dtype not in KV_CACHE_DTYPES:
        raise ModelInvalid(
            str(path), f"kv_cache_dtype {kv_cache_dtype!r} is not known", f"one of {', '.join(KV_CACHE_DTYPES)}"
        )
    folder = Path(path)
    config = read_config(folder)
    chosen = getattr(torch, dtype) if dtype != "auto" else config.dtype
    if chosen not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ModelInvalid(str(path), f"config.json asks for dtype {chosen}", f"one of {', '.join(DTYPES[1:])}")
    decoder = language_part(config)
    family = describe(decoder)
    with enough(str(path)):
        if family is not None:
            made = load_decoder(
                folder, decoder, family, chosen, device, world or Alone(), progress, quantization, kv_cache_dtype
            )
            if deterministic and not made.determine():
                raise ModelInvalid(str(path), _VARIES, _WAYS)
            return made
        if deterministic:
            raise ModelInvalid(str(path), _VARIES, _WAYS)
        from actors.models.hosted import load_hosted  # noqa: PLC0415

        if quantization == "fp8":
            raise unsupported(decoder, f"runs by transformers' modules, which take no quantization={quantization!r}")
        return load_hosted(folder, config, chosen, device, world or Alone(), progress, kv_cache_dtype, quantization)
