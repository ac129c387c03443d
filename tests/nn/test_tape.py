"""Gradients of NumPy code, function by function, against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.gradients import Unknown, Value, traced

RNG = np.random.default_rng(3)
X = RNG.uniform(0.2, 0.8, (3, 4)) * np.where(RNG.random((3, 4)) < 0.5, 1, 1)
OTHER, SIGNED = RNG.uniform(0.3, 0.9, (3, 4)), RNG.standard_normal((3, 4))
A3, COLUMN = RNG.standard_normal((2, 4, 5)), RNG.standard_normal((3, 1))

RNG_MATRIX = RNG.standard_normal((4, 3))


def two(name: str, call: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda x: call(getattr(np, name), x)


ONE: dict[str, Callable[[Any], Any]] = {
    name: getattr(np, name)
    for name in (
        "negative", "positive", "absolute", "fabs", "square", "sqrt", "cbrt", "reciprocal", "exp", "exp2", "expm1",
        "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan",
        "arcsinh", "arctanh", "deg2rad", "rad2deg",
    )
} | {"arccosh": lambda x: np.arccosh(x + 1)}  # fmt: skip
TWO = [
    "add", "subtract", "multiply", "divide", "power", "float_power", "maximum", "minimum", "fmax", "fmin", "hypot",
    "arctan2", "logaddexp", "logaddexp2", "remainder", "fmod",
]  # fmt: skip
OTHERS: dict[str, Callable[[Any], Any]] = {
    "operators": lambda x: (2 - x) * x**2 / (x + 1) - (-x) ** 2 + 3 / x + 2**x + abs(x - 0.5) + +x,
    "modulo": lambda x: (x * 3) % 0.7 + (x * 3) // 0.7,
    "rows and columns": lambda x: x * COLUMN - COLUMN / x + np.arange(4),
    "twice": lambda x: (y := np.exp(x)) * y + y,
    "comparisons": lambda x: (x > 0.5) * x + (x <= 0.3) * x**2 + np.logical_and(x > 0.2, x < 0.7) * x**3,
    "branch": lambda x: x * 2 if x.sum() > 0 else x,
    "sum": lambda x: np.sum(x**2),
    "sum, axis": lambda x: np.sum(x**2, axis=0) + x.sum(0, keepdims=True),
    "sum, axes": lambda x: np.sum(x.reshape(3, 2, 2) ** 2, axis=(0, -1)),
    "add.reduce": lambda x: np.add.reduce(x**2, axis=1) + np.maximum.reduce(x, 1),
    "mean": lambda x: np.mean(x**2, axis=-1) + x.mean(),
    "average": lambda x: np.average(x, axis=1, weights=[1, 2, 3, 4]),
    "max": lambda x: np.max(x, axis=-1) + x.max() + x.max(0).sum(),
    "min": lambda x: np.amin(x, axis=-1, keepdims=True) * x,
    "prod": lambda x: np.prod(x, axis=1) + x.prod() + x.prod(0).sum(),
    "prod with 0": lambda x: np.prod(x * np.array([1, 0, 1, 1]), axis=1) + np.prod(x - X[0, 0]),
    "var": lambda x: np.var(x, axis=-1) + x.var(ddof=1),
    "std": lambda x: np.std(x, axis=-1) + x.std(0).sum(),
    "norm": lambda x: np.linalg.norm(x, axis=-1) + np.linalg.norm(x),
    "cumsum": lambda x: np.cumsum(x**2, axis=1) * x,
    "cumsum, flat": lambda x: np.cumsum(x**2),
    "matmul": lambda x: (x @ RNG_MATRIX) @ x,
    "matmul, batches": lambda x: np.matmul(A3[:, :, :4], x.T @ x[:, :1]) + np.matmul(x, x.T).sum(),
    "matmul, stacked": lambda x: x.reshape(2, 2, 3) @ A3[:, :3, :],
    "matmul, vectors": lambda x: x[0] @ x[1] + (x @ x[0]).sum() + x[:, 0] @ x,
    "dot": lambda x: np.dot(x, x.T) + np.dot(x[0], x[1]) + np.dot(2, x).sum(),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x) + np.einsum("ij->", x),
    "einsum, three": lambda x: np.einsum("ij,ij,j->i", x, OTHER, x[0]),
    "einsum, implied": lambda x: np.einsum("ij,jk", x, x.T),
    "outer": lambda x: np.outer(x[0], x[1]),
    "trace": lambda x: np.trace(x @ x.T) + np.diagonal(x).sum(),
    "clip": lambda x: np.clip(x, 0.35, 0.6) + x.clip(0.4, None) + np.clip(x, None, x[0]),
    "where": lambda x: np.where(x > 0.5, x**2, 0.1) + np.where(OTHER > 0.6, 1.0, x[0]),
    "copysign": lambda x: np.copysign(x, SIGNED),
    "reshape": lambda x: x.reshape(4, 3) ** 2 + np.reshape(x, (4, -1)),
    "transpose": lambda x: x.T * np.transpose(x) + x.transpose(1, 0),
    "axes": lambda x: np.moveaxis(np.swapaxes(x.reshape(3, 2, 2), 0, 2), 0, -1) * A3[0, :2, 0].reshape(2, 1, 1),
    "squeeze": lambda x: np.squeeze(np.expand_dims(x, 1), 1) * x[:, None, :].squeeze(),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 3, 4)) * A3[:, :1, :4],
    "ravel": lambda x: x.ravel() * x.flatten() * np.ravel(x),
    "index": lambda x: x[1] + x[0, 2] + x[..., -1].sum() + x[1:, ::2].sum(),
    "index by integers": lambda x: x[[0, 0, 2]] * x[:, [1, 1, 3]].sum(),
    "index by bools": lambda x: x[OTHER > 0.5] ** 2,
    "take": lambda x: np.take(x, [0, 0, 3], axis=1) + np.take(x, [1]) + x.take(2),
    "take_along_axis": lambda x: np.take_along_axis(x, np.argsort(SIGNED, 1)[:, :2], 1),
    "concatenate": lambda x: np.concatenate([x, OTHER, x**2], axis=1),
    "stack": lambda x: np.stack([x[0], x[1] ** 2], axis=1),
    "hstack and vstack": lambda x: np.vstack([x, np.hstack([x[0, :2], x[1, :2]])]),
    "split": lambda x: np.multiply(*np.split(x, 2, axis=1)),
    "flip and roll": lambda x: np.flip(x, 1) * np.roll(x, 1, axis=0),
    "repeat and tile": lambda x: np.repeat(x, 2, axis=0) * np.tile(x, (2, 1)),
    "pad": lambda x: np.pad(x, 1) ** 2 + np.pad(x, 1, mode="edge"),
    "diff": lambda x: np.diff(x, axis=1) ** 2 + np.diff(x, 1).sum(),
    "sort": lambda x: np.sort(x, axis=1) * np.arange(4),
    "nan_to_num": lambda x: np.nan_to_num(x) ** 2,
    "iteration": lambda x: sum(row * i for i, row in enumerate(x)),
    "softmax": lambda x: (e := np.exp(x - np.max(x, -1, keepdims=True))) / e.sum(-1, keepdims=True),
    "floor": lambda x: x * np.floor(x * 4) + x.round(1) * x + np.sign(x - 0.5) * x,
    "astype": lambda x: (x > 0.5).astype(float) * x + x.astype(np.float64),
}  # fmt: skip
CASES: dict[str, Callable[[Any], Any]] = {
    **ONE,
    **{name: two(name, lambda f, x: f(x, OTHER)) for name in TWO},
    **{f"{name}, second": two(name, lambda f, x: f(OTHER, x)) for name in TWO},
    **{f"{name}, both": two(name, lambda f, x: f(x, x[0] + 0.11)) for name in TWO},
    **OTHERS,
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_central_differences(name: str) -> None:
    function = CASES[name]
    value, back = traced(function, X)
    assert isinstance(value, Value)
    np.testing.assert_array_equal(value.array, function(X))
    g = np.random.default_rng(1).standard_normal(value.shape)
    (found,) = back(value, g)
    expected = np.empty_like(X)
    for place in np.ndindex(*X.shape):
        step = np.zeros_like(X)
        step[place] = 1e-6
        expected[place] = np.sum((np.asarray(function(X + step)) - function(X - step)) * g) / 2e-6
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "name", ["tanh", "operators", "softmax", "where", "clip", "var", "max", "matmul", "concatenate"]
)
def test_float32_stays_float32(name: str) -> None:
    x = X.astype(np.float32)
    value, back = traced(lambda v: CASES[name](v) if name != "concatenate" else np.concatenate([v, v]), x)
    (found,) = back(value, np.ones(value.shape, np.float32))
    assert found.dtype == np.float32
    assert found.shape == x.shape


def test_gradients_by_several_arrays() -> None:
    value, back = traced(lambda a, b: a @ b, X, OTHER.T)
    g = RNG.standard_normal((3, 3))
    by_first, by_second = back(value, g)
    np.testing.assert_allclose(by_first, g @ OTHER)
    np.testing.assert_allclose(by_second, X.T @ g)


def test_ends_of_powers() -> None:
    value, back = traced(lambda x: x**2 + x**0 + 0**x, np.array([0.0, -3.0, 2.0])[[0, 2]])
    np.testing.assert_array_equal(back(value, np.ones(2))[0], [0, 4])


UNKNOWN: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: np.linalg.inv(x), "np.inv has no gradient here"),
    (lambda x: np.spacing(x), "np.spacing has no gradient here"),
    (lambda x: np.add(x, 1, out=np.zeros((3, 4))), "overwrites an array"),
    (lambda x: np.asarray(x), "loses its gradient"),
    (lambda x: float(x), "loses the gradient"),
    (lambda x: x.__setitem__(0, 1), "use np.where"),
    (lambda x: x.tolist(), "an array's tolist has no gradient here"),
    (lambda x: np.einsum("...j->...", x), "without '...'"),
    (lambda x: np.sum(x, where=X > 0), "with where="),
    (lambda x: OTHER[x], "loses"),
]


@pytest.mark.parametrize(("function", "message"), UNKNOWN)
def test_what_has_no_gradient_is_named_with_the_way_out(function: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(Unknown, match=message) as caught:
        traced(function, X)
    assert isinstance(caught.value, InvalidInput)
    assert "return (values, gradient)" in str(caught.value)


def test_constants_are_plain_arrays() -> None:
    def function(x: Any) -> Any:
        assert isinstance(x > 0, np.ndarray)
        assert isinstance(np.argmax(x, 1), np.ndarray)
        assert isinstance(np.ones_like(x), np.ndarray)
        assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((3, 4), 2, 12, 3, np.float64)
        return np.zeros_like(x)

    value, back = traced(function, X)
    assert type(value) is np.ndarray
    found: Array = back(value, X)[0]
    assert not found.any()
