"""HDF5 files whose arrays are put into place by somebody else: the metadata alone, made once.

h5py holds one lock for the whole process while it writes, so it gets only what is small: groups, attributes, and
arrays that are declared and never written. Where each array will lie, and where the file ends, is then entered into
the bytes of the metadata. Several arrays may share bytes. Texts in attributes can be replaced afterwards, if there
is room. Nothing here knows what the arrays mean.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .hdf5_image import Image

__all__ = ["PAGE", "Skeleton", "declare"]

PAGE = 4096
_LAYOUT = 0x08
_VERSION, _CONTIGUOUS = 3, 1
_NOWHERE = b"\xff" * 8
_END_OF_FILE = 40  # where the superblock of the earliest version has it


def declare(group: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """A dataset without its numbers in `group` of an h5py file; `name` may have groups in it, which are made."""
    import h5py

    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    group.create_dataset(name, shape=shape, dtype=dtype, dcpl=plan)


class Skeleton:
    """The metadata of a file, with its arrays at the places that `lay` gives them.

    Args:
        fill: makes groups, attributes and arrays (by `declare`) in the open h5py file that it is given.
        lay: gets the size of the metadata, a multiple of PAGE, and says where each array that is not empty lies, by
            its path from the root (`/group/name`), and where the file ends.

    Attributes:
        data: the bytes before the first array.
        end: the end of the file, as HDF5 will see it.

    Raises:
        InvalidInput: more metadata than HDF5 can hold in this way (h5py raises it in many types).
        RuntimeError: this version of libhdf5 writes something else than what is known here.
    """

    def __init__(self, fill: Callable[[Any], None], lay: Callable[[int], tuple[Mapping[str, int], int]]) -> None:
        import h5py

        buffer = io.BytesIO()
        arrays: dict[str, tuple[int, int]] = {}

        def visit(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                arrays[f"/{name}"] = h5py.h5o.get_info(found.id).addr, found.nbytes

        with h5py.File(buffer, "w", libver="earliest") as file:
            fill(file)
            file.visititems(visit)
        self.data = bytearray(buffer.getvalue())
        self.data += bytes(-len(self.data) % PAGE)
        places, self.end = lay(len(self.data))
        for name, (header, size) in arrays.items():
            if size:
                at = _address(self.data, header, size)
                self.data[at : at + 8] = places[name].to_bytes(8, "little")
        if self.data[8] != 0:
            raise RuntimeError(f"libhdf5 writes superblocks of version {self.data[8]}, where 0 was asked for")
        self.data[_END_OF_FILE : _END_OF_FILE + 8] = self.end.to_bytes(8, "little")
        _verify(self, {name: (places[name] if size else None) for name, (_, size) in arrays.items()})

    def find(self, text: str) -> Place | None:
        """Where a text that an attribute holds lies; None if it does not lie in one place."""
        raw = text.encode()
        at = self.data.find(raw)
        if not raw or at < 0 or self.data.find(raw, at + 1) >= 0:
            return None
        return Place(at, len(raw))

    def replace(self, place: Place, text: str) -> bool:
        """Put another text where one was found, filled up with blanks; False if it is too long."""
        raw = text.encode()
        if len(raw) > place.size:
            return False
        self.data[place.at : place.at + place.size] = raw.ljust(place.size)
        return True


class Place(NamedTuple):
    """Where a text lies."""

    at: int
    size: int


def _address(data: bytearray, header: int, size: int) -> int:
    """Where the header of an array that was never written says where the array lies."""
    for message in Image(data, root=False).messages(header):
        if message.kind == _LAYOUT:
            found = data[message.start : message.start + 18]
            if found == bytes((_VERSION, _CONTIGUOUS)) + _NOWHERE + size.to_bytes(8, "little"):
                return message.start + 2
    raise RuntimeError("libhdf5 describes an array in a way that is not known here")


def _verify(skeleton: Skeleton, places: Mapping[str, int | None]) -> None:
    """Let libhdf5 open the file, as it will be, and say where the arrays are."""
    import h5py

    with h5py.File(_WithoutArrays(skeleton), "r") as file:
        found = {name: h5py.h5d.open(file.id, name.encode()).get_offset() for name in places}
    if found != places:
        wrong = next(name for name in places if found[name] != places[name])
        raise RuntimeError(f"libhdf5 finds {wrong} at {found[wrong]}, not at {places[wrong]}")


class _WithoutArrays(io.RawIOBase):
    """The file, zeros in the place of its arrays."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._data, self._size, self._at = skeleton.data, skeleton.end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), self._size - self._at)
        known = self._data[self._at : self._at + size]
        view[:size] = known + bytes(size - len(known))
        self._at += size
        return size
