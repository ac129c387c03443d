"""From a description of a file to the blocks of memory that it consists of: metadata first, then its arrays.

Arrays of a page or more begin at a page boundary, so that they can go to the disk as they lie in memory; smaller ones
stand together before them. Nothing here knows what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from asyncfit.checkpoints import Segment

from .saved_model import Array
from .skeleton import PAGE, Skeleton

__all__ = ["Description", "gathered", "joined", "lay", "pages", "segments"]

_ALIGNED = 16


class Description(Protocol):
    """What is in a file.

    Attributes:
        arrays: by path from the root, contiguous.
    """

    arrays: dict[str, Array]

    def fill(self, file: Any) -> None:
        """Make all groups, attributes and arrays (by `skeleton.declare`) in an open h5py file."""


def segments(description: Description) -> list[Segment]:
    """The blocks of the file, in rising order, each at a page boundary; h5py's lock is held on the way here only."""
    arrays = description.arrays
    offsets: list[int] = []

    def place(start: int) -> tuple[Mapping[str, int], int]:
        offsets[:], end = lay([array.nbytes for array in arrays.values()], start)
        return dict(zip(arrays, offsets, strict=True)), end

    skeleton = Skeleton(description.fill, place)
    return [(0, skeleton.data), *gathered(list(arrays.values()), offsets)]


def joined(blocks: Sequence[Segment]) -> bytes:
    """The bytes of the file that consists of these blocks."""
    data = bytearray()
    for offset, block in blocks:
        data += bytes(offset - len(data))
        data += block if isinstance(block, bytes | bytearray | memoryview) else block.tobytes()
    return bytes(data + bytes(pages(len(data)) - len(data)))


def lay(sizes: Sequence[int], start: int) -> tuple[list[int], int]:
    """Where arrays of these sizes go, from `start` on, and the end of the last page."""
    offsets = [start] * len(sizes)
    end = start
    for small in (True, False):
        for number, size in enumerate(sizes):
            if size and (size < PAGE) == small:
                step = _ALIGNED if small else PAGE
                offsets[number] = -(-end // step) * step
                end = offsets[number] + size
    return offsets, pages(end)


def gathered(arrays: Sequence[Array], offsets: Sequence[int]) -> list[Segment]:
    """The blocks for arrays that lie as `lay` says: the small ones in one."""
    placed = [(offset, array) for offset, array in zip(offsets, arrays, strict=True) if array.nbytes]
    small = bytearray()
    start = min(offsets, default=0)
    for offset, array in placed:
        if array.nbytes < PAGE:
            small += bytes(offset - start - len(small))
            small += array.tobytes()
    large = sorted((offset, array) for offset, array in placed if array.nbytes >= PAGE)
    return [(start, small), *large] if small else [*large]


def pages(size: int) -> int:
    """`size`, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE
