"""The attributes of HDF5 objects: texts of fixed and of variable length, and of other types the shape alone."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from asyncfit.errors import BadFile

from .hdf5_image import NOWHERE, Image, unsupported

__all__ = ["Attribute", "Texts", "shape_of"]

_ATTRIBUTE, _ATTRIBUTES = 0x0C, 0x15
_FIXED_TEXT, _VARIABLE = 3, 9
_REFERENCE = struct.Struct("<IQI")  # of a text of variable length: bytes, heap, number in the heap
_OBJECT = struct.Struct("<HHIQ")  # in a heap: number (0 is free space), -, -, bytes


@dataclass(frozen=True, slots=True)
class Attribute:
    """`shape` is () for a scalar, None for one that has no value; `texts` is None if it is of another type."""

    shape: tuple[int, ...] | None
    texts: list[bytes] | None


class Texts:
    """The attributes in one file, with a budget for how much text they may come to."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._left = 4 * len(image.data)  # several texts may share one place in a heap, but not without end
        self._known: dict[int, dict[str, Attribute]] = {}
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def of(self, address: int) -> dict[str, Attribute]:
        """The attributes of the object whose header is at `address`."""
        if address in self._known:
            return self._known[address]
        found = self._known[address] = {}
        for message in self._image.messages(address):
            if message.kind == _ATTRIBUTE:
                if message.shared:
                    raise BadFile("is damaged, or keeps attributes in a way that is not supported")
                name, attribute = self._attribute(message.start, message.end)
                found[name] = attribute
            elif message.kind == _ATTRIBUTES and self._image.number(message.start + 1, 1) < 4:
                at = message.start + 2 + (2 if self._image.number(message.start + 1, 1) & 1 else 0)
                if self._image.number(at, 8) != NOWHERE:
                    raise unsupported("attributes")
        return found

    def _attribute(self, at: int, end: int) -> tuple[str, Attribute]:
        version, flags = self._image.number(at, 1), self._image.number(at + 1, 1)
        sizes = [self._image.number(at + n, 2) for n in (2, 4, 6)]
        if version not in (1, 2, 3) or (version > 1 and flags & 3):
            raise BadFile("is damaged, or keeps attributes in a way that is not supported")
        at += 9 if version == 3 else 8
        parts = []
        for size in sizes:
            parts.append((at, at + size))
            at += (size + 7) // 8 * 8 if version == 1 else size
        if at > end:
            raise BadFile("is damaged: an attribute is longer than its place")
        raw, kind, space = (self._image.piece(start, stop - start) for start, stop in parts)
        name = raw.rstrip(b"\0").decode(errors="replace")
        shape = shape_of(space)
        if len(kind) < 8 or kind[0] & 15 not in (_FIXED_TEXT, _VARIABLE) or shape is None:
            return name, Attribute(shape, None)
        count, width = math.prod(shape), int.from_bytes(kind[4:8], "little")
        variable = kind[0] & 15 == _VARIABLE
        if variable and (kind[1] & 15 != 1 or width != _REFERENCE.size):
            return name, Attribute(shape, None)
        if count * width > end - at or (count and not width):
            raise BadFile(f"is damaged: attribute {name} is longer than its place")
        places = range(at, at + count * width, width) if count else range(0)
        read = self._from_heap if variable else lambda place: self._image.piece(place, width).split(b"\0", 1)[0]
        return name, Attribute(shape, [read(place) for place in places])

    def _from_heap(self, at: int) -> bytes:
        length, heap, index = _REFERENCE.unpack(self._image.piece(at, _REFERENCE.size))
        if not length:
            return b""
        if heap not in self._heaps:
            self._heaps[heap] = self._heap(heap)
        place, size = self._heaps[heap].get(index, (0, 0))
        self._left -= length
        if length > size or self._left < 0:
            raise BadFile("is damaged: a text is longer than its place")
        return self._image.piece(place, length).split(b"\0", 1)[0]

    def _heap(self, at: int) -> dict[int, tuple[int, int]]:
        if self._image.piece(at, 4) != b"GCOL":
            raise BadFile("is damaged: a text is not where it should be")
        end = at + self._image.number(at + 8, 8)
        self._image.piece(at, end - at)
        self._image.spend(end - at)
        found: dict[int, tuple[int, int]] = {}
        at += 16
        while at + _OBJECT.size <= end:
            index, _, _, size = _OBJECT.unpack(self._image.piece(at, _OBJECT.size))
            if index == 0:  # free space, up to the end
                break
            at += _OBJECT.size
            if at + size > end:
                raise BadFile("is damaged: a text is longer than its place")
            found[index] = at, size
            at += (size + 7) // 8 * 8
        return found


def shape_of(space: bytes) -> tuple[int, ...] | None:
    """The shape in a dataspace message; None for the null space."""
    version, rank = space[:1], space[1] if len(space) > 1 else 0
    start = 8 if version == b"\1" else 4
    if version not in (b"\1", b"\2") or len(space) < start + 8 * rank or rank > 32:
        raise BadFile("is damaged: an attribute has no shape")
    if version == b"\2" and space[3] == 2:
        return None
    return struct.unpack_from(f"<{rank}Q", space, start)
