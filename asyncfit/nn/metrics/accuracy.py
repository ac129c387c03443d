"""Accuracies: the share of predictions that hit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import number
from asyncfit.nn.outcome import Outcome, flat

from .base import Metric

__all__ = ["Accuracy", "BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy", "chosen_accuracy"]


class Accuracy(Metric):
    """The share of outputs that equal their target (for outputs that are labels themselves; Keras's class `Accuracy`).

    The *name* "accuracy" in `metrics=["accuracy"]` is something else: `chosen_accuracy`.
    """

    default_name = "accuracy"
    direction = "max"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.equal(y_true, y_pred)

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        hit = at.work.take(y.shape, bool)

        def value() -> float:
            np.equal(y, t, hit)
            return float(np.count_nonzero(hit)) / count

        return value


class BinaryAccuracy(Metric):
    """The share of outputs on the right side of `threshold`; one that lies on it counts as 0."""

    default_name = "binary_accuracy"
    direction = "max"

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = number("BinaryAccuracy(threshold=…)", threshold)

    def values(self, y_true: Array, y_pred: Array) -> Any:
        hits: Array = (y_pred > y_pred.dtype.type(self.threshold)) == y_true
        return hits

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = flat(at.y), flat(at.dense()), at.y.size
        hit, threshold = at.work.take(y.shape, bool), np.array(self.threshold, y.dtype)
        greater, equal, count_nonzero = np.greater, np.equal, np.count_nonzero

        def value() -> float:
            greater(y, threshold, hit)
            equal(hit, t, hit)
            return float(count_nonzero(hit)) / count

        return value

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"threshold": self.threshold}


class CategoricalAccuracy(Metric):
    """The share of predictions whose largest class is that of the target, with targets like the output."""

    default_name = "categorical_accuracy"
    direction = "max"

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.equal(y_true.argmax(-1), y_pred.argmax(-1))

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t, count = at.y, at.dense(), at.rows
        found, meant = (np.empty(y.shape[:-1], np.intp) for _ in range(2))

        def value() -> float:
            y.argmax(-1, found)
            t.argmax(-1, meant)
            return float(np.count_nonzero(found == meant)) / count

        return value


class SparseCategoricalAccuracy(Metric):
    """The share of predictions whose largest class is the target, with class numbers as targets."""

    default_name = "sparse_categorical_accuracy"
    direction = "max"
    sparse = True

    def values(self, y_true: Array, y_pred: Array) -> Any:
        return np.equal(y_true, y_pred.argmax(-1))

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, labels, count = at.y, at.labels().reshape(at.y.shape[:-1]), at.rows
        found = np.empty(y.shape[:-1], np.intp)

        def value() -> float:
            y.argmax(-1, found)
            return float(np.count_nonzero(found == labels)) / count

        return value


def chosen_accuracy(name: str, output_shape: Shape, target_shape: Shape) -> Metric:
    """What "accuracy" means for outputs and targets of these shapes (with or without the batch alike), as in Keras:
    binary for one output, sparse where the targets lack the classes, else categorical.
    """
    if output_shape[-1] == 1:
        return BinaryAccuracy(name)
    if len(target_shape) < len(output_shape) or target_shape[-1] == 1:
        return SparseCategoricalAccuracy(name)
    return CategoricalAccuracy(name)
