"""What crosses from process to process: objects as bytes, their arrays in anonymous memory by descriptor.

Large arrays lie in a block of anonymous memory (see `pool.py`). Those that lie in files already (memory maps) travel as
their file's descriptor.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..pool import PLAIN, SMALL, Array, Block, SharedState, adopted, aligned, memfd

__all__ = ["NotPortable", "Packed", "check_portable", "dumps", "loads"]

_PAGE = mmap.ALLOCATIONGRANULARITY


class NotPortable(Exception):
    """An object that another interpreter could not import; the text names it."""


Adopt = Callable[[int, int, int], Block]


# --- objects as bytes ------------------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Leaves large arrays out, and refuses what another interpreter would not find."""

    def __init__(self, into: io.BytesIO, handing_over: Callable[[Block], object] = lambda block: None) -> None:
        super().__init__(into, protocol=pickle.HIGHEST_PROTOCOL)
        self._handing_over = handing_over
        self.blocks: list[int] = []  # descriptors to send; ours, to be closed afterwards
        self.left_out: list[tuple[Array, int]] = []
        self.size = 0
        self._known: dict[int, tuple[Array, Any]] = {}  # the arrays as well, so that no other one gets their `id`

    def persistent_id(self, obj: Any) -> Any:
        kind = obj.__class__
        if kind is SharedState and obj.block.descriptor >= 0:
            block = obj.block
            self.blocks.append(os.dup(block.descriptor))
            self._handing_over(block)
            return "state", len(self.blocks) - 1, obj.bare(), obj.layout, block.number, block.size
        if kind not in PLAIN:
            return None
        if obj.nbytes < SMALL or obj.dtype.hasobject or np.dtype(obj.dtype.str) != obj.dtype:
            return None
        known = self._known.get(id(obj))
        if known is None:
            known = self._known[id(obj)] = obj, self._in_file(obj) or self._in_block(obj)
        return known[1]

    def _in_block(self, array: Array) -> Any:
        offset = aligned(self.size)
        self.left_out.append((array, offset))
        self.size = offset + array.nbytes
        return "block", array.dtype.str, array.shape, offset, _order(array)

    def _in_file(self, array: Array) -> Any:
        """Where the array lies in a file that the other side can map as well; None if it does not."""
        root: Any = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        name = getattr(root, "filename", None)
        if name is None or root.mode == "c" or not array.flags.forc:
            return None
        address = array.__array_interface__["data"][0]
        offset = root.offset + address - root.__array_interface__["data"][0]
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # deleted, say: the memory is still there
            return None
        found = os.fstat(file)
        if found.st_size < offset + array.nbytes or found.st_ino != _file_at(address, found.st_ino):
            os.close(file)  # another one that has taken its name
            return None
        self.blocks.append(file)
        return "file", len(self.blocks) - 1, array.dtype.str, array.shape, offset, _order(array)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) or (callable(obj) and hasattr(obj, "__qualname__")):
            module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "")
            if module == "__main__" or "<locals>" in name or "<lambda>" in name:
                where = "the main module" if module == "__main__" else "a function"
                raise NotPortable(f"{name} is defined in {where}")
        return NotImplemented


def _order(array: Array) -> Literal["C", "F"]:
    """How its numbers lie in memory: the last bits of a product depend on it."""
    return "F" if array.flags.fnc else "C"


def _file_at(address: int, otherwise: int) -> int:
    """The inode number of the file that is mapped there, `otherwise` where the system does not tell."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                span, _, _, _, inode = line.split()[:5]
                begin, end = (int(number, 16) for number in span.split(b"-"))
                if begin <= address < end:
                    return int(inode)
    except OSError:
        pass
    return otherwise


def dumps(obj: Any, handing_over: Callable[[Block], object] = lambda block: None) -> tuple[bytes, list[int]]:
    """`obj` as bytes and descriptors, which the caller has to close when they are sent.

    Args:
        handing_over: gets the block of each `SharedState` in it.

    Raises:
        NotPortable: something in it could not be imported elsewhere.
        Exception: what pickling raises.
    """
    into = io.BytesIO()
    pickler = _Pickler(into, handing_over)
    blocks = pickler.blocks
    try:
        pickler.dump(obj)
        if pickler.size:
            blocks.append(memfd(pickler.size))  # the last one
            mapped = mmap.mmap(blocks[-1], pickler.size)
            for array, offset in pickler.left_out:
                place = np.ndarray(array.shape, array.dtype, mapped, offset, order=_order(array))
                np.copyto(place, array)
    except BaseException:
        for block in blocks:
            os.close(block)
        raise
    return into.getvalue(), blocks


class Packed:
    """An object as bytes and descriptors, made in one thread for another to send; closed if nobody does."""

    def __init__(self, obj: Any) -> None:
        self._data, self._blocks = dumps(obj)

    def take(self) -> tuple[bytes, list[int]]:
        """What `dumps` gave, once."""
        blocks, self._blocks = self._blocks, []
        return self._data, blocks

    def __del__(self) -> None:
        for block in getattr(self, "_blocks", ()):
            os.close(block)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, blocks: list[int], adopt: Adopt) -> None:
        super().__init__(io.BytesIO(data))
        self._adopt = adopt
        self._blocks = blocks  # -1 where one was taken over
        self._mapped: mmap.mmap | None = None
        self._made: dict[int, Array] = {}

    def persistent_load(self, pid: Any) -> Any:
        kind = pid[0]
        if kind == "block":
            _, dtype, shape, offset, order = pid
            if self._mapped is None:
                block = self._blocks[-1]  # a map of our own, which may be written to without anybody else seeing it
                prot = mmap.PROT_READ | mmap.PROT_WRITE
                self._mapped = mmap.mmap(block, os.fstat(block).st_size, flags=mmap.MAP_PRIVATE, prot=prot)
            if offset not in self._made:  # one object stays one object
                self._made[offset] = np.ndarray(shape, dtype, self._mapped, offset, order=order)
            return self._made[offset]
        if kind == "file":
            _, number, dtype, shape, offset, order = pid
            begin = offset - offset % _PAGE
            size = offset - begin + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            mapped = mmap.mmap(self._blocks[number], size, prot=mmap.PROT_READ, offset=begin)
            return np.ndarray(shape, dtype, mapped, offset - begin, order=order)
        _, place, values, layout, number, size = pid
        descriptor, self._blocks[place] = self._blocks[place], -1
        return SharedState(values, layout, self._adopt(number, descriptor, size))


def _alone(number: int, descriptor: int, size: int) -> Block:
    return adopted(number, descriptor, size, lambda number: None)


def loads(data: bytes, blocks: Sequence[int], adopt: Adopt = _alone) -> Any:
    """What `dumps` was given. Takes over the descriptors."""
    held = list(blocks)
    try:
        return _Unpickler(data, held, adopt).load()
    finally:
        for block in held:
            if block >= 0:
                os.close(block)


def check_portable(obj: Any) -> None:
    """Raise what `dumps(obj)` would raise, without copying any array."""
    pickler = _Pickler(io.BytesIO())
    try:
        pickler.dump(obj)
    finally:
        for descriptor in pickler.blocks:
            os.close(descriptor)
