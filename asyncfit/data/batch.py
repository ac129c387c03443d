"""A batch as somebody's iterator yields it: taken apart, checked, and copied into what compute trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Batch, target_dtype
from .intake import Rows, take_in
from .kinds import is_array
from .values import Labels, check_finite, check_labels, weights_by_class

__all__ = ["BatchIntake"]


class BatchIntake:
    """Makes batches of what is yielded.

    Args:
        name: of what yields them.
        own_model: everything keeps its type, y may be missing and weights may have any shape.
        targets: y is needed.
        class_weight: weighs each row by its class in y.

    Attributes:
        labels: what y may hold, where that is class numbers.
    """

    def __init__(
        self,
        name: str,
        *,
        own_model: bool = False,
        targets: bool = True,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self._name, self._own_model, self._class_weight = name, own_model, class_weight
        self._targets = targets and not own_model
        self._ignores_y = not targets
        self.labels: Labels | None = None

    def __call__(self, item: Any, number: int) -> Batch:
        """A batch of its own memory: whoever yielded it may use its arrays again.

        Args:
            number: which it is, from 0, for messages.

        Raises:
            InvalidInput: it is no batch, or has something in it that cannot be trained on.
        """
        batch = self._plain(item) if self.labels is None and self._class_weight is None else None
        return self._checked(item, number) if batch is None else batch

    def rows(self, item: Any, number: int) -> tuple[Array, Array | None, Array | None]:
        """The item as arrays: x, y and sample_weight, not weighed by class."""
        of = f"of batch {number} of {self._name}"
        x, y, weight = self._parts(item, of)
        rows = Rows(
            take_in(f"x {of}", x),
            None if y is None else take_in(f"y {of}", y),
            None if weight is None else take_in(f"sample_weight {of}", weight),
        )
        return rows.load(own_model=self._own_model).arrays()

    def _plain(self, item: Any) -> Batch | None:
        """The same for what most batches are, at a tenth of the cost; None for all that needs a closer look."""
        if self._own_model or item.__class__ is not tuple or not 1 < len(item) <= 3 or self._ignores_y:
            return None
        x, y, weight = item if len(item) == 3 else (*item, None)
        if not (_is_plain(x) and _is_plain(y) and len(x) == len(y)):
            return None
        if weight is not None and not (_is_plain(weight) and weight.ndim and weight.shape == y.shape[: weight.ndim]):
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            x = np.array(x, np.float32, order="C", copy=True)
            y = np.array(y, target_dtype(y), order="C", copy=True)
            if weight is not None:
                weight = np.array(weight, np.float32, order="C", copy=True)
        finite = np.isfinite(x).all() and (y.dtype.kind != "f" or np.isfinite(y).all())
        if not finite or (weight is not None and not np.isfinite(weight).all()):
            return None
        return x, y, weight, len(x)

    def _checked(self, item: Any, number: int) -> Batch:
        of = f"of batch {number} of {self._name}"
        x, y, weight = self._parts(item, of)
        if self._ignores_y:
            y = weight = None
        if y is None and self._targets:
            raise InvalidInput(f"batch {number} of {self._name} has no y: yield (x, y), or (x, y, sample_weight)")
        rows = Rows(
            take_in(f"x {of}", x),
            None if y is None else take_in(f"y {of}", y),
            None if weight is None else take_in(f"sample_weight {of}", weight),
        ).load(own_model=self._own_model)
        for given in rows.all():
            check_finite(given.name, given.loaded, as_given=self._own_model)
        of_x, of_y, of_weight = rows.arrays()
        if of_y is not None and self.labels is not None:
            check_labels(f"y {of}", of_y, self.labels)
        if self._class_weight is not None:
            of_weight = self._weights(of_y, of_weight, of)
        return (
            self._copy(of_x, np.float32),
            None if of_y is None else self._copy(of_y, target_dtype(of_y)),
            None if of_weight is None else self._copy(of_weight, np.float32),
            len(of_x),
        )

    def _parts(self, item: Any, of: str) -> tuple[Any, Any, Any]:
        if isinstance(item, Mapping):
            raise InvalidInput(f"what came {of} is a dict; models have one input and one target: yield (x, y)")
        if not _is_row_of_parts(item):
            return item, None, None
        if not 1 <= len(item) <= 3:
            raise InvalidInput(f"a {type(item).__name__} of {len(item)} came {of}; yield x, (x, y) or (x, y, weights)")
        x, y, weight = (*item, None, None)[:3]
        return x, y, weight

    def _weights(self, y: Array | None, weight: Array | None, of: str) -> Array:
        if weight is not None:
            raise InvalidInput(
                f"class_weight was given, and sample_weight came {of}; give one of them: sample_weight may carry the "
                "product"
            )
        if y is None or y.ndim > 2:
            raise InvalidInput(f"class_weight needs one class a row in y, but {of} there is none; yield sample_weight")
        assert self._class_weight is not None
        return weights_by_class(f"y {of}", y, self._class_weight)

    def _copy(self, array: Array, dtype: Any) -> Array:
        kept = array.dtype.newbyteorder("=") if self._own_model else dtype
        return np.array(array, kept, order="C", copy=True)


def _is_plain(array: Any) -> bool:
    return array.__class__ is np.ndarray and array.dtype.kind in "fiub" and array.ndim > 0 and array.size > 0


def _is_row_of_parts(item: Any) -> bool:
    """A tuple always is; a list, as DataLoaders make them, if it holds arrays."""
    if isinstance(item, tuple):
        return not hasattr(item, "__array__")
    if not isinstance(item, list) or not item:
        return False
    first: Any = item[0]
    return bool(getattr(first, "ndim", 0)) and all(part is None or is_array(part) for part in item)
