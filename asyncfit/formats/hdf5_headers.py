"""The headers of HDF5 objects, read from the bytes of the file, without libhdf5.

Both kinds of headers, with every offset and length checked before it is followed. Nothing here knows what a message
means, but for the one that says where a header goes on.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncfit.errors import BadFile

__all__ = ["SIGNATURE", "Headers", "Message"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CONTINUATION = 0x10


class Message(NamedTuple):
    """A message of an object's header; what it holds lies in `start:end`."""

    kind: int
    flags: int
    start: int
    end: int


class Headers:
    """The bytes of one file, with a budget for how much of them may be headers: they do not overlap."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self._left = len(data)

    def messages(self, address: int) -> list[Message]:
        """The messages in the header of the object at `address`, and in what continues it."""
        if self.piece(address, 4) == b"OHDR":
            flags = self.number(address + 5, 1)
            start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(start + width, self.number(start, width))]
            head, margin = (6 if flags & 0x04 else 4), 4
        else:
            blocks = [(address + 16, self.number(address + 8, 4))]
            head, margin = 8, 0
        found = []
        for at, size in blocks:  # grows on the way
            self.piece(at, size)
            self._left -= max(size, head)
            if self._left < 0:
                raise BadFile("is damaged: the header of an object leads back to itself")
            end = at + size
            while at + head <= end:
                kind, length = self.number(at, 1 if margin else 2), self.number(at + (1 if margin else 2), 2)
                flags = self.number(at + (3 if margin else 4), 1)
                start, at = at + head, at + head + length
                if at > end:
                    raise BadFile("is damaged: a message in an object's header is longer than the header")
                found.append(Message(kind, flags, start, at))
                if kind == _CONTINUATION:
                    there, long = self.number(start, 8), self.number(start + 8, 8)
                    blocks.append((there + margin, long - 2 * margin))  # without its signature and checksum
        return found

    def piece(self, at: int, size: int) -> bytes:
        """The `size` bytes at `at`."""
        if at < 0 or size < 0 or at + size > len(self._data):
            raise BadFile("is damaged: it points past its own end")
        return bytes(self._data[at : at + size])

    def number(self, at: int, size: int) -> int:
        """The number in the `size` bytes at `at`."""
        return int.from_bytes(self.piece(at, size), "little")
