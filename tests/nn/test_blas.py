"""Scaled additions, added products: BLAS computes what NumPy computes, and where there is no such BLAS, NumPy does."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from asyncfit import machine
from asyncfit.nn import blas
from asyncfit.nn.blas import add_product, add_scaled, blend, turn


@pytest.fixture(params=["its own OpenBLAS", "another BLAS"], autouse=True)
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    blas._axpby.cache_clear()
    blas._gemm.cache_clear()
    blas._omatcopy.cache_clear()
    there = request.param == "its own OpenBLAS"
    if not there:
        monkeypatch.setattr(machine, "function", lambda name: None)
    yield there and machine.function("cblas_saxpby") is not None
    blas._axpby.cache_clear()
    blas._gemm.cache_clear()
    blas._omatcopy.cache_clear()


def vectors(dtype: Any, size: int = 1001) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    x, y = (rng.standard_normal(size).astype(dtype) for _ in range(2))
    return x, y, np.empty(size, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scaled_vector_is_added(dtype: Any, either: bool) -> None:
    y, x, scratch = vectors(dtype)
    factor, before = np.array(-0.25, dtype), y.copy()
    calls = add_scaled(y, factor, x, scratch)
    assert len(calls) == (1 if either else 2)
    for call in calls:
        call()
    np.testing.assert_allclose(y, before - 0.25 * x, rtol=1e-6, atol=1e-6)
    factor[()] = 0.25  # it is looked up at each call
    for call in calls:
        call()
    np.testing.assert_allclose(y, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keep", [0.0, 0.9])
def test_two_vectors_are_blended(dtype: Any, keep: float, either: bool) -> None:
    y, x, scratch = vectors(dtype)
    before = y.copy()
    calls = blend(y, keep, x, 0.1, scratch)
    assert len(calls) == (1 if either else 3)
    for call in calls:
        call()
    np.testing.assert_allclose(y, keep * before + 0.1 * x, rtol=1e-6, atol=1e-6)


def test_a_product_is_added(either: bool) -> None:
    rng = np.random.default_rng(3)
    for dtype in (np.float32, np.float64):
        wide: Any = rng.standard_normal((7, 9)).astype(dtype)
        tall: Any = rng.standard_normal((9, 7)).astype(dtype)
        lefts = {"rows": wide, "some": wide[2:5], "columns": wide[:, 3:], "transposed": tall.T, "one": wide[:1, :1]}
        for name, a in lefts.items():
            k = a.shape[1]
            for b in (tall[:k], tall[:k, 2:4], wide.T[:k], tall[:k][::-1]):
                room: Any = rng.standard_normal((len(a), b.shape[1] + 3)).astype(dtype)
                c: Any = room[:, : b.shape[1]]
                expected, rest = c + a @ b, room[:, b.shape[1] :].copy()
                calls = add_product(c, a, b, np.empty_like(c))
                assert len(calls) == (1 if either and b.strides[0] > 0 else 2), name
                for call in calls:
                    call()
                np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)
                np.testing.assert_array_equal(room[:, b.shape[1] :], rest)


def test_a_matrix_is_turned(either: bool) -> None:
    rng = np.random.default_rng(3)
    for dtype in (np.float32, np.float64):
        rows = rng.standard_normal((70, 5, 9)).astype(dtype)
        rows[0, 2, :3] = np.nan, np.inf, -0.0
        for a in (rows[:, 2], rows[:, ::-1][:, 1], rows[:, 3, 2:], rows[:4, 0]):
            out = np.zeros((a.shape[1], len(a) + 2), dtype)
            (call,) = turn(a, out[:, : len(a)])
            call()
            assert out[:, : len(a)].tobytes() == a.T.tobytes()
            assert not out[:, len(a) :].any()
        down: Any = rng.standard_normal((9, 70)).astype(dtype)
        out = np.zeros((9, 70), dtype)
        for call in turn(down.T, out):
            call()
        np.testing.assert_array_equal(out, down)


def test_a_factor_of_another_type_is_converted_by_numpy() -> None:
    y, x, scratch = vectors(np.float64)
    before = y.copy()
    for call in add_scaled(y, np.array(0.5, np.float32), x, scratch):
        call()
    np.testing.assert_allclose(y, before + 0.5 * x)


def test_calls_keep_the_arrays_whose_addresses_they_have() -> None:
    y, x, scratch = vectors(np.float32)
    held = weakref.ref(x)
    calls = [*add_scaled(y, np.array(1, np.float32), x, scratch), *blend(y, 1.0, x, 1.0, scratch)]
    calls += add_product(np.zeros((1, 1), np.float32), x[None], x[:, None], np.zeros((1, 1), np.float32))
    del x
    gc.collect()
    assert held() is not None
    del calls
    assert held() is None


def test_a_function_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        argtypes: Any = None
        restype: Any = None

        def __call__(self, *args: Any) -> None:
            pass

    monkeypatch.setattr(machine, "function", lambda name: (Wrong(), ctypes.c_int64))
    y, x, scratch = vectors(np.float32)
    assert len(add_scaled(y, np.array(1, np.float32), x, scratch)) == 2
    assert len(blend(y, 1.0, x, 1.0, scratch)) == 3
    one = np.ones((1, 1), np.float32)
    assert len(add_product(one, one, one, one)) == 2
    assert blas._omatcopy(np.dtype(np.float32)) is None
