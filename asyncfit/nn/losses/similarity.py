"""Losses that compare arrays as a whole: the cosine between vectors, and how much two regions overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.naming import number
from asyncfit.nn.outcome import Outcome

from .base import MEAN, Loss
from .pointwise import pair

__all__ = ["CosineSimilarity", "Dice", "Tversky", "cosine_similarity", "dice", "tversky"]

EPSILON = 1e-7
Axes = int | Sequence[int] | None


class AlongAxes(Loss):
    """Losses with one value for what lies along some axes; `axis` None means all of them, the batch's included."""

    axis: Axes

    def axes(self, at: Outcome) -> tuple[int, ...]:
        rank = at.y.ndim
        given = range(rank) if self.axis is None else [self.axis] if isinstance(self.axis, int) else self.axis
        found = tuple(sorted({axis % rank for axis in given if -rank <= axis < rank}))
        if len(found) != len(given) or not found:
            raise InvalidInput(f"{type(self).__name__} has axis={self.axis}, but the output has {rank} axes")
        return found

    def values_in(self, at: Outcome) -> int:
        if self.axis is None:
            return at.y.shape[0] if at.weighted else 1
        return math.prod(size for axis, size in enumerate(at.y.shape) if axis not in self.axes(at))

    def weights_of(self, at: Outcome) -> Callable[[], Array | float]:
        """What values are to be multiplied with: numbers for the samples, that fit the output; or one."""
        if not at.weighted:
            return lambda: 1.0
        weights, shape = at.weights().reshape(at.y.shape[0], -1), (-1, *(1,) * (at.y.ndim - 1))
        if self.axis is None:
            return lambda: float(weights.mean())
        if 0 in self.axes(at):
            raise InvalidInput(
                f"{self!r} has no value for each sample, so samples cannot have weights; leave axis 0 out"
            )
        return lambda: weights.mean(axis=1).reshape(shape)


class CosineSimilarity(AlongAxes):
    """−Σ t·y / (|t|·|y|) along `axis`: −1 where both point the same way, 1 where they oppose each other."""

    name = "cosine_similarity"

    def __init__(self, axis: int = -1, reduction: str | None = MEAN, name: str | None = None) -> None:
        super().__init__(reduction, name)
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise InvalidInput(f"CosineSimilarity(axis=…) is a whole number, not {axis!r}")
        self.axis = axis

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, dy, axes = at.y, at.dense(), at.dy, self.axes(at)
        along = axes[0]
        size = tuple(1 if axis == along else length for axis, length in enumerate(y.shape))
        square, other = at.work.take(y.shape), at.work.take(y.shape)
        inv, inv_t, cosine = (at.work.take(size) for _ in range(3))
        count, most = math.prod(size), np.array(1 / EPSILON, y.dtype)
        if at.weighted and along == y.ndim - 1:
            each = at.weights().reshape(size)
            weights: Callable[[], Array | float] = lambda: each  # noqa: E731
        else:
            weights = self.weights_of(at)

        def inverse(x: Array, out: Array) -> None:
            np.multiply(x, x, square)
            np.add.reduce(square, along, out=out, keepdims=True)
            np.sqrt(out, out)
            with np.errstate(divide="ignore"):
                np.reciprocal(out, out)
            np.minimum(out, most, out=out)

        def value() -> float:
            inverse(y, inv)
            inverse(t, inv_t)
            np.multiply(t, inv_t, other)
            np.multiply(y, inv, square)
            w = weights()
            if dy is not None:
                np.multiply(other, square, dy)
                np.add.reduce(dy, along, out=cosine, keepdims=True)
                np.multiply(square, cosine, square)
                np.subtract(square, other, dy)
                np.multiply(dy, inv, dy)
                np.multiply(dy, w, dy)
                np.divide(dy, count, dy)
            else:
                np.multiply(other, square, square)
                np.add.reduce(square, along, out=cosine, keepdims=True)
            np.multiply(cosine, w, cosine)
            return -float(cosine.sum()) / count

        return value


class Tversky(AlongAxes):
    """1 − I / (I + alpha·Σ t(1 − y) + beta·Σ y(1 − t)), where I = Σ t·y (Salehi and others 2017)."""

    name = "tversky"

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = MEAN,
        name: str | None = None,
        axis: Axes = None,
    ) -> None:
        super().__init__(reduction, name)
        self.alpha, self.beta = number("Tversky(alpha=…)", alpha), number("Tversky(beta=…)", beta)
        self.axis = axis if axis is None or isinstance(axis, int) else tuple(axis)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha, "beta": self.beta, "axis": self.axis}

    def factors(self) -> tuple[float, float, float, float]:
        """a, b, c, e: the value is 1 − a·I / (b·I + c·Σt + e·Σy + 1e-7)."""
        return 1.0, 1 - self.alpha - self.beta, self.alpha, self.beta

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, dy, axes = at.y, at.dense(), at.dy, self.axes(at)
        size = tuple(1 if axis in axes else length for axis, length in enumerate(y.shape))
        both = at.work.take(y.shape)
        common, below, part = (at.work.take(size) for _ in range(3))
        dtype, count, weights = y.dtype, math.prod(size), self.weights_of(at)
        a, b, c, e = (np.array(v, dtype) for v in self.factors())
        least = np.array(EPSILON, dtype)

        def value() -> float:
            np.multiply(y, t, both)
            np.add.reduce(both, axes, out=common, keepdims=True)
            np.multiply(common, b, below)
            for array, factor in ((t, c), (y, e)):
                np.add.reduce(array, axes, out=part, keepdims=True)
                np.multiply(part, factor, part)
                np.add(below, part, below)
            np.add(below, least, below)
            np.multiply(common, a, common)
            np.divide(common, below, common)  # r, of the value 1 − r
            w = weights()
            if dy is not None:  # −(a·t − r·(b·t + e)) / below
                np.multiply(t, b, both)
                np.add(both, e, both)
                np.multiply(both, common, both)
                np.multiply(t, a, dy)
                np.subtract(both, dy, dy)
                np.divide(dy, below, dy)
                np.multiply(dy, w, dy)
                np.divide(dy, count, dy)
            np.subtract(1, common, common)
            np.multiply(common, w, common)
            return float(common.sum()) / count

        return value


class Dice(Tversky):
    """1 − 2·Σ t·y / (Σ t + Σ y), over all numbers of a batch or along `axis`."""

    name = "dice"

    def __init__(self, reduction: str | None = MEAN, name: str | None = None, axis: Axes = None) -> None:
        super().__init__(reduction=reduction, name=name, axis=axis)

    def get_config(self) -> dict[str, Any]:
        return Loss.get_config(self) | {"axis": self.axis}

    def factors(self) -> tuple[float, float, float, float]:
        return 2.0, 0.0, 1.0, 1.0


def cosine_similarity(y_true: Array, y_pred: Array, axis: int = -1) -> Array:
    """−Σ t·y / (|t|·|y|) along `axis`."""
    t, y = pair(y_true, y_pred)
    least = y.dtype.type(EPSILON)
    t, y = (one / np.maximum(np.sqrt(np.sum(one * one, axis=axis, keepdims=True)), least) for one in (t, y))
    return np.asarray(-np.sum(t * y, axis=axis))


def dice(y_true: Array, y_pred: Array, axis: Axes = None) -> Array:
    """1 − 2·Σ t·y / (Σ t + Σ y) along `axis`, or of all numbers."""
    t, y = pair(y_true, y_pred)
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    below = np.sum(t, axis=axes) + np.sum(y, axis=axes) + y.dtype.type(EPSILON)
    return np.asarray(1 - 2 * np.sum(t * y, axis=axes) / below)


def tversky(y_true: Array, y_pred: Array, alpha: float = 0.5, beta: float = 0.5, axis: Axes = None) -> Array:
    """1 − I / (I + alpha·Σ t(1 − y) + beta·Σ y(1 − t)) with I = Σ t·y, along `axis`, or of all numbers."""
    t, y = pair(y_true, y_pred)
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    common = np.sum(t * y, axis=axes)
    wrong = alpha * np.sum(t * (1 - y), axis=axes) + beta * np.sum(y * (1 - t), axis=axes)
    return np.asarray(1 - common / (common + wrong + y.dtype.type(EPSILON)))
