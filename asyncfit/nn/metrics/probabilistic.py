"""Metrics of probabilities, and hinges: what the losses of the same names say, averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import losses
from asyncfit.nn.arrays import Array
from asyncfit.nn.naming import number

from .base import Metric

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "Hinge",
    "KLDivergence",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
]

EPSILON = 1e-7


class _Crossentropy(Metric):
    direction = "min"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits = bool(from_logits)
        where = f"{type(self).__name__}(label_smoothing=…)"
        self.label_smoothing = number(where, label_smoothing, least=0.0, below=1.0 + 1e-12)

    def get_config(self) -> dict[str, Any]:
        more = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
        return super().get_config() | more


class BinaryCrossentropy(_Crossentropy):
    """−t·log p − (1 − t)·log(1 − p), with p from 1e-7 to 1 − 1e-7; or from logits."""

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return losses.binary_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)


class CategoricalCrossentropy(_Crossentropy):
    """−Σ t·log p over the classes, with p scaled to the sum 1 and clipped to 1e-7 … 1 − 1e-7; or from logits."""

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype, from_logits, label_smoothing)
        self.axis = last_axis(self, axis)

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return losses.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


class SparseCategoricalCrossentropy(Metric):
    """−log p of the true class, with class numbers as targets."""

    sparse = True
    direction = "min"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        if ignore_class is not None:
            raise InvalidInput(
                "SparseCategoricalCrossentropy(ignore_class=…) is not supported as a metric; leave it out"
            )
        self.from_logits, self.axis = bool(from_logits), last_axis(self, axis)

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return losses.sparse_categorical_crossentropy(y_true, y_pred, self.from_logits)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"from_logits": self.from_logits, "ignore_class": None, "axis": self.axis}


class KLDivergence(Metric):
    """Σ t·log(t / y), both clipped to 1e-7 … 1."""

    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        least = y_pred.dtype.type(EPSILON)
        t, y = np.clip(y_true, least, 1), np.clip(y_pred, least, 1)
        found: Array = (t * np.log(t / y)).sum(-1)
        return found


class Poisson(Metric):
    """y − t·log(y + 1e-7)."""

    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        with np.errstate(invalid="ignore"):
            found: Array = y_pred - y_true * np.log(y_pred + y_pred.dtype.type(EPSILON))
        return found


class Hinge(Metric):
    """max(1 − t·y, 0), with targets −1 and 1; where all of a batch are 0 and 1 they stand for these."""

    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        t = 2 * y_true - 1 if np.all((y_true == 0) | (y_true == 1)) else y_true
        return np.maximum(1 - t * y_pred, 0)


class SquaredHinge(Hinge):
    """max(1 − t·y, 0)², with targets as for `Hinge`."""

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.square(super().values(y_true, y_pred))


class CategoricalHinge(Metric):
    """max(max((1 − t)·y) − Σ t·y + 1, 0), with one-hot targets."""

    direction = "min"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.maximum(((1 - y_true) * y_pred).max(-1) - (y_true * y_pred).sum(-1) + 1, 0)


def last_axis(metric: Metric, axis: int) -> int:
    if axis != -1:
        raise InvalidInput(f"{type(metric).__name__}(axis={axis!r}): classes lie along the last axis; use axis=-1")
    return axis
