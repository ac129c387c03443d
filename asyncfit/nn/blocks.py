"""Big arrays in pieces that stay in a core's cache while several calls pass over them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .arrays import Array

__all__ = ["BLOCK", "blocks"]

BLOCK = 1 << 15
"""Elements in a piece: four float32 arrays of it take half of a second-level cache of 1 MiB."""


def blocks(*arrays: Array, size: int = BLOCK) -> Iterator[tuple[Array, ...]]:
    """The arrays, cut at the same places along their first axis; each piece of the first has at most `size` elements,
    or one row. Arrays whose first axis has the length 1 are not cut: they broadcast.
    """
    rows = arrays[0].shape[0]
    step = max(1, size // max(1, math.prod(arrays[0].shape[1:])))
    for begin in range(0, rows, step):
        part = slice(begin, begin + step)
        yield tuple(array if array.shape[0] == 1 else array[part] for array in arrays)
