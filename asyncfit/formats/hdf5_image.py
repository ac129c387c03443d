"""The bytes of an HDF5 file, and the headers of the objects in them: read here, without libhdf5.

libhdf5 trusts much of what a file says: a damaged one makes it loop for ever, ask for gigabytes, or crash (2.0.0 and
those before), and it holds one lock for the whole process meanwhile. So files from elsewhere are read by the
`hdf5_…` modules here, every offset and length checked before it is followed. This one knows where an object's header
is and how it is divided into messages, not what they mean; nothing in these modules knows of models.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncfit.errors import BadFile

__all__ = ["NOWHERE", "SIGNATURE", "Image", "Message", "unsupported"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = (1 << 64) - 1
"""The address of what is not there."""

_CONTINUATION = 0x10


def unsupported(what: str) -> BadFile:
    """For what libhdf5 can read and this cannot."""
    return BadFile(f"keeps {what} in a way that is not supported; h5repack --low=0 --high=0 makes a file of it that is")


class Message(NamedTuple):
    """A message of an object's header; what it holds lies in `start:end`."""

    kind: int
    flags: int
    start: int
    end: int

    @property
    def shared(self) -> bool:
        """It only says where the message is."""
        return bool(self.flags & 2)


class Image:
    """The bytes of one file, with a budget: structures do not overlap, so they come to no more than the file.

    Attributes:
        data: the bytes.
        root: where the header of the root group is.
    """

    def __init__(self, data: bytes | bytearray, *, root: bool = True) -> None:
        self.data = data
        self._left = len(data)
        self._known: dict[int, list[Message]] = {}
        self.root = self._root() if root else 0

    def messages(self, address: int) -> list[Message]:
        """The messages in the header of the object at `address`, and in what continues it."""
        if address not in self._known:
            self._known[address] = self._messages(address)
        return self._known[address]

    def piece(self, at: int, size: int) -> bytes:
        """The `size` bytes at `at`."""
        if at < 0 or size < 0 or at + size > len(self.data):
            raise BadFile("is damaged: it points past its own end")
        return bytes(self.data[at : at + size])

    def number(self, at: int, size: int) -> int:
        """The number in the `size` bytes at `at`."""
        return int.from_bytes(self.piece(at, size), "little")

    def spend(self, size: int) -> None:
        """A structure of `size` bytes is going to be read."""
        self._left -= max(size, 8)
        if self._left < 0:
            raise BadFile("is damaged: one part of it leads back to another")

    def _root(self) -> int:
        version = self.number(8, 1)
        if version < 2:
            sizes, base = 13, 24 + 4 * version
            end, root = base + 16, base + 40
        elif version < 4:
            sizes, base, end, root = 9, 12, 28, 36
        else:
            raise BadFile("is damaged, or of a newer version of HDF5 than is supported")
        if self.piece(sizes, 2) != b"\x08\x08" or self.number(base, 8):
            raise BadFile("has offsets of another size than 64 bits, or a block before it, which is not supported")
        if (told := self.number(end, 8)) > len(self.data):
            raise BadFile(f"is damaged: it is cut off, {told:,} bytes long once and {len(self.data):,} now")
        return self.number(root, 8)

    def _messages(self, address: int) -> list[Message]:
        if self.piece(address, 4) == b"OHDR":
            flags = self.number(address + 5, 1)
            start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(start + width, self.number(start, width))]
            head, margin = (6 if flags & 0x04 else 4), 4
        else:
            if self.number(address, 1) != 1:
                raise BadFile("is damaged: there is no object where one should be")
            blocks = [(address + 16, self.number(address + 8, 4))]
            head, margin = 8, 0
        found = []
        for at, size in blocks:  # grows on the way
            self.spend(size)
            self.piece(at, size)
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
