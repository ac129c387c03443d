"""The arrays of HDF5: what type and shape they say they are, where their numbers lie, and the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from asyncfit.errors import BadFile

from .hdf5_chunks import chunked
from .hdf5_filters import Filter, pipeline
from .hdf5_image import NOWHERE, Image, Message, unsupported
from .hdf5_text import shape_of
from .saved_model import Array

__all__ = ["Stored", "stored"]

_MOST_ELEMENTS = 1 << 48  # also of an empty array, without the dimensions that are 0
_SPACE, _TYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)
_INTEGER, _FLOAT, _ENUM, _VARIABLE = 0, 1, 8, 9
_CLASSES = ["integers", "floats", "times", "text", "bit fields", "opaque data", "compound data", "references"]
_CLASSES += ["enumerations", "lists", "arrays within an array"]
# Of each size the place and size of exponent and mantissa, and what is added to the exponent.
_IEEE = {2: (10, 5, 0, 10, 15), 4: (23, 8, 0, 23, 127), 8: (52, 11, 0, 52, 1023)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An array in a file, as its header describes it.

    Attributes:
        dtype: None if it is none that can be read here; `kind` says what it is.
        shape: None if it has none.
        elsewhere: its numbers are said to be in another file.
        start, size: where its numbers begin, and how many bytes they are said to have; NOWHERE if they were never
            written. Chunked: where the tree of its chunks is.
        chunk: the shape of a chunk; None if it is in one piece.
        filters: what was done to each chunk.
    """

    dtype: np.dtype[np.generic] | None
    kind: str
    shape: tuple[int, ...] | None
    elsewhere: bool
    start: int
    size: int
    chunk: tuple[int, ...] | None = None
    filters: list[Filter] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """What all of it takes in memory."""
        assert self.dtype is not None
        assert self.shape is not None
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, image: Image) -> Array:
        """The numbers, the caller's own, in native byte order; how many may be read is the caller's business."""
        assert self.dtype is not None
        assert self.shape is not None
        if self.nbytes and self.start == NOWHERE:
            raise BadFile("has a place for an array, but its numbers were never written")
        raw = np.dtype(np.uint8) if self.dtype.kind == "b" else self.dtype
        found: npt.NDArray[np.generic]
        if self.chunk is not None:
            found = chunked(image, self.start, self.shape, self.chunk, raw, self.filters)
        else:
            count = math.prod(self.shape)
            if count and (self.start + self.nbytes > len(image.data) or self.size < self.nbytes):
                raise BadFile("is damaged: an array points past its own end")
            found = np.frombuffer(image.data, raw, count, self.start if count else 0).reshape(self.shape)
        if self.dtype.kind == "b":  # whatever number a hostile file has there
            return np.array(found, bool)
        return np.array(found, dtype=self.dtype.newbyteorder("="), order="C")


def stored(image: Image, address: int) -> Stored | None:
    """The array whose header is at `address`; None if that is no array."""
    messages = {message.kind: message for message in image.messages(address)}
    if _LAYOUT not in messages:
        return None
    if _SPACE not in messages or _TYPE not in messages:
        raise BadFile("is damaged: an array has no shape or no type")
    if any(messages[kind].shared for kind in (_SPACE, _TYPE, _LAYOUT)):
        raise unsupported("types or shapes of arrays")
    space, kind = messages[_SPACE], messages[_TYPE]
    shape = shape_of(image.piece(space.start, space.end - space.start))
    if shape is not None and math.prod(n for n in shape if n) > _MOST_ELEMENTS:
        raise BadFile(f"claims an array of the shape {shape}: refused")
    dtype, what = _type(image.piece(kind.start, kind.end - kind.start))
    filters = pipeline(image, messages[_FILTERS]) if _FILTERS in messages else []
    layout = messages[_LAYOUT]
    version = image.number(layout.start, 1)
    how, start, size, chunk = _old_layout(image, layout) if version < 3 else _layout(image, layout, version)
    if chunk is not None and shape is not None and dtype is not None and len(chunk) != len(shape):
        raise BadFile("is damaged: an array has chunks of another shape")
    return Stored(
        dtype=dtype,
        kind=what,
        shape=shape,
        elsewhere=how == _VIRTUAL or _EXTERNAL in messages,
        start=start,
        size=size,
        chunk=chunk,
        filters=filters,
    )


Layout = tuple[int, int, int, tuple[int, ...] | None]


def _layout(image: Image, message: Message, version: int) -> Layout:
    """Class, place, size and shape of the chunks."""
    at = message.start + 2
    how = image.number(at - 1, 1)
    if how == _COMPACT:
        size = image.number(at, 2)
        if at + 2 + size > message.end:
            raise BadFile("is damaged: an array is longer than its place")
        return how, at + 2, size, None
    if how == _CONTIGUOUS:
        return how, image.number(at, 8), image.number(at + 8, 8), None
    if how == _CHUNKED and version == 3:
        rank = image.number(at, 1)
        chunk = tuple(image.number(at + 9 + 4 * number, 4) for number in range(rank))
        return how, image.number(at + 1, 8), 0, chunk[:-1]
    if how == _VIRTUAL:
        return how, NOWHERE, 0, None
    raise unsupported("arrays")


def _old_layout(image: Image, message: Message) -> Layout:
    """As the versions before 1.6.3 wrote it."""
    at = message.start
    rank, how = image.number(at + 1, 1), image.number(at + 2, 1)
    at += 8
    start = NOWHERE
    if how != _COMPACT:
        start, at = image.number(at, 8), at + 8
    sizes = tuple(image.number(at + 4 * number, 4) for number in range(rank))
    at += 4 * rank
    if how == _CHUNKED:
        return how, start, 0, sizes[:-1]
    if how == _CONTIGUOUS:
        return how, start, math.prod(sizes), None
    size = image.number(at, 4)
    if how != _COMPACT or at + 4 + size > message.end:
        raise BadFile("is damaged: an array is longer than its place")
    return how, at + 4, size, None


def _type(raw: bytes) -> tuple[np.dtype[np.generic] | None, str]:
    """The type in a datatype message, and what to call it."""
    if len(raw) < 8:
        raise BadFile("is damaged: an array has no type")
    kind, bits, size = raw[0] & 15, int.from_bytes(raw[1:4], "little"), int.from_bytes(raw[4:8], "little")
    what = _CLASSES[kind] if kind < len(_CLASSES) else "something unknown"
    if kind == _VARIABLE and bits & 15 == 1:
        what = "text"
    order = ">" if bits & 1 else "<"
    if kind == _INTEGER and size in (1, 2, 4, 8) and raw[8:12] == bytes((0, 0, size * 8, 0)):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}"), what
    if kind == _FLOAT and size in _IEEE and len(raw) >= 20 and not bits & 0x40:
        exponent, width, mantissa, digits, bias = _IEEE[size]
        wanted = bytes((0, 0, size * 8, 0, exponent, width, mantissa, digits)) + bias.to_bytes(4, "little")
        if raw[8:20] == wanted:
            return np.dtype(f"{order}f{size}"), what
    if kind == _ENUM and size == 1 and bits & 0xFFFF == 2 and (raw[8] & 15 if len(raw) > 8 else -1) == _INTEGER:
        names = raw[20:].split(b"\0")
        if b"FALSE" in names and b"TRUE" in names and raw.rstrip(b"\0").endswith(b"\1"):
            return np.dtype(bool), "booleans"
    return None, f"{what} of {size} bytes"
