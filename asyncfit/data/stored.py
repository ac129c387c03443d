"""`Stored`: rows of an HDF5 data set, whose numbers stay in the file until somebody asks for some of them.

h5py has one lock for the whole process, so each call may take as long as somebody else's: none of this belongs on an
event loop. h5py itself is not imported here: whoever has a data set has imported it.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array

__all__ = ["LOAD_BYTES", "Stored", "is_dataset", "opened"]

LOAD_BYTES = 64 * 1024 * 1024
"""A data set of up to so many bytes is read into memory when the run starts, and is an array from then on."""


def is_dataset(value: object) -> bool:
    """Whether it is an `h5py.Dataset`. Asks h5py nothing: this may be on the loop."""
    return any(c.__name__ == "Dataset" and c.__module__.partition(".")[0] == "h5py" for c in type(value).__mro__)


class Stored:
    """Rows `start` to `stop` of `dataset`: shape and type as of an array, and slices of rows are arrays.

    Args:
        dataset: an open `h5py.Dataset`.
        name: how messages call it.
    """

    def __init__(self, dataset: Any, name: str, start: int = 0, stop: int | None = None) -> None:
        self.dataset, self.name, self.start = dataset, name, start
        self.shape: tuple[int, ...] = ((dataset.shape[0] if stop is None else stop) - start, *dataset.shape[1:])
        self.dtype: np.dtype[Any] = dataset.dtype
        chunks = dataset.chunks
        self.chunk_rows: int = chunks[0] if chunks else 1

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def nbytes(self) -> int:
        return len(self) * self.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        into = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        self.read(start, stop, into)
        return into

    def part(self, start: int, stop: int) -> Stored:
        """Some of its rows, not read yet."""
        return Stored(self.dataset, self.name, self.start + start, self.start + stop)

    def read(self, start: int, stop: int, into: Array) -> None:
        """Read rows into an array of the same type.

        Raises:
            Exception: what h5py raises; a note says what was read.
        """
        if start >= stop:
            return
        try:
            self.dataset.read_direct(into, np.s_[self.start + start : self.start + stop])
        except Exception as error:
            error.add_note(f"when rows {start:,} to {stop - 1:,} of {self.name} were read from the HDF5 file")
            raise

    # --- in another process ------------------------------------------------------------------------------------------

    def check_portable(self) -> None:
        """Refuse what another process cannot open by its name."""
        file = self.dataset.file
        if file.driver not in ("sec2", "stdio", "direct") or not os.path.isfile(file.filename):
            problem, way = f"lies in no file of its own (h5py driver {file.driver!r})", "write it to a file"
        elif file.mode != "r":
            problem, way = (
                f"is open for writing (mode {file.mode!r})",
                f"open it with h5py.File({file.filename!r}, 'r')",
            )
        elif self.dataset.name is None:
            problem, way = "has no name in its file", "give it one"
        else:
            return
        raise InvalidInput(
            f"{self.name} cannot be read in a process of its own: the HDF5 data set {problem}; {way}, or train with "
            "executor='thread'"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        file = self.dataset.file
        known = os.stat(file.filename)
        return _reopened, (
            os.path.abspath(file.filename), self.dataset.name, self.name, self.start, self.start + len(self),
            self.dataset.shape, self.dtype.str, (known.st_dev, known.st_ino),
        )  # fmt: skip


def _reopened(
    path: str, within: str, name: str, start: int, stop: int, shape: Any, dtype: str, known: tuple[int, int]
) -> Stored:
    import h5py

    file = os.stat(path)
    dataset = h5py.File(path, "r").get(within)
    same = (file.st_dev, file.st_ino) == known
    if not same or dataset is None or dataset.shape != tuple(shape) or dataset.dtype.str != dtype:
        raise InvalidInput(f"{path} is not the file any more that {name} was opened from")
    return Stored(dataset, name, start, stop)


def opened(name: str, value: Any, *, load: bool = False) -> Any:
    """What stands for `value` from now on: an array, or rows that stay in the file; all but data sets as it is.

    Args:
        load: read it into memory, however big.

    Raises:
        InvalidInput: it is closed, empty, or holds no numbers.
    """
    if not is_dataset(value):
        return value
    if not value:
        raise InvalidInput(f"{name} is a data set of an HDF5 file that has been closed; keep it open until the end")
    if value.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} is an HDF5 data set with dtype {value.dtype} where numbers are needed")
    if not value.shape or 0 in value.shape:
        raise InvalidInput(
            f"{name} is an HDF5 data set of shape {value.shape}; give one with at least one row and one number a row"
        )
    if load or value.size * value.dtype.itemsize <= LOAD_BYTES:
        return value[()]
    return Stored(value, name)
