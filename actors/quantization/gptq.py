"""GPTQ: round column after column and let the columns that follow make up for each error.

Frantar et al. 2022, arXiv 2210.17323, algorithm 1, with the block-wise updates of its section 3.3. Knows one matrix
and what its inputs looked like; knows nothing of models.
"""

import torch

from actors.models.quantized import QuantizedWeight
from actors.quantization.rounding import best_scale, nearest, to_grid
from cluster.errors import StrataError

BLOCK = 128  # columns between two updates of all that follow: the paper's
DAMPING = 0.01  # of the mean of the diagonal: the paper's
MOST_TIMES = 12  # that it is raised tenfold


def gptq(
    weight: torch.Tensor, second: torch.Tensor, bits: int, group: int, scale_type: torch.dtype = torch.float32
) -> QuantizedWeight:
    """`weight` [N, K] for inputs whose second moments are `second` [K, K]; never worse on them than `nearest`."""
    plain = nearest(weight, bits, group, scale_type)
    made = _rounded(weight, second, bits, group, scale_type)
    return made if loss(weight, made, second) <= loss(weight, plain, second) else plain


def loss(weight: torch.Tensor, rounded: QuantizedWeight, second: torch.Tensor) -> float:
    """The squared error of the outputs, summed: tr(D H D^T) of the difference D."""
    difference = rounded.dequantize() - weight.float()
    return float(((difference @ second) * difference).sum())


def _rounded(
    weight: torch.Tensor, second: torch.Tensor, bits: int, group: int, scale_type: torch.dtype
) -> QuantizedWeight:
    rest = weight.float().clone()
    rows, columns = rest.shape
    factor = _inverse_factor(second, rest)
    values = torch.empty((rows, columns), dtype=torch.int8)
    scales = torch.empty((rows, columns // group))
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = torch.empty((rows, stop - start))
        for column in range(start, stop):
            if column % group == 0:
                # the columns beyond this block have not heard of its errors yet, as in the paper's own code
                found = best_scale(rest[:, column : column + group], bits, scale_type)
                scales[:, column // group] = found[:, 0]
            scale = scales[:, column // group, None]
            integer = to_grid(rest[:, column, None], scale, bits)
            values[:, column] = integer[:, 0].to(torch.int8)
            error = (rest[:, column, None] - integer * scale) / factor[column, column]
            rest[:, column:stop] -= error * factor[column, column:stop]
            errors[:, column - start] = error[:, 0]
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return QuantizedWeight(bits, group, values, scales)


def _inverse_factor(second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of `second`; columns that were never fed are zeroed in `weight`."""
    damped = second.double().clone()
    diagonal = damped.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1.0
    weight[:, dead] = 0.0
    mean = float(diagonal.mean())
    for damping in (DAMPING * 10**more for more in range(MOST_TIMES)):  # more for too few samples to fill the matrix
        tried, failed = torch.linalg.cholesky_ex(damped + torch.eye(len(damped)) * (damping * mean))
        if not failed:
            factor: torch.Tensor = torch.linalg.cholesky(torch.cholesky_inverse(tried), upper=True)
            return factor.float()
    raise StrataError("the model makes numbers of the sample text that are none (NaN or infinite): take other text")
