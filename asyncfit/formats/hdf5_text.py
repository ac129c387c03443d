"""The attributes of an HDF5 object, read from the bytes of the file, without libhdf5.

libhdf5 holds one lock for the whole process and cannot be interrupted. Given a damaged length or heap of a
text attribute it loops for ever, or fills gigabytes (2.0.0, and those before). So the texts are read here,
with every offset and length checked; groups and arrays, which it checks well, are left to it. Known are both
kinds of object headers, texts of fixed and of variable length, and of other types the shape alone. Nothing
here knows of models.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from asyncfit.errors import BadFile

__all__ = ["Attribute", "Texts"]

_ATTRIBUTE, _CONTINUATION, _SHARED = 0x0C, 0x10, 0x02
_FIXED_TEXT, _VARIABLE = 3, 9
_REFERENCE = struct.Struct("<IQI")  # of a text of variable length: bytes, heap, number in the heap
_OBJECT = struct.Struct("<HHIQ")  # in a heap: number (0 is free space), -, -, bytes


@dataclass(frozen=True, slots=True)
class Attribute:
    """`shape` is () for a scalar, None for one that has no value; `texts` is None if it is of another type."""

    shape: tuple[int, ...] | None
    texts: list[bytes] | None


class Texts:
    """The attributes in the bytes of one file, with a budget for how much text they may come to."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = 4 * len(data)  # several texts may share one place in a heap, but not without end
        self._headers = self._in_heaps = len(data)  # neither overlap, so neither come to more than the file
        self._known: dict[int, dict[str, Attribute]] = {}
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        version = data[8] if len(data) > 8 else 0
        sizes, base = ((13, 15), 24) if version < 2 else ((9, 11), 12)
        if data[slice(*sizes)] != b"\x08\x08" or self._number(base, 8):
            raise BadFile("has offsets of another size than 64 bits, or a block before it, which is not supported")

    def of(self, address: int) -> dict[str, Attribute]:
        """The attributes of the object whose header is at `address`."""
        if address in self._known:
            return self._known[address]
        found = self._known[address] = {}
        for kind, flags, start, end in self._messages(address):
            if kind == _ATTRIBUTE:
                if flags & _SHARED:
                    raise BadFile("is damaged, or keeps attributes in a way that is not supported")
                name, attribute = self._attribute(start, end)
                found[name] = attribute
        return found

    def _messages(self, address: int) -> list[tuple[int, int, int, int]]:
        """Kind, flags, start and end of each message in an object's header and in what continues it."""
        if self._bytes(address, 4) == b"OHDR":
            flags = self._number(address + 5, 1)
            start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(start + width, self._number(start, width))]
            head, margin = (6 if flags & 0x04 else 4), 4
        else:
            blocks = [(address + 16, self._number(address + 8, 4))]
            head, margin = 8, 0
        found = []
        for at, size in blocks:  # grows on the way
            self._bytes(at, size)
            self._headers -= max(size, head)
            if self._headers < 0:
                raise BadFile("is damaged: the header of an object leads back to itself")
            end = at + size
            while at + head <= end:
                kind, length = (
                    self._number(at, 1 if margin else 2),
                    self._number(at + (1 if margin else 2), 2),
                )
                flags = self._number(at + (3 if margin else 4), 1)
                start, at = at + head, at + head + length
                if at > end:
                    raise BadFile("is damaged: a message in an object's header is longer than the header")
                found.append((kind, flags, start, at))
                if kind == _CONTINUATION:
                    there, long = self._number(start, 8), self._number(start + 8, 8)
                    blocks.append((there + margin, long - 2 * margin))  # without its signature and checksum
        return found

    def _attribute(self, at: int, end: int) -> tuple[str, Attribute]:
        version, flags = self._number(at, 1), self._number(at + 1, 1)
        sizes = [self._number(at + n, 2) for n in (2, 4, 6)]
        if version not in (1, 2, 3) or (version > 1 and flags & 3):
            raise BadFile("is damaged, or keeps attributes in a way that is not supported")
        at += 9 if version == 3 else 8
        parts = []
        for size in sizes:
            parts.append((at, at + size))
            at += (size + 7) // 8 * 8 if version == 1 else size
        if at > end:
            raise BadFile("is damaged: an attribute is longer than its place")
        raw, kind, space = (self._bytes(start, stop - start) for start, stop in parts)
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
        read = self._from_heap if variable else lambda place: self._bytes(place, width).split(b"\0", 1)[0]
        return name, Attribute(shape, [read(place) for place in places])

    def _from_heap(self, at: int) -> bytes:
        length, heap, index = _REFERENCE.unpack(self._bytes(at, _REFERENCE.size))
        if not length:
            return b""
        if heap not in self._heaps:
            self._heaps[heap] = self._heap(heap)
        place, size = self._heaps[heap].get(index, (0, 0))
        self._left -= length
        if length > size or self._left < 0:
            raise BadFile("is damaged: a text is longer than its place")
        return self._bytes(place, length).split(b"\0", 1)[0]

    def _heap(self, at: int) -> dict[int, tuple[int, int]]:
        if self._bytes(at, 4) != b"GCOL":
            raise BadFile("is damaged: a text is not where it should be")
        end = at + self._number(at + 8, 8)
        self._bytes(at, end - at)
        self._in_heaps -= end - at
        if self._in_heaps < 0:
            raise BadFile("is damaged: the places of its texts overlap")
        found: dict[int, tuple[int, int]] = {}
        at += 16
        while at + _OBJECT.size <= end:
            index, _, _, size = _OBJECT.unpack(self._bytes(at, _OBJECT.size))
            if index == 0:  # free space, up to the end
                break
            at += _OBJECT.size
            if at + size > end:
                raise BadFile("is damaged: a text is longer than its place")
            found[index] = at, size
            at += (size + 7) // 8 * 8
        return found

    def _bytes(self, at: int, size: int) -> bytes:
        if at < 0 or size < 0 or at + size > len(self._data):
            raise BadFile("is damaged: it points past its own end")
        return self._data[at : at + size]

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._bytes(at, size), "little")


def _shape(space: bytes) -> tuple[int, ...] | None:
    """The shape in a dataspace message; None for the null space."""
    version, rank = space[:1], space[1] if len(space) > 1 else 0
    start = 8 if version == b"\1" else 4
    if version not in (b"\1", b"\2") or len(space) < start + 8 * rank or rank > 32:
        raise BadFile("is damaged: an attribute has no shape")
    if version == b"\2" and space[3] == 2:
        return None
    return struct.unpack_from(f"<{rank}Q", space, start)
