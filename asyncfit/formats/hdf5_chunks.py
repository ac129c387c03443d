"""Arrays that HDF5 keeps in chunks, found by a tree."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from asyncfit.errors import BadFile

from .hdf5_filters import Filter, undone
from .hdf5_image import Image

__all__ = ["chunked"]


def chunked(
    image: Image,
    tree: int,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: np.dtype[np.generic],
    filters: list[Filter],
) -> npt.NDArray[np.generic]:
    """The numbers of such an array; every chunk must be there."""
    if not all(chunk):
        raise BadFile("is damaged: an array has chunks of no size")
    found = np.empty(shape, dtype)
    size = math.prod(chunk) * dtype.itemsize
    wanted = math.prod(-(-length // step) for length, step in zip(shape, chunk, strict=True))
    seen: set[tuple[int, ...]] = set()
    for offsets, mask, at, length in _chunks(image, tree, len(shape)) if wanted else ():
        if any(n >= end or n % step for n, end, step in zip(offsets, shape, chunk, strict=True)) or offsets in seen:
            raise BadFile("is damaged: a part of an array is not where it should be")
        seen.add(offsets)
        values = np.frombuffer(undone(image.piece(at, length), filters, mask, size), dtype).reshape(chunk)
        place = tuple(slice(n, min(n + step, end)) for n, step, end in zip(offsets, chunk, shape, strict=True))
        found[place] = values[tuple(slice(part.stop - part.start) for part in place)]
    if len(seen) < wanted:
        raise BadFile("has a place for an array, but not all of its numbers were ever written")
    return found


def _chunks(image: Image, tree: int, rank: int) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Of each chunk: where in the array it begins, which filters were left out, where it lies, how long it is."""
    key = 16 + 8 * rank
    nodes = [(tree, -1)]
    while nodes:
        node, depth = nodes.pop()
        level, count = image.number(node + 5, 1), image.number(node + 6, 2)
        if image.piece(node, 5) != b"TREE\1" or depth not in (-1, level):
            raise BadFile("is damaged: a part of an array is not where it should be")
        image.spend(24 + (key + 8) * count)
        for at in range(node + 24, node + 24 + (key + 8) * count, key + 8):
            child = image.number(at + key, 8)
            if level:
                nodes.append((child, level - 1))
            else:
                offsets = tuple(image.number(at + 8 + 8 * number, 8) for number in range(rank))
                length = image.number(at, 4)
                image.spend(length)  # chunks do not overlap either
                yield offsets, image.number(at + 4, 4), child, length
