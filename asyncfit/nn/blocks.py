"""Elementwise work on big arrays: in pieces that stay in a core's cache, and where NumPy has fast loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from .arrays import Array, Call

__all__ = ["BLOCK", "against", "blocks", "in_memory_order"]

BLOCK = 1 << 15
"""Elements in a piece: four float32 arrays of it take half of a second-level cache of 1 MiB."""


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The arrays, cut at the same places along their first axis; each piece of the first has at most `BLOCK` elements,
    or one row. Arrays whose first axis has the length 1 are not cut: they broadcast.
    """
    rows = arrays[0].shape[0]
    step = max(1, BLOCK // max(1, math.prod(arrays[0].shape[1:])))
    for begin in range(0, rows, step):
        part = slice(begin, begin + step)
        yield tuple(array if array.shape[0] == 1 else array[part] for array in arrays)


SHORT = 1 << 12
"""Elements of an array that spells a number out, see `against`."""


def against(ufunc: np.ufunc, x: Array, value: float, out: Array) -> list[Call]:
    """`out = ufunc(x, value)`, for maximum and minimum: NumPy has no fast loop for those with one number, only for two
    arrays. So the number is spelled out, as a short array that all of `x` is run against: three times as fast.
    """
    if x.size <= SHORT:
        return [partial(ufunc, x, np.full_like(x, value), out=out)]
    order = axes_in_memory(x)
    x, out = x.transpose(order), out.transpose(order)
    if not (x.flags.c_contiguous and out.flags.c_contiguous):
        return [partial(ufunc, x, np.full(x.shape[-1], value, x.dtype), out=out)]
    x, out, row = x.reshape(-1), out.reshape(-1), np.full(SHORT, value, x.dtype)
    most = x.size // SHORT * SHORT
    many: Call = partial(ufunc, x[:most].reshape(-1, SHORT), row, out=out[:most].reshape(-1, SHORT))
    return [many] if most == x.size else [many, partial(ufunc, x[most:], row[: x.size - most], out=out[most:])]


def axes_in_memory(array: Array) -> list[int]:
    """The axes in the order in which they lie in memory, that of the longest strides first."""
    return sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis))


def in_memory_order(array: Array) -> Array:
    """A view with its axes in that order."""
    return array.transpose(axes_in_memory(array))
