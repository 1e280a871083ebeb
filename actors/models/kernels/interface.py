"""The compiled library seen from Python: its structures, its functions, and whether it is there at all.

Calls go through ctypes: about 1 us each with their pointers, no Python headers at build time, and the interpreter
lock is free while a kernel runs.
"""

import ctypes
import functools
from ctypes import POINTER, Structure, c_double, c_float, c_int64, c_uint32, c_void_p

import structlog
import torch  # noqa: F401  its OpenMP runtime has to be loaded first, so that the kernels share its threads

from actors.models.kernels.building import BuildFailed, library

log = structlog.get_logger()


class Step(Structure):
    """A `Batch` as the kernels read it."""

    _fields_ = [
        *((name, c_void_p) for name in ("tokens", "positions", "slots", "starts", "contexts", "tables", "wanted")),
        *((name, c_int64) for name in ("rows", "sequences", "decodes", "table_width", "block_tokens", "wanted_rows")),
    ]


class Attention(Structure):
    """The shape of one layer's attention; `window` and `softcap` are 0 for none."""

    _fields_ = [
        *((name, c_int64) for name in ("heads", "kv_heads", "head_dim", "window")),
        ("scale", c_float),
        ("softcap", c_float),
    ]


class Norm(Structure):
    """A float32 weight, null for no norm."""

    _fields_ = [("weight", c_void_p), ("eps", c_float)]


class Weights(Structure):
    """A weight, and a float32 bias, which may be null.

    With `bits` 0 in the model's type: row-major with `group` 0, in panels of `group` rows otherwise.
    """

    _fields_ = [
        *((name, c_void_p) for name in ("weight", "bias")),
        *((name, c_int64) for name in ("columns", "inner", "bits", "group", "zeros", "exact")),
    ]


class Cache(Structure):
    """A layer's keys and values, with float32 scales where they are bytes and null scales where they are not."""

    _fields_ = [(name, c_void_p) for name in ("keys", "values", "key_scales", "value_scales")]


class Layer(Structure):
    """All that one decoder layer points at."""

    _fields_ = [
        *(
            (name, Norm)
            for name in ("input_norm", "query_norm", "key_norm", "attention_out_norm", "mlp_norm", "mlp_out_norm")
        ),
        *((name, Weights) for name in ("qkv", "output", "gate_up", "down")),
        ("cache", Cache),
        ("inverse", c_void_p),
        ("rope_factor", c_float),
        ("attention", Attention),
    ]


class Model(Structure):
    """What a decoder is besides its layers."""

    _fields_ = [
        *((name, c_int64) for name in ("type", "activation", "hidden", "layer_count")),
        ("layers", POINTER(Layer)),
        ("norm", Norm),
        ("embedding", Weights),
        ("embedding_scale", c_float),
        ("vocab_start", c_int64),
        ("vocab_rows", c_int64),
        ("head", Weights),
    ]


class Collective(Structure):
    """One rank's view of the memory over which the ranks of a machine add up."""

    _fields_ = [
        ("rank", c_int64),
        ("size", c_int64),
        ("memory", c_void_p),
        ("patience", c_int64),
        ("count", c_uint32),
    ]


class Wish(Structure):
    """How one row of logits wants its token."""

    _fields_ = [
        ("fits", c_void_p),
        *((name, c_double) for name in ("uniform", "top_p", "min_p")),
        *((name, c_int64) for name in ("top_k", "row")),
        ("temperature", c_float),
    ]


STRUCTURES = (Step, Attention, Norm, Weights, Cache, Layer, Model, Collective, Wish)
P, N, F = c_void_p, c_int64, c_float
ARGUMENTS = {
    "use_amx": (N,),
    "linear": (N, N, P, P, P, N, N, N),
    "pack_panels": (N, P),
    "unpack_panels": (N, P),
    "quantized_linear": (N, N, P, P, P, N, N, N),
    "attend": (N, P, P, P, N, P, P, N),
    "join": (N, P, P, P, P, P, P, N, N),
    "rms_norm": (N, P, P, N, P, N, N, N),
    "gate": (N, N, P, P, N, N),
    "gated_product": (N, N, P, P, P, N),
    "angles": (P, P, F, N, P, P),
    "place": (N, P, P, P, P, P),
    "embed": (P, P, P),
    "attention_piece": (P, P, N, P, P),
    "mlp_piece": (P, P, N, P, P),
    "logits_piece": (P, P, P, P, P),
    "forward": (P, P, P, P, P),
    "choose": (P, N, N, P, N, P),
    "weigh_rows": (P, N, N, P, N, N, P, P, P),
    "collective_bytes": (N, P),
    "all_reduce": (P, N, P, N),
    "all_gather": (P, P, P, N, N),
    "forward_together": (P, P, P, P, P, P),
}


class Library:
    """The compiled functions as attributes, under their names without the prefix."""

    def __init__(self, path: str) -> None:
        loaded = ctypes.CDLL(path)
        sizes = (c_int64 * len(STRUCTURES))()
        loaded.strata_sizes(sizes)
        if list(sizes) != [ctypes.sizeof(structure) for structure in STRUCTURES]:
            raise BuildFailed(f"{path} sees other structures than interface.py: {list(sizes)}")
        for name, arguments in ARGUMENTS.items():
            function = getattr(loaded, f"strata_{name}")
            function.argtypes, function.restype = arguments, None
            setattr(self, name, function)

    def __getattr__(self, name: str) -> "ctypes._NamedFuncPointer":
        raise AttributeError(name)


@functools.cache
def loaded() -> Library | None:
    """The library, compiled first where need be; None, with one warning, on a machine that cannot have it."""
    try:
        return Library(str(library()))
    except (BuildFailed, OSError) as error:
        log.warning("kernels_unavailable", reason=str(error), effect="plain torch is used, which is slower")
        return None


def available() -> bool:
    """Whether the kernels can be used here."""
    return loaded() is not None
