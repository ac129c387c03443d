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

LETTERS: dict[DType, tuple[str, Any]] = {
    np.dtype(np.float32): ("s", ctypes.c_float),
    np.dtype(np.float64): ("d", ctypes.c_double),
}


def add_scaled(y: Array, factor: Array, x: Array, scratch: Array) -> list[Call]:
    """`y += factor · x` for vectors; `factor` is a 0-d array, whose value is looked up at each call."""
    found = _function("axpy", y.dtype)
    if found is None or factor.dtype != y.dtype:
        return [partial(np.multiply, x, factor, scratch), partial(np.add, y, scratch, y)]
    live = LETTERS[y.dtype][1].from_buffer(factor)
    return [_Bound(found, (y.size, live, x.ctypes.data, 1, y.ctypes.data, 1), (x, y))]


def blend(y: Array, keep: float, x: Array, share: float, scratch: Array) -> list[Call]:
    """`y = keep · y + share · x` for vectors."""
    found = _function("axpby", y.dtype)
    if found is None:
        a, b = np.array(share, y.dtype), np.array(keep, y.dtype)
        return [partial(np.multiply, x, a, scratch), partial(np.multiply, y, b, y), partial(np.add, y, scratch, y)]
    return [_Bound(found, (y.size, share, x.ctypes.data, 1, keep, y.ctypes.data, 1), (x, y))]


class _Bound(partial[object]):
    """A call by addresses, which keeps the arrays that lie there."""

    arrays: tuple[Array, ...]

    def __new__(cls, function: Callable[..., object], args: tuple[Any, ...], arrays: tuple[Array, ...]) -> _Bound:
        made = super().__new__(cls, function, *args)
        assert all(a.ndim == 1 and a.flags.c_contiguous for a in arrays)
        made.arrays = arrays
        return made


@cache
def _function(name: str, dtype: DType) -> Callable[..., object] | None:
    """`axpy` or `axpby` for this type, None unless it is there and computes what it should."""
    if dtype not in LETTERS:
        return None
    letter, real = LETTERS[dtype]
    found = machine.function(f"cblas_{letter}{name}")
    if found is None:
        return None
    function, whole = found
    vector = [ctypes.c_void_p, whole]
    scalars = [real, *vector, real] if name == "axpby" else [real, *vector]
    function.argtypes, function.restype = [whole, *scalars, *vector], None
    x, y = np.arange(5, dtype=dtype), np.arange(5, 0, -1).astype(dtype)
    expected = 2 * x + (3 * y if name == "axpby" else y)
    function(5, 2, x.ctypes.data, 1, *([3] if name == "axpby" else []), y.ctypes.data, 1)
    return function if np.array_equal(y, expected) else None
