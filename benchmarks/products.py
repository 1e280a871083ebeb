"""How fast are products with each form of a weight on one core, beside torch's of bf16?

    python -m benchmarks.products

Weights of 4864 x 768 and 1024 x 3072 numbers, x in bf16, 1 to 512 rows; thousand millions of multiplications and
additions a second, the best of 25. int4 has groups of 32; "merged" is what more than 16 rows take where a processor
has AMX and nobody asked for exact sums. Writes results/products.json, or products_avx2.json where there is no AVX-512.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from actors.models.kernels import panels, quantized
from actors.models.kernels.building import AVX512, best_lanes
from actors.models.quantized import QuantizedWeight
from benchmarks.record import quiet, write

SHAPES = ((4864, 768), (1024, 3072))
ROWS = (1, 8, 32, 64, 512)
TIMES = 25


def main() -> None:
    """Measure, print and keep."""
    load_before = quiet()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [row for columns, inner in SHAPES for row in measured(columns, inner)]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    write(
        "products" if best_lanes() is AVX512 else "products_avx2",
        {"question": __doc__.splitlines()[0], "rows": rows},
        load_before=load_before,
    )


def measured(columns: int, inner: int) -> list[dict[str, Any]]:
    """A row for each number of rows."""
    plain = torch.randn(columns, inner).bfloat16()
    whole = panels.pack(plain.clone())
    int8, int4 = rounded(8, columns, inner, inner), rounded(4, columns, inner, 32)
    found = []
    for count in ROWS:
        x = torch.randn(count, inner).bfloat16()
        forms: dict[str, Callable[[], torch.Tensor]] = {
            "bf16": lambda x=x: panels.linear(x, whole),
            "int8": lambda x=x: quantized.linear(x, int8),
            "int4": lambda x=x: quantized.linear(x, int4),
            "int4 merged": lambda x=x: quantized.linear(x, int4, exact=False),
            "torch bf16": lambda x=x: functional.linear(x, plain),
        }
        work = 2e-9 * count * columns * inner
        rates = {name: round(work / best(product)) for name, product in forms.items()}
        found.append({"columns": columns, "inner": inner, "rows": count, **rates})
    return found


def rounded(bits: int, columns: int, inner: int, group: int) -> quantized.PackedWeight:
    """A random weight of so many bits."""
    top = 2 ** (bits - 1)
    values = torch.randint(-top, top, (columns, inner), dtype=torch.int8)
    return quantized.pack(QuantizedWeight(bits, group, values, torch.rand(columns, inner // group) + 0.01))


def best(product: Callable[[], torch.Tensor]) -> float:
    """Seconds of the fastest of some."""
    taken = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        product()
        taken.append(time.perf_counter() - begun)
    return min(taken)


if __name__ == "__main__":
    main()
