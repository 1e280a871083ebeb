"""Round a float matrix to integers with scales, to the nearest value.

Knows numbers and nothing of files or layers. Every other method of this room ends in these functions.
"""

from collections.abc import Iterable

import torch

from actors.models.quantized import QuantizedWeight

INT4_GROUP = 32  # the finest that vLLM's kernels take; a scale of 16 bits for 32 columns makes 4.5 bits a weight
FLOAT8_LARGEST = 448.0  # of float8_e4m3fn
SHRINKS = (1.0, 0.96, 0.92, 0.88, 7 / 8, 0.84, 0.8, 0.75, 0.7)  # 7/8 lets -8 stand for the widest negative value
CHUNK = 2**18  # elements: the search's copies stay in a core's second-level cache


def group_for(bits: int, columns: int) -> tuple[int, int]:
    """(bits, group) to round `columns` with: rows for 8 bits, and for 4 bits where groups do not divide them."""
    return (8, columns) if bits == 8 or columns % INT4_GROUP else (4, INT4_GROUP)


def nearest(weight: torch.Tensor, bits: int, group: int, scale_type: torch.dtype = torch.float32) -> QuantizedWeight:
    """`weight` float [N, K] with one scale for `group` columns, representable in `scale_type`.

    8 bits: the scale that the widest value needs. 4 bits: of a few narrower ones that with the least squared error,
    as clipping the widest value often costs less than what a finer grid gains.
    """
    rows, columns = weight.shape
    values = torch.empty((rows, columns), dtype=torch.int8)
    scales = torch.empty((rows, columns // group))
    step = max(CHUNK // columns, 1)
    for row in range(0, rows, step):
        part = weight[row : row + step].float().reshape(-1, columns // group, group)
        scale = best_scale(part, bits, scale_type)
        scales[row : row + step] = scale[..., 0]
        values[row : row + step] = to_grid(part, scale, bits).to(torch.int8).view(-1, columns)
    return QuantizedWeight(bits, group, values, scales)


def to_grid(weight: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest integers, still as floats. A scale of zero has zeros only."""
    low, high = (-127, 127) if bits == 8 else (-8, 7)  # 8 bits without -128, as kernels negate
    return (weight / scale.where(scale > 0, 1.0)).round_().clamp_(low, high)


def best_scale(groups: torch.Tensor, bits: int, scale_type: torch.dtype = torch.float32) -> torch.Tensor:
    """float32 [..., 1]: the scale of each of `groups` [..., group]."""
    widest = groups.abs().amax(-1, keepdim=True)
    if bits == 8:
        return _kept(widest / 127, scale_type)
    best = _kept(widest / 7, scale_type)
    least = _error(groups, best)
    for shrink in SHRINKS[1:]:
        scale = _kept(widest * (shrink / 7), scale_type)
        error = _error(groups, scale)
        better = error < least
        best, least = best.where(~better, scale), least.where(~better, error)
    return best


def _kept(scale: torch.Tensor, scale_type: torch.dtype) -> torch.Tensor:
    return scale.to(scale_type).float()


def _error(groups: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (to_grid(groups, scale, 4).mul_(scale).sub_(groups)).square_().sum(-1, keepdim=True)


def rounded_rows(
    windows: Iterable[tuple[int, torch.Tensor]],
    shape: tuple[int, int],
    bits: int,
    group: int,
    columns: slice | None = None,
) -> QuantizedWeight:
    """`nearest` of float rows that come window by window, `shape` of them in all; keeps `columns` of each.

    Scales are those of whole rows, so that ranks that keep different columns agree.
    """
    made: QuantizedWeight | None = None
    begun: int | None = None
    for row, window in windows:
        part = nearest(window, bits, group)
        part = part if columns is None else part.columns(columns.start, columns.stop)
        if made is None:
            begun, made = row, _empty(shape[0], part)
        at = row - (begun or 0)
        made.values[at : at + len(window)], made.scales[at : at + len(window)] = part.values, part.scales
    if made is None:
        return nearest(torch.empty(shape), bits, group)
    return made


def _empty(rows: int, like: QuantizedWeight) -> QuantizedWeight:
    values = torch.empty((rows, like.shape[1]), dtype=torch.int8)
    return QuantizedWeight(like.bits, like.group, values, torch.empty((rows, like.scales.shape[1])))


def to_float8(weight: torch.Tensor, scale_type: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """(float8_e4m3fn [N, K], float32 scales [N, 1]) of `weight`, a scale a row, representable in `scale_type`."""
    wide = weight.float()
    scale = _kept(wide.abs().amax(-1, keepdim=True) / FLOAT8_LARGEST, scale_type)
    small = (wide / scale.where(scale > 0, 1.0)).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST)
    return small.to(torch.float8_e4m3fn), scale
