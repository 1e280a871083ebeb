"""Kernels of our own for processors with AVX-512, and nothing elsewhere.

Owns compiled code and the calls into it. Knows no model: `actors.models` asks `available()` and keeps its plain
torch where the answer is no. Importing this compiles nothing; the first `available()` does, or `build` before it.
"""

from collections.abc import Callable

from actors.models.kernels.building import BuildFailed, library

__all__ = ["BuildFailed", "build"]


def build(progress: Callable[[str], None] | None = None) -> None:
    """Compile ahead of use, a line to `progress` for each file. Raises BuildFailed with the reason."""
    library(progress)
