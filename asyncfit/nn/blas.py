"""Scaled additions in one pass over memory, by the BLAS that NumPy brings along.

`y += a·x` takes two NumPy calls and `y = b·y + a·x` three, each of which reads and writes whole arrays; BLAS does
either at the price of one. NumPy has no way to its functions for vectors, so they are called in its OpenBLAS directly
(0.7 µs a call, without the interpreter's lock). Where there is another BLAS, NumPy does it; last bits then differ, as
they do between any two kinds of BLAS.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from asyncfit import machine

from .arrays import Array, Call, DType

__all__ = ["add_scaled", "blend"]

REAL: dict[DType, Any] = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}


def add_scaled(y: Array, factor: Array, x: Array, scratch: Array) -> list[Call]:
    """`y += factor · x` for vectors; `factor` is a 0-d array, whose value is looked up at each call."""
    found = _axpby(y.dtype)
    if found is None or factor.dtype != y.dtype:
        return [partial(np.multiply, x, factor, scratch), partial(np.add, y, scratch, y)]
    return [_Bound(found, REAL[y.dtype].from_buffer(factor), x, 1.0, y)]


def blend(y: Array, keep: float, x: Array, share: float, scratch: Array) -> list[Call]:
    """`y = keep · y + share · x` for vectors."""
    found = _axpby(y.dtype)
    if found is None:
        a, b = np.array(share, y.dtype), np.array(keep, y.dtype)
        return [partial(np.multiply, x, a, scratch), partial(np.multiply, y, b, y), partial(np.add, y, scratch, y)]
    return [_Bound(found, share, x, keep, y)]


class _Bound(partial[object]):
    """A call by addresses, which keeps the arrays that lie there."""

    arrays: tuple[Array, Array]

    def __new__(cls, function: Callable[..., object], share: Any, x: Array, keep: float, y: Array) -> _Bound:
        assert x.shape == y.shape == (y.size,)
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
        made = super().__new__(cls, function, y.size, share, x.ctypes.data, 1, keep, y.ctypes.data, 1)
        made.arrays = x, y
        return made


@cache
def _axpby(dtype: DType) -> Callable[..., object] | None:
    """The function for this type, None unless it is there and computes what it should.

    It adds plainly, too: `axpy` shares 40 KB among two threads, and each core then fetches from the other.
    """
    real = REAL.get(dtype)
    found = None if real is None else machine.function(f"cblas_{'s' if dtype.itemsize == 4 else 'd'}axpby")
    if found is None:
        return None
    function, whole = found
    vector = [ctypes.c_void_p, whole]
    function.argtypes, function.restype = [whole, real, *vector, real, *vector], None
    x, y = np.arange(5, dtype=dtype), np.arange(5, 0, -1).astype(dtype)
    expected = 2 * x + 3 * y
    function(5, 2, x.ctypes.data, 1, 3, y.ctypes.data, 1)
    return function if np.array_equal(y, expected) else None
