"""F scores: precision and recall in one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import unknown
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import number, positive

from .base import AccumulatedMetric

__all__ = ["F1Score", "FBetaScore"]

AVERAGES = ("micro", "macro", "weighted")
EPSILON = 1e-7


class FBetaScore(AccumulatedMetric):
    """(1 + β²) · precision · recall / (β² · precision + recall), for each class.

    Args:
        average: None for a value of each class (in logs `f1_score[0]`, `f1_score[1]` …), "micro" for that of all
            classes' counts, "macro" for the mean of the classes', "weighted" for the mean weighted by their targets.
        beta: how many times as much recall counts as precision.
        threshold: outputs above it are positive; None: the largest of each row.
    """

    default_name = "fbeta_score"
    direction = "max"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        where = type(self).__name__
        if average is not None and average not in AVERAGES:
            raise InvalidInput(unknown("average", average, AVERAGES))
        self.average = average
        self.beta = positive(f"{where}(beta=…)", beta)
        self.threshold = None
        if threshold is not None:
            self.threshold = number(f"{where}(threshold=…)", threshold, least=0.0, below=1.0 + 1e-12)

    def accumulators(self, output_shape: Shape) -> Mapping[str, Shape]:
        _flat_only(self, output_shape)
        return {"hits": output_shape, "found": output_shape, "meant": output_shape}

    def parts(self, output_shape: Shape) -> int:
        return output_shape[-1] if self.average is None else 1

    def update(self, totals: Any, y_true: Array, y_pred: Array, sample_weight: Array | None) -> None:
        if self.threshold is None:
            found = (y_pred >= y_pred.max(-1, keepdims=True)) & (np.abs(y_pred) > 1e-9)
        else:
            found = y_pred > y_pred.dtype.type(self.threshold)
        weight = np.ones(len(y_pred), y_pred.dtype) if sample_weight is None else sample_weight
        picked = found.astype(y_pred.dtype)
        totals.found += weight @ picked
        totals.meant += weight @ y_true
        picked *= y_true
        totals.hits += weight @ picked

    def result(self, totals: Any) -> Any:
        hits, found, meant = totals.hits, totals.found, totals.meant
        if self.average == "micro":
            hits, found, meant = hits.sum(), found.sum(), meant.sum()
        precision, recall = hits / (found + EPSILON), hits / (meant + EPSILON)
        score = (1 + self.beta**2) * precision * recall / (self.beta**2 * precision + recall + EPSILON)
        if self.average == "weighted":
            return np.sum(score * meant / (meant.sum() + EPSILON))
        return score if self.average is None else np.mean(score)

    def get_config(self) -> dict[str, Any]:
        more = {"average": self.average, "beta": self.beta, "threshold": self.threshold}
        return super().get_config() | more


class F1Score(FBetaScore):
    """2 · precision · recall / (precision + recall), for each class: `FBetaScore` with `beta=1.0`.

    Args:
        average, threshold: as there.
    """

    default_name = "f1_score"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "beta"}


def _flat_only(metric: AccumulatedMetric, output_shape: Shape) -> None:
    if len(output_shape) != 1:
        raise InvalidInput(f"{metric!r} needs outputs of shape (rows, outputs), not (rows, {str(output_shape)[1:]}")
