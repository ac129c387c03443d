"""Checkpoints: one file that Keras opens as a model and that holds all that a run needs to go on.

Its bytes, in this order, each part at a page boundary::

    metadata of HDF5     groups and attributes, and where each array lies; made once for each layout
    arrays               small ones together, each other one at a page; the model's weights are parts of them
    record               JSON: the run, and name, type, shape, place and checksum of each array; room behind it
    trailer              one page, behind the end of what HDF5 sees: place and checksum of the record

So HDF5 tools see a model as Keras writes it, and a group `asyncfit` with every array and the record. `read` goes by
the trailer alone: a file that somebody made to do harm never meets libhdf5. Plain synchronous code for a worker
thread.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncfit.checkpoints import Segment, write_segments
from asyncfit.errors import InvalidInput

from . import assembly, checkpoint_record, keras_h5_writer
from .checkpoint_reader import read, read_run
from .checkpoint_trailer import LONGEST_RECORD, Trailer
from .checksums import checksum
from .saved_model import Array, SavedModel
from .skeleton import PAGE, Skeleton, declare

__all__ = ["Saved", "Writer", "read", "read_run"]

_GROUP, _RECORD = "asyncfit/arrays", "asyncfit/run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        model: what Keras reads; None for a model of one's own. Where its arrays are views of those in `arrays`, they
            take no room of their own.
        arrays: by free names; a `/` makes groups of them in the file.
        run: all else, in JSON's types; numbers come back exactly, NaN and infinities too.
    """

    model: SavedModel | None
    arrays: Mapping[str, Array]
    run: Mapping[str, Any]


class Writer:
    """Writes checkpoints; one for each target, for one thread at a time.

    It keeps the metadata of the last one and uses it again if the next is alike, but for numbers and texts: then
    h5py is not called at all.
    """

    def __init__(self) -> None:
        self._layout: _Layout | None = None

    def write(self, path: str | os.PathLike[str], saved: Saved) -> int:
        """Make `path` hold `saved`, whole or not at all, on the disk when this returns.

        Returns:
            The size of the file in bytes.

        Raises:
            CheckpointError: it cannot be written; what was there before is still there.
            InvalidInput: it holds what cannot be kept: an array not of numbers, a run that is not JSON.
        """
        content = _Content(saved)
        segments = self._layout.segments(content) if self._layout is not None else None
        if segments is None:
            self._layout = _Layout(content)
            segments = self._layout.segments(content)
            assert segments is not None  # it was made for this
        return write_segments(path, segments)


class _Content:
    """What is to be written, with its arrays contiguous.

    Attributes:
        arrays: those of the run, then those of the model that are not parts of them.
        names: of those of the run.
        shared: of the model's arrays, by path: the number of the array that each lies in, and where in it.
        form: all that decides what the metadata looks like, but for texts.
    """

    def __init__(self, saved: Saved) -> None:
        self.names = list(saved.arrays)
        self.arrays = [_contiguous(name, array) for name, array in saved.arrays.items()]
        self.model = None if saved.model is None else keras_h5_writer.Description(saved.model)
        self.texts = {} if self.model is None else dict(self.model.texts)
        self.checks = [checksum(array) for array in self.arrays]
        self.run = saved.run
        self.shared: dict[str, tuple[int, int]] = {}
        where = _Places(self.arrays)
        for path, array in self.model.arrays.items() if self.model is not None else ():
            place = where.of(array)
            if place is None:
                place = len(self.arrays), 0
                self.arrays.append(array)
            self.shared[path] = place
        self.form = (
            tuple(self.names),
            tuple((array.dtype.str, array.shape) for array in self.arrays),
            tuple(self.shared.items()),
            None if self.model is None else self.model.form(),
        )

    def record(self, offsets: Iterable[int]) -> bytes:
        parts = zip(self.names, self.arrays, offsets, self.checks, strict=False)  # the model's own have no name
        text = checkpoint_record.encoded(
            self.run, [checkpoint_record.Entry(name, a.dtype, a.shape, at, check) for name, a, at, check in parts]
        )
        if len(text) > LONGEST_RECORD:
            raise InvalidInput(f"what is to be kept of the run has {len(text):,} bytes; {LONGEST_RECORD:,} can be kept")
        return text


class _Layout:
    """A file's metadata, and where everything goes."""

    def __init__(self, content: _Content) -> None:
        self._form = content.form
        self._offsets: list[int] = []
        # Numbers within the texts get longer and shorter: room for that, so that the metadata can stay as it is.
        self._texts = {name: text.ljust(_roomy(len(text), 64)) for name, text in content.texts.items()}
        longest = content.record([1 << 62] * len(content.arrays))
        self._room = _roomy(len(longest) + len(longest) // 4, PAGE)
        paths = _paths(content.names)

        def fill(file: Any) -> None:
            if content.model is not None:
                content.model.texts = self._texts
                content.model.fill(file)
            for path, array in zip(paths, content.arrays, strict=False):
                declare(file, path, array.dtype, array.shape)
            declare(file, _RECORD, np.dtype(f"S{self._room}"), ())

        def lay(start: int) -> tuple[Mapping[str, int], int]:
            self._offsets, self._record = assembly.lay([array.nbytes for array in content.arrays], start)
            own = {f"/{path}": at for path, at in zip(paths, self._offsets, strict=False)}
            shared = {path: self._offsets[number] + at for path, (number, at) in content.shared.items()}
            return {**own, **shared, f"/{_RECORD}": self._record}, self._record + self._room

        self._skeleton = Skeleton(fill, lay)
        self._found = {name: self._skeleton.find(text) for name, text in self._texts.items()}

    def segments(self, content: _Content) -> list[Segment] | None:
        """The blocks of the file with that content; None if it needs another layout."""
        if content.form != self._form or content.texts.keys() != self._texts.keys():
            return None
        record = content.record(self._offsets)
        if len(record) > self._room or not all(self._replace(*text) for text in content.texts.items()):
            return None
        end = self._record + self._room
        trailer = Trailer(self._record, len(record), zlib.crc32(record), end + PAGE)
        return [
            (0, self._skeleton.data),
            *assembly.gathered(content.arrays, self._offsets),
            (self._record, record.ljust(self._room)),
            (end, trailer.to_bytes()),
        ]

    def _replace(self, name: str, text: str) -> bool:
        if text == self._texts[name].rstrip():
            return True
        place = self._found[name]
        self._texts[name] = text
        return place is not None and self._skeleton.replace(place, text)


class _Places:
    """Finds arrays that are parts of others, by where they lie in memory."""

    def __init__(self, arrays: Iterable[Array]) -> None:
        known = [(_address(array), number, array.nbytes) for number, array in enumerate(arrays) if array.nbytes]
        self._known = sorted(known)

    def of(self, array: Array) -> tuple[int, int] | None:
        """The number of the array that this one lies in, and where in it; None if in none."""
        start = _address(array)
        found = bisect_right(self._known, start, key=lambda known: known[0]) - 1
        if found < 0 or not array.nbytes:
            return None
        begin, number, size = self._known[found]
        return (number, start - begin) if start + array.nbytes <= begin + size else None


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _contiguous(name: str, array: Array) -> Array:
    array = np.asarray(array)
    if array.dtype.kind not in "biufc":
        raise InvalidInput(f"the array {name!r} is of type {array.dtype}; a checkpoint holds arrays of numbers")
    return np.asarray(array, order="C")


def _roomy(size: int, step: int) -> int:
    return (size // step + 2) * step


def _paths(names: Iterable[str]) -> list[str]:
    """Where the arrays of these names are in the file: the same as far as HDF5 can, and none in the way of another."""
    arrays: set[str] = set()
    groups: set[str] = set()
    found = []
    for name in names:
        parts = [_part(part) for part in name.split("/")]
        path = "/".join(parts)
        above = {"/".join(parts[:end]) for end in range(1, len(parts))}
        if path in arrays or path in groups or above & arrays:
            path, above = path.replace("/", "%2F"), set()
            while path in arrays or path in groups:
                path += "%"
        arrays.add(path)
        groups |= above
        found.append(f"{_GROUP}/{path}")
    return found


def _part(part: str) -> str:
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or "%"
    return part.replace("\0", "%00").encode("utf-8", "backslashreplace").decode()
