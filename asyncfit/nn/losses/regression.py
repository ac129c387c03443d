"""Losses of numbers: errors squared, absolute, relative, of logarithms, and those that are both (Huber, log-cosh)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.naming import positive
from asyncfit.nn.outcome import Outcome, flat
from asyncfit.nn.workspace import Workspace

from .base import MEAN, Loss
from .pointwise import Pointwise, pair

__all__ = [
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "huber",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
]

EPSILON = 1e-7


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


class MeanAbsolutePercentageError(Pointwise):
    """100·|y − t| / max(|t|, 1e-7), mean over the last axis."""

    name = "mean_absolute_percentage_error"

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        scale = work.take(y.shape)
        hundred, least = np.array(100, y.dtype), np.array(EPSILON, y.dtype)
        calls: list[Call] = [
            partial(np.absolute, t, scale),
            partial(np.maximum, scale, least, out=scale),
            partial(np.divide, hundred, scale, scale),
            partial(np.subtract, y, t, each),
        ]
        if grad is not None:
            calls += [partial(np.sign, each, grad), partial(np.multiply, grad, scale, grad)]
        return [*calls, partial(np.absolute, each, each), partial(np.multiply, each, scale, each)]


class MeanSquaredLogarithmicError(Pointwise):
    """(log(1 + y) − log(1 + t))², mean over the last axis; both are taken as at least 1e-7."""

    name = "mean_squared_logarithmic_error"

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        above, other = work.take(y.shape), work.take(y.shape)
        least = np.array(EPSILON, y.dtype)
        calls: list[Call] = [
            partial(np.maximum, t, least, out=other),
            partial(np.log1p, other, other),
            partial(np.maximum, y, least, out=above),
            partial(np.log1p, above, each),
            partial(np.subtract, each, other, each),
        ]
        if grad is not None:
            calls += [
                partial(np.add, above, np.array(1, y.dtype), above),
                partial(np.divide, each, above, grad),
                partial(np.greater, y, least, other),
                partial(np.multiply, grad, other, grad),
                partial(np.multiply, grad, np.array(2, y.dtype), grad),
            ]
        return [*calls, partial(np.multiply, each, each, each)]


class Huber(Pointwise):
    """e²/2 where |e| = |y − t| is at most `delta`, and delta·|e| − delta²/2 elsewhere; mean over the last axis."""

    name = "huber"

    def __init__(self, delta: float = 1.0, reduction: str | None = MEAN, name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.delta = positive("Huber(delta=…)", delta)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"delta": self.delta}

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        near, far = work.take(y.shape), work.take(y.shape)
        delta, half = np.array(self.delta, y.dtype), np.array(0.5, y.dtype)
        calls: list[Call] = [partial(np.subtract, y, t, each), partial(np.absolute, each, far)]
        calls.append(partial(np.minimum, far, delta, out=near))
        if grad is not None:
            calls.append(partial(np.copysign, near, each, grad))
        return [
            *calls,
            partial(np.multiply, near, half, each),
            partial(np.subtract, far, each, each),
            partial(np.multiply, each, near, each),
        ]


class LogCosh(Pointwise):
    """log(cosh(y − t)) = |e| + log(1 + e^−2|e|) − log 2, mean over the last axis; gradient tanh(y − t)/n."""

    name = "log_cosh"

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        error = work.take(y.shape)
        calls: list[Call] = [partial(np.subtract, y, t, error)]
        if grad is not None:
            calls.append(partial(np.tanh, error, grad))
        return [
            *calls,
            partial(np.absolute, error, error),
            partial(np.multiply, error, np.array(-2, y.dtype), each),
            partial(np.exp, each, each),
            partial(np.log1p, each, each),
            partial(np.add, each, error, each),
            partial(np.subtract, each, np.array(math.log(2), y.dtype), each),
        ]


def mean_squared_error(y_true: Array, y_pred: Array) -> Array:
    """(y − t)², mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean((y - t) ** 2, axis=-1))


def mean_absolute_error(y_true: Array, y_pred: Array) -> Array:
    """|y − t|, mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean(np.abs(y - t), axis=-1))


def mean_absolute_percentage_error(y_true: Array, y_pred: Array) -> Array:
    """100·|y − t| / max(|t|, 1e-7), mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(100 * np.mean(np.abs((t - y) / np.maximum(np.abs(t), y.dtype.type(EPSILON))), axis=-1))


def mean_squared_logarithmic_error(y_true: Array, y_pred: Array) -> Array:
    """(log(1 + y) − log(1 + t))², mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    least = y.dtype.type(EPSILON)
    return np.asarray(np.mean((np.log1p(np.maximum(y, least)) - np.log1p(np.maximum(t, least))) ** 2, axis=-1))


def huber(y_true: Array, y_pred: Array, delta: float = 1.0) -> Array:
    """Squared where |y − t| is at most `delta`, linear elsewhere, mean over the last axis: one value each."""
    t, y = pair(y_true, y_pred)
    far = np.abs(y - t)
    near = np.minimum(far, y.dtype.type(delta))
    return np.asarray(np.mean(near * (far - near / 2), axis=-1))


def log_cosh(y_true: Array, y_pred: Array) -> Array:
    """log(cosh(y − t)), mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    far = np.abs(y - t)
    return np.asarray(np.mean(far + np.log1p(np.exp(-2 * far)) - y.dtype.type(math.log(2)), axis=-1))
