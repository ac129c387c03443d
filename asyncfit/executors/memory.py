"""What crosses from process to process: objects as bytes, their arrays in anonymous memory by descriptor.

A block of anonymous memory has no name. It is gone when the last process that holds it is, however that ended, and no
size of /dev/shm limits it. Arrays that lie in files already (memory maps) travel as their file's descriptor.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..compute import copy_state
from ..protocol import State

__all__ = ["Block", "NotPortable", "Pool", "SharedState", "adopted", "check_portable", "dumps", "loads"]

SMALL = 16 * 1024
"""Arrays below this many bytes travel among the other bytes: a block costs some 20 µs on either side."""

ALIGNED = 64
_PAGE = mmap.ALLOCATIONGRANULARITY

Array = np.ndarray[Any, np.dtype[Any]]
Place = tuple[str, str, tuple[int, ...], int]
"""Name, type, shape and offset of an array in a block."""


class NotPortable(Exception):
    """An object that another interpreter could not import; the text names it."""


def _anonymous(size: int) -> int:
    """The descriptor of a new block, all zeros."""
    try:
        block = os.memfd_create("asyncfit", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # no such call in this kernel
        with tempfile.TemporaryFile() as file:
            block = os.dup(file.fileno())
    try:
        os.ftruncate(block, size)
    except BaseException:
        os.close(block)
        raise
    return block


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNED) * ALIGNED


def _views(mapped: mmap.mmap, layout: Iterable[Place]) -> dict[str, Array]:
    return {name: np.ndarray(shape, dtype, mapped, offset) for name, dtype, shape, offset in layout}


class Block:
    """A block of anonymous memory, mapped.

    Attributes:
        number: its name on both sides.
        descriptor: by which it is handed over.
    """

    __slots__ = ("_left", "descriptor", "mapped", "number", "size")

    def __init__(
        self, number: int, descriptor: int, size: int, mapped: mmap.mmap, left: Callable[[Block], object]
    ) -> None:
        self.number, self.descriptor, self.size, self.mapped = number, descriptor, size, mapped
        self._left = left

    def leave(self) -> None:
        """Nobody here reads it any longer; may be called by a collection in any thread."""
        self._left(self)


class SharedState(dict[str, Any]):
    """A state whose arrays lie in one block: read-only, and passed on to the other process without another copy."""

    __slots__ = ("__weakref__", "block", "layout")

    def __init__(self, values: Mapping[str, Any], layout: Iterable[Place], block: Block) -> None:
        """A user of `block`. `values` has a None in the place of each array."""
        self.block = block
        self.layout = tuple(layout)
        super().__init__(values)
        for name, view in _views(block.mapped, self.layout).items():
            view.flags.writeable = False
            self[name] = view

    def __del__(self) -> None:
        block = getattr(self, "block", None)
        if block is not None:
            block.leave()

    def bare(self) -> dict[str, Any]:
        """The values, None in the place of each array."""
        arrays = {place[0] for place in self.layout}
        return {name: None if name in arrays else value for name, value in self.items()}


class Pool:
    """A worker's blocks for the states of one run. One is filled anew when neither side reads it any longer.

    New pages cost ten times as much as a copy into old ones, so blocks go round.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collection may call `leave` at any moment
        self._free: list[Block] = []
        self._users: dict[int, int] = {}
        self._blocks: dict[int, Block] = {}
        self._next = int.from_bytes(os.urandom(6)) << 16  # a number means one block, in all processes

    def share(self, state: State) -> dict[str, Any]:
        """A copy of a state that nobody can write to, in memory that can be handed over, if it is large."""
        layout: list[Place] = []
        size = 0
        for name, value in state.items():
            if isinstance(value, np.ndarray) and not value.dtype.hasobject:
                size = _aligned(size)
                layout.append((name, value.dtype.str, value.shape, size))
                size += value.nbytes
        if size < SMALL or any(np.dtype(dtype) != state[name].dtype for name, dtype, _, _ in layout):
            return copy_state(state)  # also where a type has more to it than its code, as structured ones do
        block = self._taken(size)
        for name, array in _views(block.mapped, layout).items():
            np.copyto(array, state[name])
        arrays = {place[0] for place in layout}
        return SharedState({n: None if n in arrays else v for n, v in state.items()}, layout, block)

    def _taken(self, size: int) -> Block:
        with self._lock:
            fitting = next((block for block in self._free if block.size == size), None)
            if fitting is not None:
                self._free.remove(fitting)
                self._users[fitting.number] = 1
                return fitting
            while self._free:  # of another size: the state has grown
                old = self._free.pop()
                del self._blocks[old.number]
                os.close(old.descriptor)
            descriptor = _anonymous(size)
            self._next += 1
            block = Block(self._next, descriptor, size, mmap.mmap(descriptor, size), self._left)
            self._blocks[block.number] = block
            self._users[block.number] = 1
            return block

    def again(self, block: Block) -> None:
        """It is about to be handed over, or came back: somebody more reads it."""
        with self._lock:
            if block.number in self._users:
                self._users[block.number] += 1

    def known(self, number: int) -> Block | None:
        """The block of that number, if it is one of these."""
        with self._lock:
            return self._blocks.get(number)

    def _left(self, block: Block) -> None:
        self.freed([block.number])

    def freed(self, numbers: Iterable[int]) -> None:
        """One user less of each of these."""
        with self._lock:
            for number in numbers:
                users = self._users.get(number, 0) - 1
                if users > 0:
                    self._users[number] = users
                elif number in self._users:
                    del self._users[number]
                    self._free.append(self._blocks[number])

    def close(self) -> None:
        """Close the descriptors; what is still read stays readable."""
        with self._lock:
            for block in self._blocks.values():
                os.close(block.descriptor)
            self._blocks.clear()
            self._free.clear()
            self._users.clear()

    def adopt(self, number: int, descriptor: int, size: int) -> Block:
        """A block that came from the other side: of this pool, or of an earlier run's."""
        mine = self.known(number)
        if mine is None:
            return adopted(number, descriptor, size, lambda number: None)
        os.close(descriptor)
        self.again(mine)
        return mine


def adopted(number: int, descriptor: int, size: int, freed: Callable[[int], object]) -> Block:
    """A block of the other side, to be read here. Takes over the descriptor."""

    def left(block: Block) -> None:
        os.close(block.descriptor)
        freed(block.number)

    return Block(number, descriptor, size, mmap.mmap(descriptor, size, prot=mmap.PROT_READ), left)


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
        self._known: dict[int, Any] = {}

    def persistent_id(self, obj: Any) -> Any:
        kind = obj.__class__
        if kind is SharedState:
            block = obj.block
            self.blocks.append(os.dup(block.descriptor))
            self._handing_over(block)
            return "state", len(self.blocks) - 1, obj.bare(), obj.layout, block.number, block.size
        if kind is not np.ndarray and kind is not np.memmap:
            return None
        if obj.nbytes < SMALL or obj.dtype.hasobject or np.dtype(obj.dtype.str) != obj.dtype:
            return None
        known = self._known.get(id(obj))
        if known is None:
            known = self._known[id(obj)] = self._in_file(obj) or self._in_block(obj)
        return known

    def _in_block(self, array: Array) -> Any:
        offset = _aligned(self.size)
        self.left_out.append((array, offset))
        self.size = offset + array.nbytes
        return "block", array.dtype.str, array.shape, offset

    def _in_file(self, array: Array) -> Any:
        """Where the array lies in a file that the other side can map as well; None if it does not."""
        root: Any = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        name = getattr(root, "filename", None)
        if name is None or root.mode == "c" or not array.flags.c_contiguous:
            return None
        offset = root.offset + array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # deleted, say: the memory is still there
            return None
        if os.fstat(file).st_size < offset + array.nbytes:
            os.close(file)
            return None
        self.blocks.append(file)
        return "file", len(self.blocks) - 1, array.dtype.str, array.shape, offset

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) or (callable(obj) and hasattr(obj, "__qualname__")):
            module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "")
            if module == "__main__" or "<locals>" in name or "<lambda>" in name:
                where = "the main module" if module == "__main__" else "a function"
                raise NotPortable(f"{name} is defined in {where}")
        return NotImplemented


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
            blocks.append(_anonymous(pickler.size))  # the last one
            mapped = mmap.mmap(blocks[-1], pickler.size)
            for array, offset in pickler.left_out:
                np.copyto(np.ndarray(array.shape, array.dtype, mapped, offset), array)
    except BaseException:
        for block in blocks:
            os.close(block)
        raise
    return into.getvalue(), blocks


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
            _, dtype, shape, offset = pid
            if self._mapped is None:
                block = self._blocks[-1]  # a map of our own, which may be written to without anybody else seeing it
                prot = mmap.PROT_READ | mmap.PROT_WRITE
                self._mapped = mmap.mmap(block, os.fstat(block).st_size, flags=mmap.MAP_PRIVATE, prot=prot)
            if offset not in self._made:  # one object stays one object
                self._made[offset] = np.ndarray(shape, dtype, self._mapped, offset)
            return self._made[offset]
        if kind == "file":
            _, number, dtype, shape, offset = pid
            begin = offset - offset % _PAGE
            size = offset - begin + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            mapped = mmap.mmap(self._blocks[number], size, prot=mmap.PROT_READ, offset=begin)
            return np.ndarray(shape, dtype, mapped, offset - begin)
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
