"""How alike outputs and targets of a row are: cosine similarity and correlations along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array

from .base import Metric

__all__ = ["ConcordanceCorrelation", "CosineSimilarity", "PearsonCorrelation"]


class _AlongAxis(Metric):
    """Args:
    axis: −1: along the outputs of a row.
    """

    direction = "max"

    def __init__(self, name: str | None = None, dtype: str | None = None, axis: int = -1) -> None:
        super().__init__(name, dtype)
        if axis != -1:
            raise InvalidInput(f"{type(self).__name__}(axis={axis!r}): it goes along the last axis alone; use axis=-1")
        self.axis = axis


class CosineSimilarity(_AlongAxis):
    """Σ t·y / (‖t‖ · ‖y‖), from −1 to 1."""

    def values(self, y_true: Array, y_pred: Array) -> Any:
        found: Array = (_normal(y_true) * _normal(y_pred)).sum(-1)
        return found


class PearsonCorrelation(_AlongAxis):
    """The covariance of t and y along the outputs of a row, divided by both standard deviations."""

    def values(self, y_true: Array, y_pred: Array) -> Any:
        t, y = y_true - y_true.mean(-1, keepdims=True), y_pred - y_pred.mean(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = (t / t.std(-1, keepdims=True) * (y / y.std(-1, keepdims=True))).mean(-1)
        return found

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


class ConcordanceCorrelation(_AlongAxis):
    """2 cov(t, y) / (var t + var y + (mean t − mean y)² + 1e-7) along the outputs of a row."""

    def values(self, y_true: Array, y_pred: Array) -> Any:
        t_mean, y_mean = y_true.mean(-1, keepdims=True), y_pred.mean(-1, keepdims=True)
        below = y_true.var(-1, keepdims=True) + y_pred.var(-1, keepdims=True) + np.square(t_mean - y_mean)
        found: Array = (2 * (y_true - y_mean) * (y_pred - y_mean) / (below + y_pred.dtype.type(1e-7))).mean(-1)
        return found

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


def _normal(array: Array) -> Array:
    norm = np.sqrt(np.square(array).sum(-1, keepdims=True))
    found: Array = array / np.maximum(norm, array.dtype.type(1e-7))
    return found
