"""What is found and what is missed at thresholds: counts of the confusion matrix, precision and recall.

Outputs are put into bins between the thresholds, those of positive and of negative targets apart; sums from the top
give the positives found at each threshold. So a batch costs the same for one threshold as for hundreds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import whole

from .base import AccumulatedMetric

__all__ = [
    "ConfusionMetric",
    "Counts",
    "FalseNegatives",
    "FalsePositives",
    "Precision",
    "Recall",
    "TrueNegatives",
    "TruePositives",
    "ratio",
]

EPSILON = 1e-7


class Counts(NamedTuple):
    """The confusion matrix at each threshold, `(thresholds,)` or `(thresholds, labels)`."""

    tp: Array
    fp: Array
    tn: Array
    fn: Array


def ratio(above: Array, below: Array) -> Array:
    """`above / below`, and 0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


class ConfusionMetric(AccumulatedMetric):
    """Base of those that compare outputs with thresholds: an output above one is positive, one that lies on it is not.

    Targets are positive unless they are 0. Outputs of all kinds of layers are compared as they are, sigmoid or not.
    """

    sparse = False
    multi_label = False
    top_k: int | None = None
    class_id: int | None = None
    from_logits = False
    label_weights: Sequence[float] | None = None

    def set_thresholds(self, thresholds: Sequence[float], around: bool = False) -> None:
        """Args:
        around: the first stands for one below 0, the last for one above 1.
        """
        self._order = np.argsort(thresholds, kind="stable")
        bounds = np.array(thresholds, np.float32)[self._order]
        if around:
            bounds[0], bounds[-1] = -EPSILON, 1 + EPSILON
        count = len(thresholds)
        even = np.arange(count, dtype=np.float32) / max(count - 1, 1)
        self._even = count > 2 and np.allclose(thresholds, even, atol=EPSILON)
        self._around = around
        self._bounds = bounds

    def accumulators(self, output_shape: Shape) -> Mapping[str, Shape]:
        bins = len(self._bounds) + 1
        if self.multi_label and len(output_shape) != 1:
            raise InvalidInput(f"{self!r}: multi_label=True needs outputs of shape (rows, labels), not {output_shape}")
        for what, wanted in (("class_id", self.class_id), ("top_k", None if self.top_k is None else self.top_k - 1)):
            if wanted is not None and wanted >= output_shape[-1]:
                raise InvalidInput(f"{self!r}: {what} is above what a model with {output_shape[-1]} outputs has")
        weights = self.label_weights
        if weights is not None and len(weights) != output_shape[-1]:
            raise InvalidInput(f"{self!r} has {len(weights)} label_weights for {output_shape[-1]} outputs")
        return {"counts": (output_shape[-1], 2, bins) if self.multi_label else (2, bins)}

    def update(self, totals: Any, y_true: Array, y_pred: Array, sample_weight: Array | None) -> None:
        y, t = y_pred, y_true
        if self.from_logits:
            y = activations.get("sigmoid")(y)
        if self.top_k is not None:
            y = _best(y, self.top_k)
        if self.class_id is not None:
            y, t = y[..., self.class_id, None], t[..., self.class_id, None]
        bins = len(self._bounds) + 1
        index = self._bin(y)
        index += bins * (t != 0)
        weights = sample_weight
        if weights is not None:
            weights = np.broadcast_to(weights[..., None], y.shape)
        if self.label_weights is not None and not self.multi_label:
            labels = np.broadcast_to(np.array(self.label_weights, float), y.shape)
            weights = labels if weights is None else weights * labels
        if self.multi_label:
            index += 2 * bins * np.arange(y.shape[-1])
        counts: Array = totals.counts
        given = None if weights is None else weights.reshape(-1)
        counts += np.bincount(index.reshape(-1), given, counts.size).reshape(counts.shape)

    def _bin(self, y: Array) -> Any:
        """Above how many thresholds each output lies; none for NaN."""
        if not self._even:
            return np.searchsorted(self._bounds, np.fmax(y, -np.inf), "left")
        y = np.fmin(np.fmax(y, 0), 1)
        bucket = np.ceil(y * y.dtype.type(len(self._bounds) - 1)).astype(np.intp)
        return np.maximum(bucket, 1, out=bucket) if self._around else bucket

    def counted(self, totals: Any) -> Counts:
        """The confusion matrix, thresholds in the order in which they were given."""
        counts = np.moveaxis(totals.counts, -1, 0)  # bins first, positives and negatives last
        above = counts[::-1].cumsum(0)[::-1][1:]
        found = np.empty_like(above)
        found[self._order] = above
        all_ = counts.sum(0)
        negative, positive = found[..., 0], found[..., 1]
        return Counts(positive, negative, all_[..., 0] - negative, all_[..., 1] - positive)


def _best(y: Array, k: int) -> Array:
    """The k largest outputs of each row, the others lowered out of reach; of equal ones the first."""
    lowered = np.full_like(y, -1e10)
    best = np.argsort(-y, axis=-1, kind="stable")[..., :k]
    np.put_along_axis(lowered, best, np.take_along_axis(y, best, -1), -1)
    return lowered


def threshold_list(where: str, given: Any, default: float) -> list[float]:
    if given is None:
        return [default]
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    found = [float(one) if isinstance(one, int | float | np.number) else -1.0 for one in given]
    if not found or not all(0 <= one <= 1 for one in found):
        raise InvalidInput(f"{where}(thresholds=…) takes numbers from 0 to 1, not {given!r}")
    return found


class _AtThresholds(ConfusionMetric):
    """A value at each of `thresholds`."""

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype)
        self.thresholds = thresholds
        self._begin(0.5)

    def _begin(self, default: float) -> None:
        self._count = len(given := threshold_list(type(self).__name__, self.thresholds, default))
        self.set_thresholds(given)

    def parts(self, output_shape: Shape) -> int:
        return self._count

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"thresholds": self.thresholds}


class TruePositives(_AtThresholds):
    """How many positives are found; one value for each of `thresholds` (0.5)."""

    direction = "max"

    def result(self, totals: Any) -> Any:
        return self.counted(totals).tp


class TrueNegatives(_AtThresholds):
    """How many negatives are taken for such; one value for each of `thresholds` (0.5)."""

    direction = "max"

    def result(self, totals: Any) -> Any:
        return self.counted(totals).tn


class FalsePositives(_AtThresholds):
    """How many negatives are taken for positives; one value for each of `thresholds` (0.5)."""

    direction = "min"

    def result(self, totals: Any) -> Any:
        return self.counted(totals).fp


class FalseNegatives(_AtThresholds):
    """How many positives are missed; one value for each of `thresholds` (0.5)."""

    direction = "min"

    def result(self, totals: Any) -> Any:
        return self.counted(totals).fn


class _AtThresholdsOrBest(_AtThresholds):
    """Args:
    thresholds: a number from 0 to 1 or several; 0.5 if left out, and none of it counts with `top_k`.
    top_k: only the k largest outputs of a row may be positive.
    class_id: look at this output alone.
    """

    direction = "max"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        where = type(self).__name__
        self.top_k = None if top_k is None else whole(f"{where}(top_k=…)", top_k, least=1)
        self.class_id = None if class_id is None else whole(f"{where}(class_id=…)", class_id, least=0)
        super().__init__(thresholds, name, dtype)
        self._begin(0.5 if top_k is None else -1e9)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"top_k": self.top_k, "class_id": self.class_id}


class Precision(_AtThresholdsOrBest):
    """What share of those taken for positive is so: tp / (tp + fp), 0 where there is none."""

    __doc__ += _AtThresholdsOrBest.__doc__ or ""

    def result(self, totals: Any) -> Any:
        counts = self.counted(totals)
        return ratio(counts.tp, counts.tp + counts.fp)


class Recall(_AtThresholdsOrBest):
    """What share of the positives is found: tp / (tp + fn), 0 where there is none."""

    __doc__ += _AtThresholdsOrBest.__doc__ or ""

    def result(self, totals: Any) -> Any:
        counts = self.counted(totals)
        return ratio(counts.tp, counts.tp + counts.fn)
