"""Intersection over union: how well the regions of classes fall together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import number, whole

from .base import AccumulatedMetric
from .probabilistic import last_axis

__all__ = ["BinaryIoU", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU"]


class IoU(AccumulatedMetric):
    """tp / (tp + fp + fn) of each of `target_class_ids`, averaged over those that occur.

    As in Keras weights count as whole numbers, cut off, and what is no class from 0 to `num_classes` − 1 is left out.

    Args:
        num_classes: how many classes there are.
        target_class_ids: those that count.
        ignore_class: targets of this class are left out.
        sparse_y_true: the targets are class numbers; else one-hot.
        sparse_y_pred: the outputs are class numbers; else the largest of a row is its class.
    """

    direction = "max"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Iterable[int],
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        where = type(self).__name__
        super().__init__(name, None if dtype in ("int", "int32") else dtype)
        self.num_classes = whole(f"{where}(num_classes=…)", num_classes, least=1)
        self.target_class_ids = [whole(f"{where}(target_class_ids=…)", one, least=0) for one in target_class_ids]
        if not self.target_class_ids or max(self.target_class_ids) >= self.num_classes:
            raise InvalidInput(f"{where}(target_class_ids=…) takes classes from 0 to {self.num_classes - 1}")
        self.ignore_class, self.axis = ignore_class, last_axis(self, axis)
        self.sparse_y_true, self.sparse_y_pred = bool(sparse_y_true), bool(sparse_y_pred)
        self.sparse = self.sparse_y_true and not self.sparse_y_pred

    def accumulators(self, output_shape: Shape) -> Mapping[str, Shape]:
        if self.sparse_y_pred and not self.sparse_y_true:
            raise InvalidInput(f"{self!r} needs targets with one more axis than the outputs, which a model cannot have")
        return {"counts": (self.num_classes, self.num_classes)}

    def classes(self, y_pred: Array) -> Array:
        """The class of each prediction."""
        return y_pred if self.sparse_y_pred else y_pred.argmax(-1)

    def update(self, totals: Any, y_true: Array, y_pred: Array, sample_weight: Array | None) -> None:
        n = self.num_classes
        found = self.classes(y_pred)
        meant = y_true if self.sparse_y_true else y_true.argmax(-1)
        counted = (meant > -1) & (meant < n) & (found > -1) & (found < n)
        if self.ignore_class is not None:
            counted &= meant.astype(np.intp) != self.ignore_class
        index = meant[counted].astype(np.intp) * n + found[counted].astype(np.intp)
        weight = None
        if sample_weight is not None:
            whole_numbers = np.trunc(sample_weight)
            if found.ndim > whole_numbers.ndim:
                whole_numbers = whole_numbers[..., None]
            weight = np.broadcast_to(whole_numbers, found.shape)[counted]
        totals.counts += np.bincount(index, weight, n * n).reshape(n, n)

    def result(self, totals: Any) -> Any:
        hits = np.diag(totals.counts)
        union = totals.counts.sum(0) + totals.counts.sum(1) - hits
        hits, union = hits[self.target_class_ids], union[self.target_class_ids]
        return np.sum(hits / (union + 1e-7)) / (np.count_nonzero(union > 1e-9) + 1e-7)

    def get_config(self) -> dict[str, Any]:
        return self._config("num_classes", "target_class_ids", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")

    def _config(self, *names: str) -> dict[str, Any]:
        return super().get_config() | {"dtype": "int32"} | {name: getattr(self, name) for name in names}


class BinaryIoU(IoU):
    """`IoU` of two classes, which outputs from `threshold` on and below it are.

    Args:
        target_class_ids: (0, 1), or one of them.
        threshold: outputs of at least this are of class 1.
    """

    def __init__(
        self,
        target_class_ids: Iterable[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = number("BinaryIoU(threshold=…)", threshold)

    def classes(self, y_pred: Array) -> Array:
        return np.asarray(y_pred >= y_pred.dtype.type(self.threshold)).astype(np.intp)

    def get_config(self) -> dict[str, Any]:
        return self._config("target_class_ids", "threshold")


class MeanIoU(IoU):
    """`IoU` of all classes that occur."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        classes = range(whole(f"{type(self).__name__}(num_classes=…)", num_classes, least=1))
        super().__init__(num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")


class OneHotIoU(IoU):
    """`IoU` with one-hot targets."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Iterable[int],
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config("num_classes", "target_class_ids", "ignore_class", "sparse_y_pred", "axis")


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` with one-hot targets."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config("num_classes", "ignore_class", "sparse_y_pred", "axis")
