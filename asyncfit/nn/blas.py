"""Scaled additions, added products, turned matrices in one pass over memory, by the BLAS that NumPy brings along.

`y += a·x` and `c += a·b` take two NumPy calls and `y = b·y + a·x` three, each of which reads and writes whole arrays;
BLAS does any of them at the price of one. NumPy has no way to these functions, so they are called in its OpenBLAS
directly (from 0.7 µs a call, without the interpreter's lock). Where there is another BLAS, NumPy does it; last bits
then differ, as they do between any two kinds of BLAS.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from asyncfit import machine

from .arrays import Array, Call, DType

__all__ = ["WORTH_A_CALL", "add_product", "add_scaled", "blend", "turn"]

ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112
"""How the header of CBLAS numbers them."""
WORTH_A_CALL = 1 << 8
"""Numbers that NumPy turns in the time that a call by way of ctypes takes to begin."""
REAL: dict[DType, Any] = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}


def add_scaled(y: Array, factor: Array, x: Array, scratch: Array) -> list[Call]:
    """`y += factor · x` for vectors; `factor` is a 0-d array, whose value is looked up at each call."""
    found = _axpby(y.dtype)
    if found is None or factor.dtype != y.dtype:
        return [partial(np.multiply, x, factor, scratch), partial(np.add, y, scratch, y)]
    return [_scaled(found, REAL[y.dtype].from_buffer(factor), x, 1.0, y)]


def blend(y: Array, keep: float, x: Array, share: float, scratch: Array) -> list[Call]:
    """`y = keep · y + share · x` for vectors."""
    found = _axpby(y.dtype)
    if found is None:
        a, b = np.array(share, y.dtype), np.array(keep, y.dtype)
        return [partial(np.multiply, x, a, scratch), partial(np.multiply, y, b, y), partial(np.add, y, scratch, y)]
    return [_scaled(found, share, x, keep, y)]


def add_product(c: Array, a: Array, b: Array, scratch: Array) -> list[Call]:
    """`c += a · b` for matrices; `a` and `b` may be transposed views, `scratch` is like `c`."""
    found = _gemm(c.dtype)
    left, right = _lies(a), _lies(b)
    if found is None or left is None or right is None or c.strides[1] != c.itemsize:
        return [partial(np.dot, a, b, scratch), partial(np.add, c, scratch, c)]
    (n, k), m = a.shape, b.shape[1]
    assert b.shape[0] == k
    assert c.shape == (n, m)
    turns, leads = zip(left, right, strict=True)
    return [
        _Bound(
            found, ROW_MAJOR, *turns, n, m, k, 1.0, a.ctypes.data, leads[0], b.ctypes.data, leads[1],
            1.0, c.ctypes.data, c.strides[0] // c.itemsize, arrays=(a, b, c),
        )
    ]  # fmt: skip


def turn(a: Array, out: Array) -> list[Call]:
    """`out = aᵀ` for matrices; NumPy's copies take three times as long where both have a thousand numbers."""
    found = _omatcopy(a.dtype)
    lies = _lies(a)
    if found is None or a.size < WORTH_A_CALL or lies is None or lies[0] != AS_IT_IS or out.strides[1] != out.itemsize:
        return [partial(np.copyto, out, a.T)]
    assert out.shape == a.shape[::-1]
    (rows, columns), lead = a.shape, out.strides[0] // out.itemsize
    args = ROW_MAJOR, TRANSPOSED, rows, columns, 1.0, a.ctypes.data, lies[1], out.ctypes.data, lead
    return [_Bound(found, *args, arrays=(a, out))]


def _lies(array: Array) -> tuple[int, int] | None:
    """Whether the matrix is transposed, as BLAS says it, and how far apart its rows (then columns) are."""
    (rows, columns), (down, right), size = array.shape, array.strides, array.itemsize
    if right == size and down % size == 0 and down // size >= max(1, columns):
        return AS_IT_IS, down // size
    if down == size and right % size == 0 and right // size >= max(1, rows):
        return TRANSPOSED, right // size
    return None


def _scaled(function: Callable[..., object], share: Any, x: Array, keep: float, y: Array) -> _Bound:
    assert x.shape == y.shape == (y.size,)
    assert x.flags.c_contiguous
    assert y.flags.c_contiguous
    return _Bound(function, y.size, share, x.ctypes.data, 1, keep, y.ctypes.data, 1, arrays=(x, y))


class _Bound(partial[object]):
    """A call by addresses, which keeps the arrays that lie there."""

    arrays: tuple[Array, ...]

    def __new__(cls, function: Callable[..., object], *args: Any, arrays: tuple[Array, ...]) -> _Bound:
        made = super().__new__(cls, function, *args)
        made.arrays = arrays
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


@cache
def _gemm(dtype: DType) -> Callable[..., object] | None:
    """The same for products."""
    real = REAL.get(dtype)
    found = None if real is None else machine.function(f"cblas_{'s' if dtype.itemsize == 4 else 'd'}gemm")
    if found is None:
        return None
    function, whole = found
    matrix = [ctypes.c_void_p, whole]
    function.argtypes = [*[ctypes.c_int] * 3, *[whole] * 3, real, *matrix, *matrix, real, *matrix]
    function.restype = None
    a, b, c = (np.arange(n, dtype=dtype).reshape(shape) for n, shape in ((6, (2, 3)), (12, (4, 3)), (8, (2, 4))))
    expected = c + a @ b.T
    sizes = ROW_MAJOR, AS_IT_IS, TRANSPOSED, 2, 4, 3
    function(*sizes, 1.0, a.ctypes.data, 3, b.ctypes.data, 3, 1.0, c.ctypes.data, 4)
    return function if np.array_equal(c, expected) else None


@cache
def _omatcopy(dtype: DType) -> Callable[..., object] | None:
    """The same for copies of matrices, which only OpenBLAS has."""
    real = REAL.get(dtype)
    found = None if real is None else machine.function(f"cblas_{'s' if dtype.itemsize == 4 else 'd'}omatcopy")
    if found is None:
        return None
    function, whole = found
    matrix = [ctypes.c_void_p, whole]
    function.argtypes, function.restype = [ctypes.c_int, ctypes.c_int, whole, whole, real, *matrix, *matrix], None
    a, b = np.arange(6, dtype=dtype).reshape(2, 3), np.zeros((3, 2), dtype)
    function(ROW_MAJOR, TRANSPOSED, 2, 3, 1.0, a.ctypes.data, 3, b.ctypes.data, 2)
    return function if np.array_equal(b, a.T) else None
