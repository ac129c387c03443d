"""Metrics of numbers: mean squared and mean absolute error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asyncfit.nn.outcome import Outcome, flat

from .base import Metric

__all__ = ["MeanAbsoluteError", "MeanSquaredError"]


class MeanSquaredError(Metric):
    """(y − t)²."""

    default_name = "mean_squared_error"
    direction = "min"

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        error = at.work.take(y.shape)

        def value() -> float:
            np.subtract(y, t, error)
            return float(error.dot(error)) / count

        return value


class MeanAbsoluteError(Metric):
    """|y − t|."""

    default_name = "mean_absolute_error"
    direction = "min"

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        error, ones = at.work.take(y.shape), np.ones(y.shape, y.dtype)

        def value() -> float:
            np.subtract(y, t, error)
            np.absolute(error, error)
            return float(ones.dot(error)) / count

        return value
