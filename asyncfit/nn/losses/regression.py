"""Losses of numbers: mean squared and mean absolute error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asyncfit.nn.arrays import Array
from asyncfit.nn.outcome import Outcome, flat

from .base import Loss

__all__ = ["MeanAbsoluteError", "MeanSquaredError", "mean_absolute_error", "mean_squared_error"]


class MeanSquaredError(Loss):
    """(y − t)², mean over the last axis; gradient 2(y − t)/n."""

    name = "mean_squared_error"

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        d = at.work.like(at.y) if at.dy is None else at.dy
        w = at.weights().reshape(*at.y.shape[:-1], 1) if at.weighted else None
        grad, error = flat(d), at.work.take(y.shape)
        twice = np.array(2 / count, y.dtype)
        back = at.dy is not None

        def value() -> float:
            np.subtract(y, t, error)
            if w is None:
                loss = float(error.dot(error)) / count
                if back:
                    np.multiply(error, twice, grad)
                return loss
            grad[...] = error
            np.multiply(d, w, d)
            loss = float(error.dot(grad)) / count
            if back:
                np.multiply(grad, twice, grad)
            return loss

        return value


class MeanAbsoluteError(Loss):
    """|y − t|, mean over the last axis; gradient sign(y − t)/n."""

    name = "mean_absolute_error"

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        d = at.work.like(at.y) if at.dy is None else at.dy
        w = at.weights().reshape(*at.y.shape[:-1], 1) if at.weighted else None
        grad, error = flat(d), at.work.take(y.shape)
        once = np.array(1 / count, y.dtype)
        back = at.dy is not None

        def value() -> float:
            np.subtract(y, t, error)
            np.sign(error, grad)
            if w is not None:
                np.multiply(d, w, d)
            loss = float(error.dot(grad)) / count
            if back:
                np.multiply(grad, once, grad)
            return loss

        return value


def pair(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Both as floats of one shape; a last axis of length 1 that only one of them has is added or dropped."""
    y = np.asarray(y_pred)
    y = y if y.dtype == np.float64 else y.astype(np.float32)
    t = np.asarray(y_true).astype(y.dtype)
    if t.ndim + 1 == y.ndim and y.shape[-1] == 1:
        t = t[..., None]
    elif y.ndim + 1 == t.ndim and t.shape[-1] == 1:
        t = t[..., 0] if y.ndim > 1 else t
        y = y if y.ndim > 1 else y[:, None]
    return t, y


def mean_squared_error(y_true: Array, y_pred: Array) -> Array:
    """(y − t)², mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean((y - t) ** 2, axis=-1))


def mean_absolute_error(y_true: Array, y_pred: Array) -> Array:
    """|y − t|, mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean(np.abs(y - t), axis=-1))
