"""Checks that look at every value. They take time in proportion to the data: call them off the event loop.

All go through an array in blocks of about a megabyte, so that memory stays bounded for memory maps too. `tick` is
called before each block: what it raises ends the work there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array

__all__ = [
    "Labels",
    "check_finite",
    "check_labels",
    "check_some",
    "check_words",
    "label_range",
    "nothing",
    "weights_by_class",
]

BLOCK_BYTES = 1024 * 1024


def nothing() -> None:
    """The `tick` of work that nobody ends."""


def check_finite(
    name: str, array: Array, *, as_given: bool = False, tick: Callable[[], None] = nothing, first: int | None = None
) -> None:
    """Refuse NaN and infinity, and, unless it stays `as_given`, what is infinite as a float32.

    Args:
        first: the array is a part of another one, from this row on.
    """
    if array.dtype.kind != "f":
        return
    narrow = array.dtype.itemsize > 4 and not as_given
    found, count, overflow = -1, 0, False
    for start, block in _blocks(array):
        tick()
        with np.errstate(over="ignore", invalid="ignore"):
            good = np.isfinite(block.astype(np.float32) if narrow else block)
        if good.all():
            continue
        bad = ~good.reshape(len(block), -1).all(axis=1)
        if found < 0:
            row = int(bad.argmax())
            found, overflow = start + row, bool(np.isfinite(block[row]).all())
        count += int(bad.sum())
    if not count:
        return
    if first is not None:
        raise _not_finite(name, f"row {first + found:,}", overflow)
    raise _not_finite(name, f"{count:,} of {len(array):,} rows, the first is row {found:,}", overflow)


def check_some(name: str, array: Array, start: int, stop: int, *, as_given: bool = False) -> None:
    """`check_finite` for the rows `start` to `stop` alone: for arrays that are read once, batch by batch."""
    part = array[start:stop]
    if part.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        good = np.isfinite(part if as_given or part.dtype.itemsize <= 4 else part.astype(np.float32))
    if not good.all():
        row = int((~good.reshape(len(part), -1).all(axis=1)).argmax())
        raise _not_finite(name, f"row {start + row:,}", bool(np.isfinite(part[row]).all()))


def _not_finite(name: str, rows: str, overflow: bool) -> InvalidInput:
    if overflow:
        return InvalidInput(
            f"{name} holds numbers too big for float32 (beyond 3.4e38) in {rows}; scale it down, for example to "
            "mean 0 and deviation 1"
        )
    return InvalidInput(
        f"{name} holds NaN or infinity in {rows}; finite numbers are needed: leave those rows out, or fill them "
        f"with np.nan_to_num({name})"
    )


def label_range(y: Array) -> tuple[float, float]:
    """The least and the greatest value in y."""
    lowest, highest = zip(*((block.min(), block.max()) for _, block in _blocks(y)), strict=True)
    return min(lowest).item(), max(highest).item()


@dataclass(frozen=True, slots=True)
class Labels:
    """What a sparse loss takes: class numbers from 0 to `classes` - 1, and `ignored` where a prediction is left out."""

    classes: int
    ignored: int | None = None


def check_labels(name: str, y: Array, labels: Labels, *, tick: Callable[[], None] = nothing, first: int = 0) -> None:
    """Refuse what is none of `labels`.

    Args:
        first: the array is a part of another one, from this row on.
    """
    for start, block in _blocks(y):
        tick()
        wrong = (block < 0) | (block >= labels.classes)
        if block.dtype.kind == "f":
            wrong |= block != np.rint(block)
        if labels.ignored is not None and wrong.any():
            wrong &= block != labels.ignored
        if wrong.any():
            row = int(wrong.reshape(len(block), -1).any(axis=1).argmax())
            value = block[row][wrong[row]].ravel()[0]
            low, high = label_range(y)
            ignored = "" if labels.ignored is None else f", or {labels.ignored} (ignore_class)"
            raise InvalidInput(
                f"{name} has the label {value} in row {first + start + row:,}, but the model has {labels.classes} "
                f"classes: labels are whole numbers from 0 to {labels.classes - 1}{ignored} (here they go from {low:g} "
                f"to {high:g}); number them anew, or give the last layer as many units as there are classes"
            )


def check_words(name: str, x: Array, words: int) -> None:
    """Refuse what an Embedding of so many words does not know. Fractions are cut off where it runs, as in Keras."""
    for start, block in _blocks(x):
        wrong = (block < 0) | (block >= words)
        if wrong.any():
            row = int(wrong.reshape(len(block), -1).any(axis=1).argmax())
            raise InvalidInput(
                f"{name} has {block[row][wrong[row]].ravel()[0]} in row {start + row:,}, but the model's Embedding "
                f"takes whole numbers from 0 to {words - 1}; a larger input_dim takes more"
            )


def weights_by_class(name: str, y: Array, class_weight: Mapping[int, float]) -> Array:
    """A weight for each row, float32, by its class; classes that `class_weight` leaves out weigh 1, as in Keras.

    The class is y itself, rounded, if y is one column, else the place of the greatest value.
    """
    classes = np.array(sorted(class_weight), dtype=np.int64)
    values = np.array([*(class_weight[int(c)] for c in classes), 1.0], dtype=np.float32)
    result = np.ones(len(y), dtype=np.float32)
    for start, block in _blocks(y):
        rows = block.reshape(len(block), -1)
        labels = _greatest(name, rows, start) if rows.shape[1] > 1 else _rounded(name, rows[:, 0], start)
        at = np.searchsorted(classes, labels)
        known = classes[np.minimum(at, len(classes) - 1)] == labels if len(classes) else np.zeros(len(at), bool)
        result[start : start + len(block)] = values[np.where(known, at, len(classes))]
    return result


def _greatest(name: str, rows: Array, start: int) -> Array:
    """Where each row has its greatest value; rows of classes, one for each step say, are refused."""
    wrong = (rows < 0) | (rows > 1)
    if wrong.any():
        row, column = (int(at[0]) for at in wrong.nonzero())
        raise InvalidInput(
            f"class_weight needs one class a row, but {name} holds {rows[row, column]:g} in row {start + row:,}, which "
            "is no share of a class; where each step has a class, pass sample_weight of shape (rows, steps)"
        )
    found: Array = rows.argmax(axis=1)
    return found


def _rounded(name: str, column: Array, start: int) -> Array:
    """Class numbers; what lies from 0 to 1 may be smoothed, and is rounded."""
    if column.dtype.kind != "f":
        return column.astype(np.int64)
    labels = np.rint(column)
    wrong = (labels != column) & ((column < 0) | (column > 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"class_weight needs classes, but {name} holds {column[row]:g} in row {start + row:,}; for targets "
            "that are measures pass sample_weight"
        )
    return labels.astype(np.int64)


def _blocks(array: Array) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
