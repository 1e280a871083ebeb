"""The kernels one by one, on tensors: what `layers` and `attention` may call in place of plain torch.

Checks what the compiled code trusts: types, shapes, and that rows lie in one piece. All raise ValueError.
"""

from ctypes import addressof

import torch

from actors.models.batch import Batch
from actors.models.cache import CachedTensor
from actors.models.kernels import interface
from actors.models.tiles import KEYS, SLOTS, VALUES

TYPES = {torch.float32: 0, torch.bfloat16: 1}


def attend(
    q: torch.Tensor,
    keys: CachedTensor,
    values: CachedTensor,
    batch: Batch,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """`q` [T, heads, d] over caches [slots, kv_heads, d] in tiles: [T, heads, d], as `attention.PagedAttention` does.

    A row's result is the same to the last bit whatever else is in the batch, however its sequence is cut into steps and
    however many threads there are.
    """
    _, heads, dim = q.shape
    kv_heads = keys.shape[1]
    _check(q.dtype is keys.dtype is values.dtype, "queries, keys and values differ in type")
    _check(keys.shape == values.shape and keys.shape[2] == dim and heads % kv_heads == 0, "heads do not fit")
    _check(dim % 2 == 0, "numbers are read in pairs: head_dim is odd")
    _check(batch.block_tokens % SLOTS == 0, f"a block is a number of whole tiles of {SLOTS} slots")
    _whole(q)
    out = torch.empty_like(q)
    cache = cache_of(keys, values)
    step, _kept = step_of(batch)
    shape = interface.Attention(heads, kv_heads, dim, window or 0, scale, softcap or 0.0)
    _library().attend(
        TYPES[q.dtype], addressof(shape), addressof(step), q.data_ptr(), heads * dim, addressof(cache),
        out.data_ptr(), heads * dim,
    )  # fmt: skip
    return out


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """`x` [T, width] divided by its root mean square, times float32 `weight`."""
    _whole(x, weight)
    _check(weight.dtype is torch.float32 and weight.shape == x.shape[-1:], "the norm's weight is float32 [width]")
    out = torch.empty_like(x)
    width = x.shape[-1]
    norm = interface.Norm(weight.data_ptr(), eps)
    _library().rms_norm(
        TYPES[x.dtype], addressof(norm), x.data_ptr(), width, out.data_ptr(), width, x.numel() // width, width
    )
    return out


def gate(both: torch.Tensor, activation: int) -> torch.Tensor:
    """activation(gate) * up of `both` [T, gate and up side by side]; `activation` 0 is SiLU, 1 is GELU by tanh."""
    _whole(both)
    rows, width = both.shape[0], both.shape[1] // 2
    out = both.new_empty((rows, width))
    _library().gate(TYPES[both.dtype], activation, both.data_ptr(), out.data_ptr(), rows, width)
    return out


def step_of(batch: Batch) -> tuple[interface.Step, tuple[torch.Tensor, ...]]:
    """`batch` for the compiled code, and the tensors that have to live as long as it is used."""
    tokens, positions, slots, rows = (t.contiguous() for t in (batch.tokens, batch.positions, batch.slots, batch.rows))
    starts, contexts, tables = (t.contiguous() for t in (batch.starts, batch.contexts, batch.tables))
    kept = (tokens, positions, slots, rows, starts, contexts, tables)
    _check(all(t.dtype is torch.int64 for t in kept[:4]), "tokens, positions, slots and rows are int64")
    _check(all(t.dtype is torch.int32 for t in kept[4:]), "starts, contexts and tables are int32")
    step = interface.Step(
        tokens.data_ptr(), positions.data_ptr(), slots.data_ptr(), starts.data_ptr(), contexts.data_ptr(),
        tables.data_ptr(), rows.data_ptr(), tokens.shape[0], contexts.shape[0], batch.decodes, tables.shape[1],
        batch.block_tokens, rows.shape[0],
    )  # fmt: skip
    return step, kept


def cache_of(keys: CachedTensor, values: CachedTensor) -> interface.Cache:
    """A layer's cache for the compiled code; whoever uses it keeps both alive."""
    _check(keys.shape == values.shape and keys.dtype is values.dtype, "keys and values differ")
    _check((keys.tiles, values.tiles) == (KEYS, VALUES), "keys and values do not lie in tiles")
    _check((keys.scales is None) == (values.scales is None), "keys are rounded or values are, not both")
    if keys.scales is None or values.scales is None:
        _whole(keys.numbers, values.numbers)
        return interface.Cache(keys.numbers.data_ptr(), values.numbers.data_ptr())
    _whole(keys.scales, values.scales)
    _check(keys.numbers.is_contiguous() and values.numbers.is_contiguous(), "bytes do not lie in one piece of memory")
    return interface.Cache(*(t.data_ptr() for t in (keys.numbers, values.numbers, keys.scales, values.scales)))


def _library() -> interface.Library:
    library = interface.loaded()
    if library is None:
        raise ValueError("the kernels are not available on this machine: ask interface.available() first")
    return library


def _whole(*tensors: torch.Tensor) -> None:
    for tensor in tensors:
        _check(tensor.is_contiguous() and tensor.device.type == "cpu", "a tensor does not lie in one piece of memory")
        _check(tensor.dtype in TYPES, f"{tensor.dtype} is not a type of the kernels")


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
