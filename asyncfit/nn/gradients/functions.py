"""Rules of sums, means, extrema and products over axes, and of matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Array, Shape

from .tape import CONSTANT, FUNCTIONS, UFUNCS, Unknown, Value, made, plain, unbroadcast

__all__: list[str] = []


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    given = range(rank) if axis is None else (axis,) if isinstance(axis, int | np.integer) else axis
    return tuple(int(one) % max(rank, 1) for one in given) if rank else ()


def kept(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def spread(g: Array, x: Array) -> Array:
    """`g` for each element of `x` that it stands for."""
    found = np.empty_like(x)
    found[...] = g
    return found


def total(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False, **how: Any) -> Any:
    _no_more("sum", how)
    x, axes = plain(a), axes_of(axis, plain(a).ndim)
    thin = kept(x.shape, axes)
    out = np.sum(x, axis=axes, dtype=dtype, keepdims=_flag(keepdims))
    return made(out, (a, lambda g: spread(g.reshape(thin), x)))


def mean(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False, **how: Any) -> Any:
    _no_more("mean", how)
    x, axes = plain(a), axes_of(axis, plain(a).ndim)
    shape, thin = x.shape, kept(x.shape, axes)
    count = math.prod(shape[axis] for axis in axes)
    out = np.mean(x, axis=axes, dtype=dtype, keepdims=_flag(keepdims))
    return made(out, (a, lambda g: spread(g.reshape(thin) / count, x)))


def extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """Several that are the largest share the gradient."""

    def rule(a: Any, axis: Any = None, keepdims: Any = False, **how: Any) -> Any:
        _no_more(function.__name__, how)
        x, axes = plain(a), axes_of(axis, plain(a).ndim)
        thin = kept(x.shape, axes)
        out = function(x, axis=axes, keepdims=_flag(keepdims))

        def pull(g: Array) -> Array:
            chosen = (x == np.reshape(out, thin)).astype(x.dtype)
            return np.asarray(chosen / chosen.sum(axis=axes, keepdims=True) * g.reshape(thin))

        return made(out, (a, pull))

    return rule


def product(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False, **how: Any) -> Any:
    _no_more("prod", how)
    x, axes = plain(a), axes_of(axis, plain(a).ndim)
    rest = tuple(axis for axis in range(x.ndim) if axis not in axes)
    order, thin = (*rest, *axes), kept(x.shape, axes)
    out = np.prod(x, axis=axes, dtype=dtype, keepdims=_flag(keepdims))

    def pull(g: Array) -> Array:
        turned = x.transpose(order)
        rows = turned.reshape(math.prod(x.shape[axis] for axis in rest), -1)
        before, after = np.ones_like(rows), np.ones_like(rows)
        before[:, 1:] = np.cumprod(rows[:, :-1], axis=1)
        after[:, :-1] = np.cumprod(rows[:, :0:-1], axis=1)[:, ::-1]
        others = (before * after).reshape(turned.shape).transpose(np.argsort(order))
        return np.asarray(others * g.reshape(thin))

    return made(out, (a, pull))


def variance(a: Any, axis: Any = None, dtype: Any = None, ddof: int = 0, keepdims: Any = False, **how: Any) -> Any:
    _no_more("var", how)
    count = math.prod(a.shape[axis] for axis in axes_of(axis, a.ndim))
    d = a - mean(a, axis, keepdims=True)
    return total(d * d, axis, keepdims=keepdims) / (count - ddof)


def deviation(a: Any, axis: Any = None, dtype: Any = None, ddof: int = 0, keepdims: Any = False, **how: Any) -> Any:
    return np.sqrt(variance(a, axis, dtype, ddof=ddof, keepdims=keepdims, **how))


def average(a: Any, axis: Any = None, weights: Any = None, **how: Any) -> Any:
    _no_more("average", how)
    if weights is None:
        return mean(a, axis)
    return np.sum(a * weights, axis=axis) / np.sum(weights * np.ones(np.shape(plain(a))), axis=axis)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2, "fro") or (ord is not None and not isinstance(axis, int)):
        raise Unknown(f"np.linalg.norm(ord={ord!r}, axis={axis!r}) has no gradient here")
    return np.sqrt(total(x * x, axis, keepdims=keepdims))


def cumsum(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    if axis is None:
        return cumsum(a.reshape(-1), 0)
    return made(
        np.cumsum(plain(a), axis, dtype),
        (a, lambda g: np.flip(np.cumsum(np.flip(g, axis), axis), axis).astype(a.dtype)),
    )


def matmul(out: Any, a: Any, b: Any) -> Any:
    x, y = np.asarray(a), np.asarray(b)
    m, n = (x[None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)

    def whole(g: Array) -> Array:
        g = np.expand_dims(g, -1) if y.ndim == 1 else g
        return np.expand_dims(g, -2) if x.ndim == 1 else g

    def by_first(g: Array) -> Array:
        return unbroadcast(whole(g) @ np.swapaxes(n, -1, -2), m.shape).reshape(x.shape)

    def by_second(g: Array) -> Array:
        return unbroadcast(np.swapaxes(m, -1, -2) @ whole(g), n.shape).reshape(y.shape)

    return by_first, by_second


def dot(a: Any, b: Any) -> Any:
    ranks = np.ndim(plain(a)), np.ndim(plain(b))
    if 0 in ranks:
        return np.multiply(a, b)
    if max(ranks) > 2 and ranks[1] != 1:
        raise Unknown("np.dot of arrays with more than two axes has no gradient here (np.matmul and np.einsum have)")
    return np.matmul(a, b)


def einsum(subscripts: Any, *operands: Any, **how: Any) -> Any:
    how.pop("optimize", None)
    _no_more("einsum", how)
    if not isinstance(subscripts, str) or "." in subscripts:
        raise Unknown("np.einsum has a gradient here with subscripts as text and without '...' alone")
    terms, arrow, result = subscripts.replace(" ", "").partition("->")
    inputs = terms.split(",")
    if not arrow:
        letters = [letter for term in inputs for letter in term]
        result = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    if any(len(set(term)) < len(term) for term in inputs):
        raise Unknown("np.einsum with a letter twice in one operand has no gradient here")
    arrays = [np.asarray(plain(one)) for one in operands]
    sizes = {
        letter: size for term, x in zip(inputs, arrays, strict=True) for letter, size in zip(term, x.shape, strict=True)
    }

    def pull_of(i: int) -> Callable[[Array], Array]:
        def pull(g: Array) -> Array:
            others = [(term, x) for j, (term, x) in enumerate(zip(inputs, arrays, strict=True)) if j != i]
            known = set(result).union(*(term for term, _ in others))
            others += [(letter, np.ones(sizes[letter], g.dtype)) for letter in inputs[i] if letter not in known]
            told = ",".join([result, *(term for term, _ in others)])
            return np.asarray(np.einsum(f"{told}->{inputs[i]}", g, *(x for _, x in others)))

        return pull

    out = np.einsum(f"{terms}->{result}", *arrays)
    return made(out, *((one, pull_of(i)) for i, one in enumerate(operands) if isinstance(one, Value)))


def _flag(keepdims: Any) -> bool:
    return bool(keepdims) and keepdims is not np._NoValue


def _no_more(name: str, how: dict[str, Any]) -> None:
    left = [key for key, value in how.items() if value is not None and value is not np._NoValue]
    if left:
        raise Unknown(f"np.{name} with {', '.join(f'{key}=' for key in left)} has no gradient here")


UFUNCS[np.matmul] = matmul
FUNCTIONS.update(
    {
        np.sum: total, np.mean: mean, np.max: extreme(np.max), np.amax: extreme(np.max), np.min: extreme(np.min),
        np.amin: extreme(np.min), np.prod: product, np.var: variance, np.std: deviation, np.average: average,
        np.linalg.norm: norm, np.cumsum: cumsum, np.dot: dot, np.einsum: einsum,
    }
)  # fmt: skip
CONSTANT.update(
    {
        np.argmax, np.argmin, np.argsort, np.all, np.any, np.shape, np.ndim, np.size, np.zeros_like, np.ones_like,
        np.full_like, np.empty_like, np.round, np.around, np.isclose, np.allclose, np.array_equal, np.count_nonzero,
        np.result_type, np.nonzero, np.searchsorted,
    }
)  # fmt: skip
