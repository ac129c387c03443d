"""Large blocks of memory onto the disk, past the page cache where the file system allows it.

A buffered write copies every byte, fills the cache with pages that nobody reads, and is written out when it suits
the kernel. Direct I/O goes from the caller's memory to the disk, but takes whole pages from page-aligned memory to
page-aligned places only: the rest goes through a small buffer here. Plain synchronous code for a worker thread; the
interpreter's lock is free while bytes are on their way.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["PAGE", "Bytes", "Segment", "write"]

PAGE = 4096
_CHUNK = 4 << 20  # enough to keep a disk busy; between chunks others get the interpreter
_BOUNCE = 1 << 20

Bytes: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]
Segment: TypeAlias = tuple[int, Bytes]
"""Where in the file, a multiple of PAGE, and what: a contiguous buffer."""


def write(descriptor: int, segments: Iterable[Segment]) -> int:
    """Write the segments into an empty file, in rising order, each filled up with zeros to whole pages.

    Returns:
        The size of the file: the end of the last page.

    Raises:
        OSError: as the system says it.
        ValueError: segments that overlap, or do not begin at a page.
    """
    file = _File(descriptor)
    end = 0
    for offset, data in segments:
        if offset % PAGE or offset < end:
            raise ValueError(f"a segment at {offset} is not at a page of its own behind {end}")
        flat = _flat(data)
        whole = flat.size // PAGE * PAGE
        if whole and flat.__array_interface__["data"][0] % PAGE == 0:
            file.write(flat[:whole], offset)
        else:
            whole = 0
        file.bounce(flat[whole:], offset + whole)
        end = offset + -(-flat.size // PAGE) * PAGE
    return end


class _File:
    """An open file that is written to directly as long as its file system takes that."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._flags = 0
        self._direct = False
        self._buffer: npt.NDArray[np.uint8] | None = None
        if wanted := getattr(os, "O_DIRECT", 0):
            try:
                self._flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
                fcntl.fcntl(descriptor, fcntl.F_SETFL, self._flags | wanted)
                self._direct = True
            except OSError:
                pass  # this file system has none

    def write(self, data: npt.NDArray[np.uint8], offset: int) -> None:
        """Write whole pages, from memory that is aligned."""
        done = 0
        while done < data.size:
            try:
                written = os.pwrite(self._descriptor, data[done : done + _CHUNK].data, offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._buffered()  # this file system takes the flag only, or a short write ended within a block
                continue
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            done += written

    def bounce(self, data: npt.NDArray[np.uint8], offset: int) -> None:
        """Write what is not aligned, or not whole pages."""
        if self._buffer is None and data.size:
            self._buffer = np.frombuffer(mmap.mmap(-1, _BOUNCE), np.uint8)
        buffer = self._buffer
        for start in range(0, data.size, _BOUNCE):
            assert buffer is not None
            part = data[start : start + _BOUNCE]
            padded = -(-part.size // PAGE) * PAGE
            np.copyto(buffer[: part.size], part)
            buffer[part.size : padded] = 0
            self.write(buffer[:padded], offset + start)

    def _buffered(self) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, self._flags)
        self._direct = False


def _flat(data: Bytes) -> npt.NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        if not data.flags.c_contiguous:
            raise ValueError("a segment must be contiguous")
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)
