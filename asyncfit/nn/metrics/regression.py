"""Metrics of numbers: errors, their logarithms, and the share of variance that is explained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import whole
from asyncfit.nn.outcome import Outcome, flat

from .base import AccumulatedMetric, Metric

__all__ = [
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "R2Score",
    "RootMeanSquaredError",
]

EPSILON = 1e-7


class MeanSquaredError(Metric):
    """(y − t)²."""

    default_name = "mean_squared_error"
    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.square(y_pred - y_true)

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

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.absolute(y_pred - y_true)

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        error, ones = at.work.take(y.shape), np.ones(y.shape, y.dtype)

        def value() -> float:
            np.subtract(y, t, error)
            np.absolute(error, error)
            return float(ones.dot(error)) / count

        return value


class MeanAbsolutePercentageError(Metric):
    """100 · |t − y| / max(|t|, 1e-7)."""

    default_name = "mean_absolute_percentage_error"
    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        share: Array = np.abs((y_true - y_pred) / np.maximum(np.abs(y_true), y_pred.dtype.type(EPSILON)))
        return 100 * share


class MeanSquaredLogarithmicError(Metric):
    """(log(max(y, 1e-7) + 1) − log(max(t, 1e-7) + 1))²."""

    default_name = "mean_squared_logarithmic_error"
    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        least = y_pred.dtype.type(EPSILON)
        return np.square(np.log1p(np.maximum(y_pred, least)) - np.log1p(np.maximum(y_true, least)))


class LogCoshError(Metric):
    """log(cosh(y − t)): as the square for small errors, as the amount for big ones."""

    default_name = "logcosh"
    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        error = np.abs(y_pred - y_true)
        found: Array = error + np.log1p(np.exp(-2 * error)) - error.dtype.type(math.log(2))
        return found


class RootMeanSquaredError(AccumulatedMetric):
    """The root of the mean of (y − t)² over the epoch."""

    default_name = "root_mean_squared_error"
    direction = "min"

    def accumulators(self, output_shape: Shape) -> Mapping[str, Shape]:
        return {"total": (), "weight": ()}

    def update(self, totals: Any, y_true: Array, y_pred: Array, sample_weight: Array | None) -> None:
        error = np.subtract(y_pred, y_true)
        np.square(error, error)
        if sample_weight is None:
            totals.total += error.mean() * len(y_pred)
            totals.weight += len(y_pred)
        else:
            each = sample_weight.size // len(y_pred)
            totals.total += error.mean(-1).reshape(-1) @ sample_weight.reshape(-1) / each
            totals.weight += sample_weight.sum() / each

    def result(self, totals: Any) -> Any:
        return math.sqrt(totals.total / totals.weight) if totals.weight else 0.0


AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")


class R2Score(AccumulatedMetric):
    """1 − Σ(y − t)² / Σ(t − mean t)²: the share of the targets' variance that the outputs explain.

    Args:
        class_aggregation: "uniform_average" for the mean over outputs, "variance_weighted_average" for that weighted by
            their targets' variance, None for a value of each output (in logs `r2_score[0]`, `r2_score[1]` …).
        num_regressors: of the model, for the adjusted R²; 0 for the plain one.
    """

    default_name = "r2_score"
    direction = "max"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        if class_aggregation not in AGGREGATIONS:
            raise InvalidInput(
                f"R2Score(class_aggregation=…) is one of {', '.join(map(repr, AGGREGATIONS))}, "
                f"not {class_aggregation!r}"
            )
        self.class_aggregation = class_aggregation
        self.num_regressors = whole("R2Score(num_regressors=…)", num_regressors, least=0)

    def accumulators(self, output_shape: Shape) -> Mapping[str, Shape]:
        if len(output_shape) != 1:
            raise InvalidInput(f"R2Score needs outputs of shape (rows, outputs), not (rows, {str(output_shape)[1:]}")
        return {"squares": output_shape, "sum": output_shape, "residual": output_shape, "weight": (), "numbers": ()}

    def parts(self, output_shape: Shape) -> int:
        return output_shape[-1] if self.class_aggregation is None else 1

    def update(self, totals: Any, y_true: Array, y_pred: Array, sample_weight: Array | None) -> None:
        t = y_true.astype(float)
        weight = np.ones(len(t)) if sample_weight is None else sample_weight.astype(float)
        totals.sum += weight @ t
        totals.residual += weight @ np.square(t - y_pred)
        totals.squares += weight @ np.square(t)
        totals.weight += weight.sum()
        totals.numbers += t.size

    def result(self, totals: Any) -> Any:
        if not totals.weight:
            return np.full(totals.sum.shape, np.nan) if self.class_aggregation is None else math.nan
        variance = totals.squares - totals.sum * (totals.sum / totals.weight)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = 1 - totals.residual / variance
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "uniform_average":
                scores = np.mean(scores)
            elif self.class_aggregation == "variance_weighted_average":
                scores = np.sum(variance * scores) / np.sum(variance)
        n, p = float(totals.numbers), self.num_regressors
        return 1 - (1 - scores) * (n - 1) / (n - p - 1) if p and p < n - 1 else scores

    def get_config(self) -> dict[str, Any]:
        more = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return super().get_config() | more
