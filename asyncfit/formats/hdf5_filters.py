"""What HDF5 may have done to the chunks of an array, and how to undo it."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from asyncfit.errors import BadFile

from .hdf5_image import Image, Message, unsupported

__all__ = ["Filter", "pipeline", "undone"]

_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3
_CHECKSUM = 4  # bytes of it behind a chunk


class Filter(NamedTuple):
    """A step, by its number, with what it was told."""

    kind: int
    values: tuple[int, ...]


def pipeline(image: Image, message: Message) -> list[Filter]:
    """The steps that a message lists, in the order in which they were done."""
    version, count = image.number(message.start, 1), image.number(message.start + 1, 1)
    if version not in (1, 2) or count > 32 or message.shared:
        raise BadFile("is damaged: an array is packed in an unknown way")
    at = message.start + (8 if version == 1 else 2)
    found = []
    for _ in range(count):
        kind = image.number(at, 2)
        named = version == 1 or kind >= 256
        length = image.number(at + 2, 2) if named else 0
        at += 4 if named else 2
        values = image.number(at + 2, 2)
        at += 4 + (-(-length // 8) * 8 if version == 1 else length)
        if at + 4 * values > message.end:
            raise BadFile("is damaged: an array is packed in an unknown way")
        found.append(Filter(kind, tuple(image.number(at + 4 * number, 4) for number in range(values))))
        at += 4 * (values + values % 2 if version == 1 else values)
    return found


def undone(raw: bytes, filters: list[Filter], mask: int, size: int) -> bytes:
    """The `size` bytes that a chunk was, before `filters` but those in `mask` were done to it."""
    for number, step in reversed(list(enumerate(filters))):
        if mask >> number & 1:
            continue
        if step.kind == _DEFLATE:
            try:
                # A chunk says how large it is: no more is unpacked, whatever is in it.
                raw = zlib.decompressobj().decompress(raw, size + _CHECKSUM)
            except zlib.error as error:
                raise BadFile(f"is damaged: a part of an array cannot be unpacked: {error}") from error
        elif step.kind == _SHUFFLE:
            width = step.values[0] if step.values else 0
            if not width or len(raw) % width:
                raise BadFile("is damaged: a part of an array cannot be put in order")
            raw = np.frombuffer(raw, np.uint8).reshape(width, -1).T.tobytes()
        elif step.kind == _FLETCHER:
            raw = raw[:-_CHECKSUM]
        else:
            raise unsupported(f"arrays (packed by filter {step.kind})")
    if len(raw) != size:
        raise BadFile("is damaged: a part of an array is not as large as it should be")
    return raw
