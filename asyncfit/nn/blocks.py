"""Elementwise work on big arrays: in pieces that stay in a core's cache, and where NumPy has fast loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from .arrays import Array, Call

__all__ = ["BLOCK", "against", "alike", "blocks", "cut", "in_memory_order", "minus_size"]

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


SHORT = 1 << 12
"""Elements of an array that spells a number out, see `against`."""


def against(ufunc: np.ufunc, x: Array, value: float, out: Array) -> list[Call]:
    """`out = ufunc(x, value)`, for maximum and minimum: NumPy has no fast loop for those with one number, only for two
    arrays. So the number is spelled out, as a short array that all of `x` is run against: three times as fast. Its
    loop for both at once, `clip`, is faster still; but of −0 and 0 it keeps −0, which relu must not.
    """
    if x.size <= SHORT:
        return [partial(ufunc, x, np.full_like(x, value), out=out)]
    if ufunc is np.minimum or value:
        least, most = (0, np.iinfo(x.dtype).max) if x.dtype.kind == "u" else (-np.inf, np.inf)
        cut = (least, value) if ufunc is np.minimum else (value, most)
        return [partial(x.clip, *(np.array(limit, x.dtype) for limit in cut), out)]
    order = axes_in_memory(x)
    x, out = x.transpose(order), out.transpose(order)
    if not (x.flags.c_contiguous and out.flags.c_contiguous):
        return [partial(ufunc, x, np.full(x.shape[-1], value, x.dtype), out=out)]
    x, out, row = x.reshape(-1), out.reshape(-1), np.full(SHORT, value, x.dtype)
    even = x.size // SHORT * SHORT
    many: Call = partial(ufunc, x[:even].reshape(-1, SHORT), row, out=out[:even].reshape(-1, SHORT))
    return [many] if even == x.size else [many, partial(ufunc, x[even:], row[: x.size - even], out=out[even:])]


def cut(x: Array, low: float, high: float, out: Array) -> list[Call]:
    """`out = x`, but at least `low` and at most `high`."""
    if x.size <= SHORT:
        return [*against(np.maximum, x, low, out), *against(np.minimum, out, high, out)]
    return [partial(x.clip, np.array(low, x.dtype), np.array(high, x.dtype), out)]


def minus_size(x: Array, out: Array) -> list[Call]:
    """`out = −|x|`: two fast calls for a big array, one slow one for a small."""
    if x.size <= SHORT:
        return [partial(np.copysign, x, np.array(-1, x.dtype), out)]
    return [partial(np.abs, x, out), partial(np.negative, out, out)]


def alike(*arrays: Array) -> list[Array]:
    """Views with their axes in the order in which those of the first lie in memory."""
    order = axes_in_memory(arrays[0])
    return [array.transpose(order) for array in arrays]


def axes_in_memory(array: Array) -> list[int]:
    """The axes in the order in which they lie in memory, that of the longest strides first."""
    return sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis))


def in_memory_order(array: Array) -> Array:
    """A view with its axes in that order."""
    return array.transpose(axes_in_memory(array))
