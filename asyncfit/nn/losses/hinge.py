"""Losses that ask for a margin: hinge, its square, and that of several classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.outcome import Outcome, flat
from asyncfit.nn.workspace import Workspace

from .base import Loss
from .crossentropy import rows_of
from .pointwise import Pointwise, pair

__all__ = ["CategoricalHinge", "Hinge", "SquaredHinge", "categorical_hinge", "hinge", "squared_hinge"]


class Hinge(Pointwise):
    """max(1 − t·y, 0), mean over the last axis. Targets are −1 and 1; where all of a batch are 0 or 1, 0 means −1."""

    name = "hinge"

    def margin(self, y: Array, t: Array, each: Array, work: Workspace) -> tuple[Array, list[Call]]:
        """The targets as −1 and 1, and calls that write them, and max(1 − t·y, 0) into `each`."""
        sign = work.take(y.shape)
        zero, one = work.take(y.shape, bool), work.take(y.shape, bool)
        none, single, two = (np.array(v, y.dtype) for v in (0, 1, 2))

        def signs() -> None:
            np.equal(t, none, zero)
            np.equal(t, single, one)
            np.logical_or(zero, one, zero)
            if zero.all():
                np.multiply(t, two, sign)
                np.subtract(sign, single, sign)
            else:
                np.copyto(sign, t)

        return sign, [
            signs,
            partial(np.multiply, sign, y, each),
            partial(np.subtract, single, each, each),
            partial(np.maximum, each, none, out=each),
        ]

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        sign, calls = self.margin(y, t, each, work)
        if grad is None:
            return calls
        return [
            *calls,
            partial(np.greater, each, np.array(0, y.dtype), grad),
            partial(np.multiply, grad, sign, grad),
            partial(np.negative, grad, grad),
        ]


class SquaredHinge(Hinge):
    """max(1 − t·y, 0)², mean over the last axis; targets as for `Hinge`."""

    name = "squared_hinge"

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        sign, calls = self.margin(y, t, each, work)
        if grad is not None:
            calls += [
                partial(np.multiply, each, sign, grad),
                partial(np.multiply, grad, np.array(-2, y.dtype), grad),
            ]
        return [*calls, partial(np.multiply, each, each, each)]


class CategoricalHinge(Loss):
    """max(max((1 − t)·y) − Σ t·y + 1, 0) over the last axis, with one-hot targets."""

    name = "categorical_hinge"

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t = rows_of(at.y), rows_of(at.dense())
        grad = None if at.dy is None else rows_of(at.dy)
        rest, wrong, right = (at.work.take(y.shape) for _ in range(3))
        strongest = at.work.take((at.rows,), np.intp)
        best, true = at.work.take((at.rows, 1)), at.work.take((at.rows, 1))
        w = at.weights() if at.weighted else np.ones((at.rows, 1), y.dtype)
        one, none, scale = (np.array(v, y.dtype) for v in (1, 0, 1 / at.rows))
        classes, count = np.arange(y.shape[-1]), at.rows

        def value() -> float:
            np.subtract(one, t, rest)
            np.multiply(rest, y, wrong)
            np.multiply(t, y, right)
            np.add.reduce(right, -1, out=true, keepdims=True)
            np.maximum.reduce(wrong, -1, out=best, keepdims=True)
            np.subtract(best, true, best)
            np.add(best, one, best)
            np.maximum(best, none, out=best)
            if grad is not None:
                wrong.argmax(-1, strongest)
                np.equal(classes, strongest[:, None], right)
                np.multiply(right, rest, right)
                np.subtract(right, t, grad)
                np.greater(best, none, true)
                np.multiply(true, w, true)
                np.multiply(true, scale, true)
                np.multiply(grad, true, grad)
            return float(flat(w).dot(flat(best))) / count

        return value


def signs_of(t: Array) -> Array:
    return 2 * t - 1 if ((t == 0) | (t == 1)).all() else t


def hinge(y_true: Array, y_pred: Array) -> Array:
    """max(1 − t·y, 0), mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean(np.maximum(1 - signs_of(t) * y, 0), axis=-1))


def squared_hinge(y_true: Array, y_pred: Array) -> Array:
    """max(1 − t·y, 0)², mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean(np.maximum(1 - signs_of(t) * y, 0) ** 2, axis=-1))


def categorical_hinge(y_true: Array, y_pred: Array) -> Array:
    """max(max((1 − t)·y) − Σ t·y + 1, 0) over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.maximum(np.max((1 - t) * y, axis=-1) - np.sum(t * y, axis=-1) + 1, 0))
