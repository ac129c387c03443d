"""Reads checkpoints, which may come from anywhere: by their trailer and record, without libhdf5.

Nothing is given memory before the file was seen to have that many bytes, and no number counts that does not match
its checksum.
"""

from __future__ import annotations

import math
import os
import zlib
from typing import Any, BinaryIO

import numpy as np

from asyncfit.errors import BadFile

from . import checkpoint_record
from .checkpoint_record import Entry
from .checkpoint_trailer import Trailer
from .checksums import checksum
from .opening import opened
from .saved_model import Array
from .skeleton import PAGE

__all__ = ["check", "read", "read_run"]

_CHUNK = 16 << 20


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the checkpoint at `path` holds: the run, and the arrays by name, each the caller's own.

    Raises:
        FileNotFoundError: there is no such file.
        BadFile: anything else; the message names the file and what is wrong with it.
    """
    with opened(path, "checkpoint") as file:
        try:
            run, entries = _record(file)
            return run, {entry.name: _array(file, entry) for entry in entries}
        except BadFile as error:
            raise BadFile(f"{os.fspath(path)} {error}") from error.__cause__


def read_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The run alone; the arrays are neither read nor checked, but for their places. Raises as `read` does."""
    with opened(path, "checkpoint") as file:
        try:
            return _record(file)[0]
        except BadFile as error:
            raise BadFile(f"{os.fspath(path)} {error}") from error.__cause__


def check(data: bytes) -> None:
    """Raise BadFile if this is a checkpoint, and one of its arrays does not match its checksum. Others pass."""
    if len(data) < PAGE or not Trailer.is_one(data[-PAGE:]):
        return
    trailer = Trailer.from_bytes(data[-PAGE:], len(data))
    text = data[trailer.record : trailer.record + trailer.length]
    if zlib.crc32(text) != trailer.check:
        raise BadFile("is damaged: its record does not match its checksum")
    for entry in checkpoint_record.decoded(text, trailer.record)[1]:
        count = math.prod(entry.shape)
        array = np.frombuffer(data, entry.dtype, count, entry.offset) if count else np.empty(0, entry.dtype)
        if checksum(array) != entry.check:
            raise BadFile(f"is damaged: the numbers of {entry.name[:200]!r} do not match their checksum")


def _record(file: BinaryIO) -> tuple[dict[str, Any], list[Entry]]:
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise BadFile("is empty")
    page = bytearray(min(PAGE, size))
    _fill(file, memoryview(page), size - len(page))
    trailer = Trailer.from_bytes(bytes(page), size)
    text = bytearray(trailer.length)
    _fill(file, memoryview(text), trailer.record)
    if zlib.crc32(text) != trailer.check:
        raise BadFile("is damaged: its record does not match its checksum")
    return checkpoint_record.decoded(bytes(text), trailer.record)


def _array(file: BinaryIO, entry: Entry) -> Array:
    array = np.empty(entry.shape, entry.dtype)
    if array.nbytes:
        _fill(file, array.reshape(-1).view(np.uint8).data, entry.offset)
    if checksum(array) != entry.check:
        raise BadFile(f"is damaged: the numbers of {entry.name[:200]!r} do not match their checksum")
    return array


def _fill(file: BinaryIO, memory: memoryview, offset: int) -> None:
    while memory:
        count = os.preadv(file.fileno(), [memory[:_CHUNK]], offset)
        if not count:
            raise BadFile("is cut off, or somebody is changing it")
        memory, offset = memory[count:], offset + count
