"""`StoredData`: batches of rows that stay in HDF5 files, read ahead by a thread of its own.

The rows are read in *blocks* that lie together in the file, whole chunks of it where it has chunks. With `shuffle` the
blocks of a pass come in an order that is a permutation of all of them; the rows of `WINDOW_BYTES` of them at a time are
in memory, and come in an order that is a permutation of all rows there. So every row comes once a pass, the rows of a
batch are from many places of the file, and each read is a contiguous one. Both permutations are functions of the seed,
the number of the fit and the pass.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from .arrays import Array, Batch, target_dtype
from .order import EpochRange, epoch_range, permutation
from .stored import Stored
from .values import Labels, check_finite, check_labels

__all__ = ["StoredData"]

BLOCK_BYTES = 256 * 1024
"""About so much is read at once when the rows are shuffled; at least a chunk of the file, and a row."""
WINDOW_BYTES = 16 * 1024 * 1024
"""The rows of so much are shuffled among each other. At most two windows more are in memory."""

Column = Array | Stored


class StoredData:
    """Batches of `x`, `y` and `sample_weight`, some of which are `Stored`; the rest are arrays in memory.

    Arguments and attributes are those of `ArrayData`. `labels`, once they are set, say what class numbers y may hold:
    each label in `y` is checked when it is read.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int,
        shuffle: bool = False,
        key: tuple[int, int] = (0, 0),
        steps_per_epoch: int | None = None,
        as_given: bool = False,
    ) -> None:
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.samples = len(x)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.key = key
        self.steps_per_epoch = steps_per_epoch
        self.as_given = as_given
        self.labels: Labels | None = None
        self.batches_per_pass = -(-self.samples // batch_size)
        self._columns: list[Column] = [column for column in (x, y, sample_weight) if column is not None]
        stored = [column for column in self._columns if isinstance(column, Stored)]
        row_bytes = max(1, sum(column.row_bytes for column in stored))
        together = math.lcm(*(column.chunk_rows for column in stored))
        if together > max(column.chunk_rows for column in stored) * 16:
            together = max(column.chunk_rows for column in stored)
        self.block_rows = together * max(1, round(BLOCK_BYTES / (together * row_bytes)))
        self.window_blocks = max(1, WINDOW_BYTES // (self.block_rows * row_bytes))

    def __reduce__(self) -> tuple[Callable[..., StoredData], tuple[Any, ...]]:
        names = ("batch_size", "shuffle", "key", "steps_per_epoch", "as_given")
        settings = {name: getattr(self, name) for name in names}
        kept = {name: getattr(self, name) for name in ("labels", "block_rows", "window_blocks")}
        return _rebuild, (self.x, self.y, self.sample_weight, settings, kept)

    def check_portable(self) -> None:
        """Refuse what another process cannot open."""
        for column in self._columns:
            if isinstance(column, Stored):
                column.check_portable()

    def range_of(self, epoch: int) -> EpochRange:
        """Which batches of which pass `epoch` has."""
        return epoch_range(epoch, self.batches_per_pass, self.steps_per_epoch)

    def steps(self, epoch: int) -> int:
        """How many batches `epoch` has."""
        return self.range_of(epoch).steps

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of `epoch` from its batch `start` (from 0), the same bits each time that one asks.

        What is yielded is **valid only until the next batch is asked for** or the iterator is closed. A thread reads
        ahead from the first batch on, until the iterator is closed.

        Raises:
            InvalidInput: (from the iterator) numbers that are not finite, labels that are no classes.
            Exception: (from the iterator) what h5py raises.
        """
        number, first, steps = self.range_of(epoch)
        if not 0 <= start <= steps:
            raise ValueError(f"epoch {epoch} has {steps} batches: start={start} is none of them")
        return self._iterate(number, first + start, first + steps)

    def _iterate(self, number: int, batch: int, end: int) -> Generator[Batch, None, None]:
        if batch >= end:
            return
        size, rows = self.batch_size, self.samples
        windows = _Windows(self, number, batch * size, min(end * size, rows))
        pieces: list[tuple[Array | None, ...]] = []  # of a batch that lies in several windows
        gathered = 0
        try:
            for window, count in windows:
                at = 0
                while at < count:
                    whole = min(size, rows - batch * size)
                    take = min(whole - gathered, count - at)
                    part = tuple(None if column is None else column[at : at + take] for column in window)
                    at, gathered = at + take, gathered + take
                    if gathered == whole:
                        yield _joined([*pieces, part], whole)
                        batch, gathered = batch + 1, 0
                        pieces.clear()
                    else:
                        pieces.append(tuple(None if column is None else column.copy() for column in part))
        finally:
            windows.close()

    # --- in the reading thread ---------------------------------------------------------------------------------------

    def layout(self, number: int) -> tuple[Array, Array]:
        """The order of the blocks in a pass, and at which row of the pass each window begins, the end included."""
        blocks, per = -(-self.samples // self.block_rows), self.window_blocks
        order = permutation(blocks, self.key, number) if self.shuffle else np.arange(blocks)
        rows = np.full(blocks, self.block_rows)
        rows[order == blocks - 1] = self.samples - (blocks - 1) * self.block_rows
        begins = np.concatenate([[0], np.cumsum(np.add.reduceat(rows, np.arange(0, blocks, per)))])
        return order, begins

    def read_window(self, number: int, window: int, blocks: Array) -> tuple[list[Array | None], int]:
        """The rows of these blocks, in the order in which they are trained on."""
        block, rows = self.block_rows, self.samples
        spans: list[list[int]] = []
        for begin in (np.sort(blocks) * block).tolist():
            if spans and spans[-1][1] == begin:
                spans[-1][1] = min(begin + block, rows)
            else:
                spans.append([begin, min(begin + block, rows)])
        count = sum(stop - start for start, stop in spans)
        order = permutation(count, self.key, number, window + 1) if self.shuffle else None
        where = None
        read: list[Array | None] = []
        for name, column in (("x", self.x), ("y", self.y), ("sample_weight", self.sample_weight)):
            if column is None:
                read.append(None)
                continue
            if isinstance(column, Stored):
                raw = np.empty((count, *column.shape[1:]), column.dtype)
                at = 0
                for start, stop in spans:
                    part = raw[at : at + stop - start]
                    column.read(start, stop, part)
                    self._check(name, column.name, part, start)
                    at += stop - start
                taken = raw if order is None else raw[order]
            else:
                if where is None:
                    where = np.concatenate([np.arange(start, stop) for start, stop in spans])
                    where = where if order is None else where[order]
                taken = column[where]
            read.append(np.ascontiguousarray(taken, self._dtype(name, column)))
        return read, count

    def _dtype(self, name: str, column: Column) -> np.dtype[Any]:
        if self.as_given:
            return column.dtype.newbyteorder("=")
        return target_dtype(column) if name == "y" else np.dtype(np.float32)

    def _check(self, role: str, name: str, part: Array, first: int) -> None:
        check_finite(name, part, as_given=self.as_given, first=first)
        if role == "y" and self.labels is not None:
            check_labels(name, part, self.labels, first=first)


def _rebuild(x: Any, y: Any, weight: Any, settings: dict[str, Any], kept: dict[str, Any]) -> StoredData:
    data = StoredData(x, y, weight, **settings)
    data.__dict__.update(kept)
    return data


def _joined(pieces: list[tuple[Array | None, ...]], size: int) -> Batch:
    if len(pieces) == 1:
        x, y, weight = pieces[0]
    else:
        x, y, weight = (None if parts[0] is None else np.concatenate(parts) for parts in zip(*pieces, strict=True))
    assert x is not None
    return x, y, weight, size


class _Windows:
    """The windows of a pass from row `start` to `stop` of it, one read while the one before it is trained on."""

    def __init__(self, data: StoredData, number: int, start: int, stop: int) -> None:
        self._data, self._number, self._start, self._stop = data, number, start, stop
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(2)
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="asyncfit reading", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[tuple[Array | None, ...], int]]:
        while True:
            window = self._ready.get()
            if window is None:
                return
            if isinstance(window, BaseException):
                raise window
            yield window
            self._wanted.release()

    def _read(self) -> None:
        try:
            order, begins = self._data.layout(self._number)
            per = self._data.window_blocks
            for window in range(int(np.searchsorted(begins, self._start, "right")) - 1, len(begins) - 1):
                begin = int(begins[window])
                if begin >= self._stop:
                    break
                self._wanted.acquire()
                if self._closed:
                    return
                read, count = self._data.read_window(self._number, window, order[window * per : (window + 1) * per])
                low, high = max(0, self._start - begin), min(count, self._stop - begin)
                cut = tuple(None if column is None else column[low:high] for column in read)
                self._ready.put((cut, high - low))
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def close(self) -> None:
        """Wait for the thread, which may be reading."""
        self._closed = True
        self._wanted.release()
        self._thread.join()
