"""Areas under curves, and the best of one rate that the other allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import unknown
from asyncfit.nn.arrays import Array
from asyncfit.nn.naming import number, whole

from .confusion import ConfusionMetric, Counts, ratio, threshold_list

__all__ = ["AUC", "PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity"]

CURVES = ("ROC", "PR", "PRGAIN")
METHODS = ("interpolation", "majoring", "minoring")


def even(count: int) -> list[float]:
    return [0.0, *((i + 1) / (count - 1) for i in range(count - 2)), 1.0]


class AUC(ConfusionMetric):
    """The area under the curve of recall over the share of false positives (ROC), or of precision over recall (PR),
    or of precision gain over recall gain (PRGAIN), from sums at `num_thresholds` thresholds, as in Keras.

    Args:
        num_thresholds: so many from 0 to 1, evenly; the more, the nearer is the area to the true one.
        curve: "ROC", "PR" or "PRGAIN".
        summation_method: "interpolation" (for PR that of Davis and Goadrich, 2006), "majoring" or "minoring".
        thresholds: take these and 0 and 1.
        multi_label: each output has an area of its own, and their mean counts; else all outputs are one set.
        num_labels: how many outputs; may be left out.
        label_weights: of each output.
        from_logits: the outputs are logits; with False they are probabilities.
    """

    direction = "max"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str | None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.given = None if thresholds is None else sorted(threshold_list("AUC", thresholds, 0.5))
        if self.given is None:
            self.num_thresholds = whole("AUC(num_thresholds=…)", num_thresholds, least=2)
            self.set_thresholds(even(self.num_thresholds), around=True)
        else:
            self.num_thresholds = len(self.given) + 2
            self.set_thresholds([0.0, *self.given, 1.0], around=True)
        self.curve, self.summation_method = str(curve).upper(), str(summation_method).lower()
        if self.curve not in CURVES:
            raise InvalidInput(unknown("curve", curve, CURVES))
        if self.summation_method not in METHODS:
            raise InvalidInput(unknown("summation method", summation_method, METHODS))
        self.multi_label, self.from_logits, self.num_labels = bool(multi_label), bool(from_logits), num_labels
        if num_labels is not None:
            whole("AUC(num_labels=…)", num_labels, least=1)
            if not multi_label:
                raise InvalidInput("AUC(num_labels=…) goes with multi_label=True alone")
        if label_weights is not None:
            self.label_weights = [number("AUC(label_weights=…)", one, least=0.0) for one in label_weights]

    def result(self, totals: Any) -> Any:
        counts = self.counted(totals)
        if self.curve == "PR" and self.summation_method == "interpolation":
            terms = _interpolated(counts)
        else:
            x, y = self._points(counts)
            if self.summation_method == "interpolation":
                heights = (y[:-1] + y[1:]) / 2
            else:
                heights = (np.minimum if self.summation_method == "minoring" else np.maximum)(y[:-1], y[1:])
            terms = (x[:-1] - x[1:]) * heights
        areas = terms.sum(0)
        if not self.multi_label:
            return areas
        return areas.mean() if self.label_weights is None else np.average(areas, weights=self.label_weights)

    def _points(self, counts: Counts) -> tuple[Array, Array]:
        tp, fp, tn, fn = counts
        if self.curve == "ROC":
            return ratio(fp, fp + tn), ratio(tp, tp + fn)
        if self.curve == "PR":
            return ratio(tp, tp + fn), ratio(tp, tp + fp)
        scale = ratio(tp + fn, tn + fp)
        recall = np.where(tp == 0, 0.0, 1 - scale * ratio(fn, tp))
        return np.maximum(recall, 0.0), np.where(tp == 0, 1.0, 1 - scale * ratio(fp, tp))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": self.label_weights,
            "from_logits": self.from_logits,
            **({} if self.given is None else {"thresholds": self.given}),
        }


def _interpolated(counts: Counts) -> Array:
    """The pieces of the area under precision over recall, with the true positives interpolated, not the precision."""
    tp, fp, _, fn = counts
    positive = tp + fp
    found, all_ = tp[:-1] - tp[1:], positive[:-1] - positive[1:]
    slope = ratio(found, np.maximum(all_, 0))
    intercept = tp[1:] - slope * positive[1:]
    both = (positive[:-1] > 0) & (positive[1:] > 0)
    share = np.where(both, ratio(positive[:-1], np.maximum(positive[1:], 0)), 1.0)
    return ratio(slope * (found + intercept * np.log(share)), np.maximum(tp[1:] + fn[1:], 0))


class _AtLeast(ConfusionMetric):
    """The best of one rate where another is at least `value`."""

    direction = "max"
    _what = ""

    def __init__(
        self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: str | None
    ) -> None:
        super().__init__(name, dtype)
        where = type(self).__name__
        self.value = number(f"{where}({self._what}=…)", value, least=0.0, below=1.0 + 1e-12)
        self.num_thresholds = whole(f"{where}(num_thresholds=…)", num_thresholds, least=1)
        self.class_id = None if class_id is None else whole(f"{where}(class_id=…)", class_id, least=0)
        self.set_thresholds([0.5] if num_thresholds == 1 else even(self.num_thresholds))

    def rates(self, counts: Counts) -> tuple[Array, Array]:
        """What must be at least `value`, and what is told."""
        raise NotImplementedError

    def result(self, totals: Any) -> Any:
        held, told = self.rates(self.counted(totals))
        return np.max(np.where(held >= self.value, told, 0.0), initial=0.0)

    def get_config(self) -> dict[str, Any]:
        more = {"class_id": self.class_id, "num_thresholds": self.num_thresholds, self._what: self.value}
        return super().get_config() | more


class SensitivityAtSpecificity(_AtLeast):
    """The best tp / (tp + fn) at a threshold where tn / (tn + fp) is at least `specificity`."""

    _what = "specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)

    def rates(self, counts: Counts) -> tuple[Array, Array]:
        return ratio(counts.tn, counts.tn + counts.fp), ratio(counts.tp, counts.tp + counts.fn)


class SpecificityAtSensitivity(_AtLeast):
    """The best tn / (tn + fp) at a threshold where tp / (tp + fn) is at least `sensitivity`."""

    _what = "sensitivity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)

    def rates(self, counts: Counts) -> tuple[Array, Array]:
        return ratio(counts.tp, counts.tp + counts.fn), ratio(counts.tn, counts.tn + counts.fp)


class PrecisionAtRecall(_AtLeast):
    """The best precision at a threshold where the recall is at least `recall`."""

    _what = "recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)

    def rates(self, counts: Counts) -> tuple[Array, Array]:
        return ratio(counts.tp, counts.tp + counts.fn), ratio(counts.tp, counts.tp + counts.fp)


class RecallAtPrecision(_AtLeast):
    """The best recall at a threshold where the precision is at least `precision`."""

    _what = "precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)

    def rates(self, counts: Counts) -> tuple[Array, Array]:
        return ratio(counts.tp, counts.tp + counts.fp), ratio(counts.tp, counts.tp + counts.fn)
