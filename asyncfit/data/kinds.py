"""What yields batches, and how it is read: told from arrays of rows by its protocol alone, when `fit` is called.

indexed      `len()` and `[i]`: a Keras-like Sequence: in any order, as often as needed
iterated     `len()` and `iter()`: a DataLoader: iterated anew for each pass
once         an iterator, a generator, whatever has no length: read once
async        `async for`: read on the loop; anew for each pass if it has a length, else once
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from asyncfit.errors import InvalidInput

from .stored import Stored, is_dataset

__all__ = ["BatchSource", "Kind", "batch_source", "is_array"]

Kind = Literal["listed", "indexed", "iterated", "once", "async"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSource:
    """What yields batches.

    Attributes:
        name: `x`, or `validation_data`.
        value: what was given.
        length: batches a pass; None if it is read once.
    """

    name: str
    value: Any
    kind: Kind
    length: int | None = None

    @property
    def once(self) -> bool:
        return self.length is None

    @property
    def rewindable(self) -> bool:
        """Whether a batch can be had again without any other being read, so that work may be undone."""
        if self.kind == "listed":
            return True
        return self.kind == "indexed" and not callable(getattr(self.value, "on_epoch_end", None))

    def steps(self, limit: int | None, option: str) -> int:
        """Batches an epoch, or a pass of an evaluation.

        Raises:
            InvalidInput: nobody knows.
        """
        if self.length is not None:
            return self.length if limit is None else min(self.length, limit)
        if limit is None:
            raise InvalidInput(
                f"{self.name} ({type(self.value).__name__}) yields batches and has no length, so nobody knows how many "
                f"belong together; say so with {option}="
            )
        return limit


def batch_source(name: str, value: Any) -> BatchSource | None:
    """`value` as what yields batches; None if it is rows, or nothing that can be used."""
    if isinstance(value, Stored | str | bytes | bytearray | Mapping | Set) or value is None or isinstance(value, type):
        return None
    if is_array(value) or is_dataset(value) or inspect.iscoroutine(value):
        return None
    if isinstance(value, Sequence):
        if not (len(value) and _is_batch(value[0])):
            return None
        return BatchSource(name=name, value=value, kind="listed", length=len(value))
    if hasattr(value, "__anext__"):
        return BatchSource(name=name, value=value, kind="async")
    length = None if hasattr(value, "__next__") else _length(name, value)
    if hasattr(value, "__aiter__"):
        return BatchSource(name=name, value=value, kind="async", length=length)
    if length is not None and hasattr(value, "__getitem__"):
        return BatchSource(name=name, value=value, kind="indexed", length=length)
    if hasattr(value, "__iter__"):
        return BatchSource(name=name, value=value, kind="once" if length is None else "iterated", length=length)
    return None


def is_array(value: Any) -> bool:
    """Whether it is an array, a frame or a tensor by one of the protocols for those."""
    if isinstance(value, np.ndarray | np.generic | int | float | complex):
        return True
    if any(hasattr(value, name) for name in ("__array__", "__array_interface__", "__dlpack__")):
        return True
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _is_batch(item: object) -> bool:
    """Whether an item of a list is a batch: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, all arrays of rows."""
    return (
        isinstance(item, tuple)
        and 1 <= len(item) <= 3
        and all(part is None or (is_array(part) and getattr(part, "ndim", 0)) for part in item)
        and item[0] is not None
    )


def _length(name: str, value: Any) -> int | None:
    try:
        length = len(value)
    except TypeError:  # none, or one that is not known
        return None
    if length < 1:
        raise InvalidInput(f"{name} yields batches, but its len() is {length}; give at least one batch")
    return length
