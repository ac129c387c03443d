"""What users pass as x, y and sample_weight: taken in at once, and checked as far as that needs no look at values.

For an array that is a few comparisons, whatever its size, so it may be done on the event loop. What would have to
be converted first, and is long, is only measured here; `Given.load`, called off the loop, does the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array
from .stored import Stored

__all__ = ["CONVERT_AT_ONCE", "Given", "Rows", "take_in"]

CONVERT_AT_ONCE = 10_000
"""A list of up to so many numbers is converted at once (about 0.6 ms), a longer one off the loop."""

_ACCEPTED = (
    "NumPy arrays, lists, tuples, memory maps, HDF5 data sets and whatever else np.asarray makes an array of numbers"
)


@dataclass(frozen=True, slots=True)
class Given:
    """One array as the user knows it: by its name and its rows.

    Attributes:
        name: `x`, `validation_data[1]`, ...
        rows: how many there are.
        array: None if it has to be converted first.
        raw: what was given; None once it is an array.
    """

    name: str
    rows: int
    array: Array | None = None
    raw: Any = None

    def load(self) -> Given:
        """With the array, and its type and shape checked; raises InvalidInput. Takes as long as converting takes."""
        return self if self.array is not None else _converted(self.name, self.raw)

    @property
    def loaded(self) -> Array:
        assert self.array is not None
        return self.array


@dataclass(frozen=True, slots=True)
class Rows:
    """x and, row by row, what belongs to it."""

    x: Given
    y: Given | None = None
    sample_weight: Given | None = None

    def all(self) -> list[Given]:
        return [g for g in (self.x, self.y, self.sample_weight) if g is not None]

    def arrays(self) -> tuple[Array, Array | None, Array | None]:
        y, w = self.y, self.sample_weight
        return self.x.loaded, None if y is None else y.loaded, None if w is None else w.loaded

    def load(self, *, own_model: bool = False) -> Rows:
        """With all arrays; see `Given.load`."""
        y, w = self.y, self.sample_weight
        return Rows(self.x.load(), y and y.load(), w and w.load()).checked(own_model=own_model)

    def checked(self, *, own_model: bool = False) -> Rows:
        """With lengths compared and one weight a row, or one for each of a row's targets, such as those of its steps.

        `own_model` may have weights of any shape.
        """
        for given in self.all()[1:]:
            if given.rows != self.x.rows:
                raise InvalidInput(
                    f"{self.x.name} has {self.x.rows:,} rows but {given.name} has {given.rows:,}; each row of "
                    f"{self.x.name} needs one{_length_hint(self.x, given)}"
                )
        weight = self.sample_weight
        if weight is None or weight.array is None or own_model or weight.array.ndim == 1:
            return self
        if weight.array.shape[1:] == (1,):  # as in Keras
            return replace(self, sample_weight=replace(weight, array=weight.array[:, 0]))
        y = None if self.y is None else self.y.array
        if y is not None and y.shape[: weight.array.ndim] == weight.array.shape:  # the model knows whether it has steps
            return self
        raise InvalidInput(
            f"{weight.name} has shape {weight.array.shape}; give one weight a row, shape ({weight.rows},), or one for "
            "each step of the targets, shape (rows, steps)"
        )


def take_in(name: str, value: object) -> Given:
    """Take what was given as `name`; raises InvalidInput for what can be no array of numbers."""
    if isinstance(value, np.ndarray):
        return _converted(name, value)
    if isinstance(value, Stored):
        return Given(name, len(value), value)  # type: ignore[arg-type]  # as far as it is one
    if isinstance(value, str | bytes | bytearray | Mapping) or value is None:
        raise _refused(name, value)
    if _from_h5py(value):  # not even its shape: h5py has one lock, and whoever holds it would hold the loop
        raise InvalidInput(f"{name} is an HDF5 {type(value).__name__}; read it first, for example with {name}[:]")
    shape = getattr(value, "shape", None)
    if isinstance(value, int | float | complex | np.generic) or _is_buffer(value):
        return _converted(name, value)  # nothing to convert, or hardly
    if isinstance(value, Sequence):
        rows, size = len(value), _estimate(value)
    elif any(hasattr(value, name) for name in ("__array__", "__array_interface__", "__dlpack__")):
        known = isinstance(shape, tuple) and shape and all(isinstance(n, int) for n in shape)
        rows, size = (shape[0], prod(shape)) if shape and known else (0, 0)  # unknown: converted at once
    else:
        raise _refused(name, value)
    return Given(name, rows, None, value) if size > CONVERT_AT_ONCE else _converted(name, value)


def _converted(name: str, value: Any) -> Given:
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmask(value) is not np.ma.nomask:
        raise InvalidInput(f"{name} is a masked array; fill what is masked first: {name}.filled(0.0)")
    try:
        alone = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        array = np.from_dlpack(value) if alone and not hasattr(value, "__array_interface__") else np.asarray(value)
    except (ValueError, TypeError, OverflowError, BufferError, RuntimeError) as error:
        raise InvalidInput(_why_no_array(name, value, error)) from error
    kind = array.dtype.kind
    if kind not in "fiub":
        raise InvalidInput(f"{name} {_wrong_kind(name, value, array)}")
    if array.ndim == 0:
        raise InvalidInput(f"{name} is a single number ({array}); give an array with one row a sample")
    if array.size == 0:
        raise InvalidInput(f"{name} is empty (shape {array.shape}); give at least one row and one number a row")
    return Given(name, len(array), array)


def _wrong_kind(name: str, value: object, array: Array) -> str:
    kind, dtype = array.dtype.kind, array.dtype
    if kind in "US":
        hint = f"; number the classes: np.unique({name}, return_inverse=True)[1]" if array.ndim == 1 else ""
        return f"holds text (dtype {dtype}) where numbers are needed{hint}"
    if kind == "O":
        return (
            f"holds Python objects (dtype object{_first_stranger(array)}) where numbers are needed; if they all "
            f"are numbers, or arrays of one shape, make it np.array({name}.tolist(), dtype='float32')"
        )
    if kind in "mM":
        return f"holds times (dtype {dtype}) where numbers are needed; say in which unit: {name}.astype('int64')"
    if kind == "c":
        return f"holds complex numbers (dtype {dtype}); give real ones: np.stack([{name}.real, {name}.imag], -1)"
    return f"has dtype {dtype} where numbers are needed"


def _first_stranger(array: Array) -> str:
    for place, item in enumerate(array.flat):
        if not isinstance(item, int | float | np.number | np.ndarray | list):
            return f"; row {place * len(array) // array.size} holds {item!r:.40}" if array.ndim else ""
        if place == 2 * CONVERT_AT_ONCE:  # this may run on the loop
            break
    return ""


def _why_no_array(name: str, value: object, error: Exception) -> str:
    if isinstance(value, Sequence):
        lengths = [len(row) if hasattr(row, "__len__") else None for row in value]
        for row, length in enumerate(lengths):
            if length != lengths[0]:
                return (
                    f"{name} is ragged: row {row} {_has(length)} where row 0 {_has(lengths[0])}; pad or cut the "
                    "rows to one length"
                )
        if "inhomogeneous" in str(error):
            return f"{name} is ragged: its rows differ in shape further in; pad or cut them to one shape"
    return f"{name} cannot be made an array of numbers: {error}"


def _has(length: int | None) -> str:
    return "is a single value" if length is None else f"has {length} value{'s' if length != 1 else ''}"


def _refused(name: str, value: object) -> InvalidInput:
    kind = type(value).__name__
    if value is None:
        return InvalidInput(f"{name} is None; give {_ACCEPTED}")
    if inspect.iscoroutine(value):
        value.close()  # else a "never awaited" warning follows the error
        return InvalidInput(f"{name} is a coroutine; await it first")
    if isinstance(value, Mapping):
        return InvalidInput(f"{name} is a {kind}; models have one input and one target: give one array")
    if hasattr(value, "toarray"):
        return InvalidInput(f"{name} is a sparse {kind}; make it dense: {name}.toarray()")
    streams = any(hasattr(value, a) for a in ("__iter__", "__next__", "__aiter__", "__anext__", "__getitem__"))
    streams = streams and not isinstance(value, str | bytes | bytearray)
    hint = f"; gather its rows first, for example np.stack([row for row in {name}])" if streams else ""
    if hasattr(value, "__aiter__"):
        hint = f"; gather its rows first, for example np.stack([row async for row in {name}])"
    return InvalidInput(f"{name} is of type {kind}, but arrays are expected: {_ACCEPTED}{hint}")


def _estimate(value: Any) -> int:
    """About how many numbers are in nested sequences, by the first of each."""
    size = 1
    while isinstance(value, Sequence) and not isinstance(value, str | bytes):
        size *= len(value)
        if not value:
            return size
        value = value[0]
    return size * prod(getattr(value, "shape", None) or (1,))


def _length_hint(x: Given, other: Given) -> str:
    array = x.array
    if array is not None and array.ndim == 2 and array.shape[1] == other.rows:
        return f"; are rows and columns exchanged? {x.name}.T has {other.rows:,} rows"
    return ""


def _from_h5py(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "h5py"


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True
