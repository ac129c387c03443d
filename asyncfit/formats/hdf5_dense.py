"""Large groups as newer versions of HDF5 keep them: links in a fractal heap, found by a tree of the second version."""

from __future__ import annotations

from collections.abc import Iterator

from asyncfit.errors import BadFile

from .hdf5_image import Image, unsupported

__all__ = ["dense"]

_BY_NAME, _HASH = 5, 4
_NODE = 6  # signature, version, type
_DEEPEST = 20


def dense(image: Image, heap: int, names: int) -> Iterator[tuple[int, int]]:
    """Where each link message in the heap at `heap` begins and ends, by the tree at `names`."""
    found = _Heap(image, heap)
    for record, size in _records(image, names):
        yield found.place(image.piece(record + _HASH, size - _HASH))


def _records(image: Image, tree: int) -> Iterator[tuple[int, int]]:
    """Place and size of every record in a tree, in no order that matters."""
    if image.piece(tree, 4) != b"BTHD" or image.number(tree + 5, 1) != _BY_NAME:
        raise BadFile("is damaged: the names in a group are not where they should be")
    node_size, size, depth = image.number(tree + 6, 4), image.number(tree + 10, 2), image.number(tree + 12, 2)
    if depth > _DEEPEST or size <= _HASH or node_size < _NODE + size:
        raise BadFile("is damaged: a group has an impossible tree")
    # How wide the numbers of records below a child are: by the most that there can be.
    most = (node_size - _NODE - 4) // size
    counts = [(most, _width(most), 0)]
    for level in range(1, depth + 1):
        below = counts[-1]
        pointer = 8 + counts[0][1] + (below[2] if level > 1 else 0)
        here = (node_size - _NODE - 4 - pointer) // (size + pointer)
        total = (here + 1) * below[0] + here
        counts.append((total, counts[0][1], _width(total)))
    nodes = [(image.number(tree + 16, 8), image.number(tree + 24, 2), depth)]
    while nodes:
        node, count, level = nodes.pop()
        if image.piece(node, 4) != (b"BTIN" if level else b"BTLF"):
            raise BadFile("is damaged: a part of a group is not where it should be")
        image.spend(_NODE + count * size)
        image.piece(node, _NODE + count * size)
        yield from ((node + _NODE + number * size, size) for number in range(count))
        if level:
            width, total = counts[0][1], counts[level - 1][2]
            at = node + _NODE + count * size
            for _ in range(count + 1):
                nodes.append((image.number(at, 8), image.number(at + 8, width), level - 1))
                at += 8 + width + total


def _width(number: int) -> int:
    return (number.bit_length() + 7) // 8


class _Heap:
    """A fractal heap: objects in blocks, which grow row by row of a table."""

    def __init__(self, image: Image, at: int) -> None:
        self._image = image
        if image.piece(at, 4) != b"FRHP":
            raise BadFile("is damaged: the links of a group are not where they should be")
        if image.number(at + 7, 2):
            raise unsupported("compressed links")
        largest = image.number(at + 10, 4)
        self._columns, self._first = image.number(at + 110, 2), image.number(at + 112, 8)
        self._largest, bits = image.number(at + 120, 8), image.number(at + 128, 2)
        self._root, self._rows = image.number(at + 132, 8), image.number(at + 140, 2)
        if not self._columns or not self._first or self._largest < self._first or bits > 64 or self._rows > 64:
            raise BadFile("is damaged: a group has an impossible heap")
        self._offset = (bits + 7) // 8
        self._length = min((self._largest.bit_length() + 6) // 8, _width(largest))

    def place(self, identity: bytes) -> tuple[int, int]:
        """Where the object of this identity begins and ends."""
        if identity[0] & 0xF0:
            raise unsupported("very long links")
        offset = int.from_bytes(identity[1 : 1 + self._offset], "little")
        length = int.from_bytes(identity[1 + self._offset : 1 + self._offset + self._length], "little")
        block, size = self._root, self._first
        begin = 0
        if self._rows:
            block, begin, size = self._found(offset)
        if self._image.piece(block, 4) != b"FHDB" or offset + length > begin + size:
            raise BadFile("is damaged: a link is not where it should be")
        at = block + offset - begin
        self._image.piece(at, length)
        return at, at + length

    def _found(self, offset: int) -> tuple[int, int, int]:
        """The block that holds an offset, where in the heap it begins, and its size."""
        begin = 0
        for row in range(self._rows):
            size = self._first << max(0, row - 1)
            if offset < begin + size * self._columns:
                column = (offset - begin) // size
                if size > self._largest:
                    break
                at = self._root + 13 + self._offset + (row * self._columns + column) * 8
                if self._image.piece(self._root, 4) != b"FHIB":
                    raise BadFile("is damaged: the links of a group are not where they should be")
                return self._image.number(at, 8), begin + column * size, size
            begin += size * self._columns
        raise unsupported("so many links in one group")
