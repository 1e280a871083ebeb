"""Kernels of our own for x86 processors with AVX-512 or AVX2, and nothing elsewhere.

Owns compiled code and the calls into it. Knows no model: `actors.models` asks `available()` and keeps its plain
torch where the answer is no. Importing this compiles nothing; the first `available()` does, or `build` before it.
"""

from collections.abc import Callable

from actors.models.kernels.building import BuildFailed, library

__all__ = ["BuildFailed", "build"]


def build(progress: Callable[[str], None] | None = None) -> bool:
    """Compile ahead of use, a line to `progress` for each file. False, and a line that says why, where it cannot be."""
    try:
        library(progress)
    except BuildFailed as failed:
        if progress is not None:
            progress(f"the kernels are left out and plain torch is used, which is slower: {failed}")
        return False
    return True
