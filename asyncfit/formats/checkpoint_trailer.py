"""The last page of a checkpoint file: that it is one, that all of it is there, and where its record is.

HDF5 knows nothing of this page: it lies behind the end that the superblock names.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from asyncfit.errors import BadFile

from .skeleton import PAGE

__all__ = ["LONGEST_RECORD", "VERSION", "Trailer"]

VERSION = 1
LONGEST_RECORD = 32 << 20
"""What a reader takes, for JSON becomes up to some 25 times as large in memory."""

_MAGIC = b"\x89asyncfit\r\n\x1a\n\0\0\0"
_HEAD = struct.Struct("<16sI")
_FORMAT = struct.Struct("<16sIQQQI")
_CHECK = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Trailer:
    """Where the record (JSON) begins, how many bytes it has, its checksum (CRC-32), and how long the file is."""

    record: int
    length: int
    check: int
    size: int

    def to_bytes(self) -> bytes:
        """The page."""
        known = _FORMAT.pack(_MAGIC, VERSION, self.record, self.length, self.size, self.check)
        return (known + _CHECK.pack(zlib.crc32(known))).ljust(PAGE, b"\0")

    @staticmethod
    def is_one(page: bytes) -> bool:
        """Whether a file that ends with this page is a checkpoint, or was one."""
        return page.startswith(_MAGIC)

    @classmethod
    def from_bytes(cls, page: bytes, size: int) -> Trailer:
        """What the last page of a file of `size` bytes says.

        Raises:
            BadFile: it is no such page, or it says what cannot be.
        """
        if len(page) != PAGE or not page.startswith(_MAGIC):
            raise BadFile("is no checkpoint, or not all of one: what every checkpoint ends with is missing")
        _, version = _HEAD.unpack_from(page)
        if version > VERSION:
            raise BadFile(f"is a checkpoint of format {version}; this version of asyncfit reads {VERSION} and below")
        _, _, record, length, told, check = _FORMAT.unpack_from(page)
        if version < 1 or _CHECK.unpack_from(page, _FORMAT.size)[0] != zlib.crc32(page[: _FORMAT.size]):
            raise BadFile("is damaged: its last page does not match its checksum")
        if told != size:
            raise BadFile(f"is damaged: it has {size:,} bytes and should have {told:,}")
        if record % PAGE or length > LONGEST_RECORD or record + length > size - PAGE:
            raise BadFile("is damaged: its record is not where it should be")
        return cls(record, length, check, size)
