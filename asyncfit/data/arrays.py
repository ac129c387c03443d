"""`ArrayData`: batches of arrays, shuffled or not, that can be asked for again from any batch of any epoch.

Plain NumPy; nothing async, nothing of models. The arrays are taken as checked (`checks.py`, `values.py`).

A call of `np.take` costs a microsecond or two whatever it gathers, as much as a small network's layer. So a
window of many batches is gathered at once, into a buffer small enough for the cache, and what is handed
out are views of that buffer, made once: a batch then costs a step of an iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Protocol, TypeAlias

import numpy as np

from .order import EpochRange, epoch_range, permutation

__all__ = ["Array", "ArrayData", "Batch", "Source", "target_dtype"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Batch: TypeAlias = tuple[Array, Array | None, Array | None, int]
"""x, y, sample_weight, number of rows."""

WINDOW_BYTES = 256 * 1024
"""How much is gathered at once (at least a batch): measured flat from 128 KiB to 4 MiB, see bench_data.py."""
WINDOW_BATCHES = 1024
"""How many views are made at once, however small the batches."""


class Source(Protocol):
    """Where batches come from. `ArrayData` is the first kind; iterators will be another."""

    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    def steps(self, epoch: int) -> int: ...
    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class ArrayData:
    """Batches of `x`, `y` and `sample_weight`, which are used in place and never copied whole.

    Args:
        x, y, sample_weight: arrays (memory maps stay on disk) of the same number of rows; only x is needed.
        batch_size: rows a batch; the last one of a pass may have fewer.
        shuffle: permute the rows, anew for each pass.
        key: (seed, number of the fit); with the pass it decides the order of the rows.
        steps_per_epoch: batches an epoch; see `epoch_range`. None: an epoch is one pass.
        as_given: for a user's own model. False: x, sample_weight and floating y arrive as float32, integer
            and boolean y as int64. True: everything keeps its type, and batches are always copies that may be
            written to.
        y_dtype: the type in which y arrives, if it shall be another.
    """

    def __init__(
        self,
        x: Array,
        y: Array | None = None,
        sample_weight: Array | None = None,
        *,
        batch_size: int,
        shuffle: bool = False,
        key: tuple[int, int] = (0, 0),
        steps_per_epoch: int | None = None,
        as_given: bool = False,
        y_dtype: np.dtype[Any] | type | None = None,
    ) -> None:
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.samples = len(x)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.key = key
        self.steps_per_epoch = steps_per_epoch
        self.as_given = as_given
        self.y_dtype = y_dtype
        self.batches_per_pass = -(-self.samples // batch_size)
        y_type = None if y is None else np.dtype(y_dtype) if y_dtype is not None else target_dtype(y)
        wanted = ((x, np.dtype(np.float32)), (y, y_type), (sample_weight, np.dtype(np.float32)))
        self._columns = tuple(
            None if array is None else _Column(array, dtype, shuffle=shuffle, as_given=as_given)
            for array, dtype in wanted
        )
        row_bytes = sum(c.row_bytes for c in self._columns if c is not None and not c.direct)
        fitting = max(1, WINDOW_BYTES // max(1, row_bytes * batch_size))
        self._window = min(fitting, WINDOW_BATCHES, self.batches_per_pass, steps_per_epoch or WINDOW_BATCHES)
        self._spare: list[_Workspace] = []  # at most one, for the next generator
        self._last: tuple[int, Array] | None = None  # the order of the pass asked for last: only a cache

    def __reduce__(self) -> tuple[Callable[..., ArrayData], tuple[Any, ...]]:
        return _rebuild, (self.x, self.y, self.sample_weight, self._settings())

    def like(self, x: Array, y: Array | None = None, sample_weight: Array | None = None) -> ArrayData:
        """The same batches of other arrays, say of copies in another process."""
        return _rebuild(x, y, sample_weight, self._settings())

    def range_of(self, epoch: int) -> EpochRange:
        """Which batches of which pass `epoch` has."""
        return epoch_range(epoch, self.batches_per_pass, self.steps_per_epoch)

    def steps(self, epoch: int) -> int:
        """How many batches `epoch` has."""
        return self.range_of(epoch).steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from its batch `start` (from 0), the same bits each time that one asks.

        What is yielded is C-contiguous, and **valid only until the next batch is asked for** or the iterator
        is closed: it is a view of a buffer that is filled again. Views of your own arrays (unshuffled,
        nothing to convert) are read-only. Several iterators may be used at a time, one thread each.
        """
        number, first, steps = self.range_of(epoch)
        if not 0 <= start <= steps:
            raise ValueError(f"epoch {epoch} has {steps} batches: start={start} is none of them")
        return self._iterate(number, first + start, first + steps)

    def _iterate(self, number: int, batch: int, end: int) -> Iterator[Batch]:
        order = self._order(number) if self.shuffle else None
        try:
            space = self._spare.pop()
        except IndexError:
            space = _Workspace(self._columns, self.batch_size, self._window)
        try:
            while batch < end:
                after = min(batch + self._window, end)
                low, high = batch * self.batch_size, min(after * self.batch_size, self.samples)
                yield from space.window(low, high, order)
                batch = after
        finally:
            if not self._spare:
                self._spare.append(space)

    def _order(self, number: int) -> Array:
        last = self._last
        if last is None or last[0] != number:
            self._last = last = (number, permutation(self.samples, self.key, number))
        return last[1]

    def _settings(self) -> dict[str, Any]:
        names = ("batch_size", "shuffle", "key", "steps_per_epoch", "as_given", "y_dtype")
        return {name: getattr(self, name) for name in names}


def _rebuild(x: Array, y: Array | None, sample_weight: Array | None, settings: dict[str, Any]) -> ArrayData:
    return ArrayData(x, y, sample_weight, **settings)


def target_dtype(y: Any) -> np.dtype[Any]:
    """The type in which targets arrive that are not to stay as they are."""
    return np.dtype(np.float32 if y.dtype.kind == "f" else np.int64)


class _Column:
    """One of the arrays, and how its rows are brought into a batch."""

    __slots__ = ("array", "convert", "direct", "dtype", "row_bytes", "takeable")

    def __init__(self, array: Array, dtype: np.dtype[Any] | None, *, shuffle: bool, as_given: bool) -> None:
        self.dtype = array.dtype.newbyteorder("=") if as_given or dtype is None else dtype
        self.convert = self.dtype != array.dtype
        plain = array.flags.c_contiguous and array.flags.aligned
        self.direct = plain and not (self.convert or shuffle or as_given)
        self.takeable = plain  # np.take would first copy the whole of any other array
        if self.direct:
            array = array.view()
            array.flags.writeable = False  # a batch that is written to must not change the caller's data
        self.array = array
        self.row_bytes = self.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))


class _Workspace:
    """The buffers of one iterator, and the views of them that it hands out."""

    __slots__ = ("_batch", "_columns", "_sizes")

    def __init__(self, columns: tuple[_Column | None, ...], batch: int, window: int) -> None:
        self._batch = batch
        self._sizes = [batch] * window
        self._columns = tuple(None if c is None else _Window(c, batch, window) for c in columns)

    def window(self, low: int, high: int, order: Array | None) -> Iterator[Batch]:
        """The batches of the rows `low` to `high`, at most a window of them; only the last may be short."""
        full, rest = divmod(high - low, self._batch)
        rows: slice | Array = slice(low, high) if order is None else order[low:high]
        xs, ys, weights = (repeat(None) if c is None else c.views(rows, full, rest) for c in self._columns)
        sizes = [*self._sizes[:full], rest] if rest else self._sizes[:full]
        return zip(xs, ys, weights, sizes, strict=False)  # type: ignore[arg-type]  # x is never None


class _Window:
    """A column's part of a workspace: room for a window's rows, cut into batches beforehand."""

    __slots__ = ("_batch", "_buffer", "_column", "_cut", "_kept", "_staged")

    def __init__(self, column: _Column, batch: int, window: int) -> None:
        self._column, self._batch = column, batch
        self._buffer: Array | None = None
        self._staged: Array | None = None
        self._cut: list[Array] = []
        self._kept = (0, 0)  # whose rows' views are in _cut, if there is no buffer
        if not column.direct:
            shape = (min(batch * window, len(column.array)), *column.array.shape[1:])
            self._buffer = buffer = np.empty(shape, column.dtype)
            self._cut = [buffer[i : i + batch] for i in range(0, shape[0] - batch + 1, batch)]
            if column.convert and column.takeable:
                self._staged = np.empty(shape, column.array.dtype)

    def views(self, rows: slice | Array, full: int, rest: int) -> list[Array]:
        """Gather `rows` and cut them into `full` batches and one of `rest` rows, if that is not 0."""
        source, buffer, batch = self._column.array, self._buffer, self._batch
        if buffer is None:
            assert isinstance(rows, slice)
            if self._kept != (rows.start, rows.stop):  # a short validation set is asked for again and again
                self._cut = [source[i : i + batch] for i in range(rows.start, rows.stop, batch)]
                self._kept = (rows.start, rows.stop)
            return self._cut
        count = full * batch + rest
        into = buffer[:count]
        if isinstance(rows, slice) or not self._column.takeable:
            np.copyto(into, source[rows], casting="unsafe")
        elif self._staged is None:
            source.take(rows, 0, into, "clip")  # "raise" would gather into a copy first
        else:
            staged = self._staged[:count]
            source.take(rows, 0, staged, "clip")
            np.copyto(into, staged, casting="unsafe")
        cut = self._cut if full == len(self._cut) else self._cut[:full]
        return [*cut, into[full * batch :]] if rest else cut
