"""The attributes of an HDF5 object, read from the bytes of the file, without libhdf5.

libhdf5 holds one lock for the whole process and cannot be interrupted. Given a damaged length or heap of a
text attribute it loops for ever, or fills gigabytes (2.0.0, and those before). So the texts are read here,
with every offset and length checked; groups and arrays, which it checks well, are left to it. Known are texts of
fixed and of variable length, and of other types the shape alone. Nothing here knows of models.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from asyncfit.errors import BadFile

from .hdf5_headers import Headers

__all__ = ["Attribute", "Texts"]

_ATTRIBUTE, _SHARED = 0x0C, 0x02
_FIXED_TEXT, _VARIABLE = 3, 9
_REFERENCE = struct.Struct("<IQI")  # of a text of variable length: bytes, heap, number in the heap
_OBJECT = struct.Struct("<HHIQ")  # in a heap: number (0 is free space), -, -, bytes


@dataclass(frozen=True, slots=True)
class Attribute:
    """`shape` is () for a scalar, None for one that has no value; `texts` is None if it is of another type."""

    shape: tuple[int, ...] | None
    texts: list[bytes] | None


class Texts(Headers):
    """The attributes in the bytes of one file, with a budget for how much text they may come to."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._in_texts = 4 * len(data)  # several texts may share one place in a heap, but not without end
        self._in_heaps = len(data)  # they do not overlap, so they come to no more than the file
        self._known: dict[int, dict[str, Attribute]] = {}
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        version = data[8] if len(data) > 8 else 0
        sizes, base = ((13, 15), 24) if version < 2 else ((9, 11), 12)
        if data[slice(*sizes)] != b"\x08\x08" or self.number(base, 8):
            raise BadFile("has offsets of another size than 64 bits, or a block before it, which is not supported")

    def of(self, address: int) -> dict[str, Attribute]:
        """The attributes of the object whose header is at `address`."""
        if address in self._known:
            return self._known[address]
        found = self._known[address] = {}
        for kind, flags, start, end in self.messages(address):
            if kind == _ATTRIBUTE:
                if flags & _SHARED:
                    raise BadFile("is damaged, or keeps attributes in a way that is not supported")
                name, attribute = self._attribute(start, end)
                found[name] = attribute
        return found

    def _attribute(self, at: int, end: int) -> tuple[str, Attribute]:
        version, flags = self.number(at, 1), self.number(at + 1, 1)
        sizes = [self.number(at + n, 2) for n in (2, 4, 6)]
        if version not in (1, 2, 3) or (version > 1 and flags & 3):
            raise BadFile("is damaged, or keeps attributes in a way that is not supported")
        at += 9 if version == 3 else 8
        parts = []
        for size in sizes:
            parts.append((at, at + size))
            at += (size + 7) // 8 * 8 if version == 1 else size
        if at > end:
            raise BadFile("is damaged: an attribute is longer than its place")
        raw, kind, space = (self.piece(start, stop - start) for start, stop in parts)
        name = raw.rstrip(b"\0").decode(errors="replace")
        shape = _shape(space)
        if len(kind) < 8 or kind[0] & 15 not in (_FIXED_TEXT, _VARIABLE) or shape is None:
            return name, Attribute(shape, None)
        count, width = math.prod(shape), int.from_bytes(kind[4:8], "little")
        variable = kind[0] & 15 == _VARIABLE
        if variable and (kind[1] & 15 != 1 or width != _REFERENCE.size):
            return name, Attribute(shape, None)
        if count * width > end - at or (count and not width):
            raise BadFile(f"is damaged: attribute {name} is longer than its place")
        places = range(at, at + count * width, width) if count else range(0)
        read = self._from_heap if variable else lambda place: self.piece(place, width).split(b"\0", 1)[0]
        return name, Attribute(shape, [read(place) for place in places])

    def _from_heap(self, at: int) -> bytes:
        length, heap, index = _REFERENCE.unpack(self.piece(at, _REFERENCE.size))
        if not length:
            return b""
        if heap not in self._heaps:
            self._heaps[heap] = self._heap(heap)
        place, size = self._heaps[heap].get(index, (0, 0))
        self._in_texts -= length
        if length > size or self._in_texts < 0:
            raise BadFile("is damaged: a text is longer than its place")
        return self.piece(place, length).split(b"\0", 1)[0]

    def _heap(self, at: int) -> dict[int, tuple[int, int]]:
        if self.piece(at, 4) != b"GCOL":
            raise BadFile("is damaged: a text is not where it should be")
        end = at + self.number(at + 8, 8)
        self.piece(at, end - at)
        self._in_heaps -= end - at
        if self._in_heaps < 0:
            raise BadFile("is damaged: the places of its texts overlap")
        found: dict[int, tuple[int, int]] = {}
        at += 16
        while at + _OBJECT.size <= end:
            index, _, _, size = _OBJECT.unpack(self.piece(at, _OBJECT.size))
            if index == 0:  # free space, up to the end
                break
            at += _OBJECT.size
            if at + size > end:
                raise BadFile("is damaged: a text is longer than its place")
            found[index] = at, size
            at += (size + 7) // 8 * 8
        return found


def _shape(space: bytes) -> tuple[int, ...] | None:
    """The shape in a dataspace message; None for the null space."""
    version, rank = space[:1], space[1] if len(space) > 1 else 0
    start = 8 if version == b"\1" else 4
    if version not in (b"\1", b"\2") or len(space) < start + 8 * rank or rank > 32:
        raise BadFile("is damaged: an attribute has no shape")
    if version == b"\2" and space[3] == 2:
        return None
    return struct.unpack_from(f"<{rank}Q", space, start)
