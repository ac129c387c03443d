"""Accuracies that count a hit among the k best."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.naming import whole

from .base import Metric

__all__ = ["SparseTopKCategoricalAccuracy", "TopKCategoricalAccuracy"]


class TopKCategoricalAccuracy(Metric):
    """The share of predictions whose true class is among the `k` largest outputs, with targets like the output."""

    direction = "max"

    def __init__(self, k: int = 5, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype)
        self.k = whole(f"{type(self).__name__}(k=…)", k, least=1)

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return _among(y_true.argmax(-1), y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"k": self.k}


class SparseTopKCategoricalAccuracy(Metric):
    """The share of predictions whose true class is among the `k` largest outputs, with class numbers as targets."""

    sparse = True
    direction = "max"

    def __init__(
        self, k: int = 5, name: str | None = None, dtype: str | None = None, from_sorted_ids: bool = False
    ) -> None:
        super().__init__(name, dtype)
        if from_sorted_ids:
            raise InvalidInput("SparseTopKCategoricalAccuracy(from_sorted_ids=True) is not supported; leave it out")
        self.k = whole(f"{type(self).__name__}(k=…)", k, least=1)

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return _among(y_true, y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"k": self.k}


def _among(classes: Array, y: Array, k: int) -> Array:
    """Whether fewer than k outputs are above that of the class; NaN is never a hit."""
    true = np.take_along_axis(y, classes[..., None], -1)
    above: Any = np.count_nonzero(y > true, axis=-1)
    found: Array = (above < k) & np.isfinite(true[..., 0])
    return found
