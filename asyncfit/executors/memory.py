"""What crosses from process to process: objects as bytes, their arrays in anonymous memory by descriptor.

A block of anonymous memory has no name. It is gone when the last process that holds it is, however that ended, and no
size of /dev/shm limits it. Arrays that lie in files already (memory maps) travel as their file's descriptor.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..compute import copy_state
from ..protocol import State

__all__ = ["Block", "NotPortable", "Pool", "SharedState", "adopted", "check_portable", "dumps", "loads", "many_adopted"]

SMALL = 16 * 1024
"""Arrays below this many bytes travel among the other bytes: a block costs some 20 µs on either side."""

MOST_ADOPTED = 32

ALIGNED = 64
_PAGE = mmap.ALLOCATIONGRANULARITY
_PLAIN = (np.ndarray, np.memmap)
"""Other kinds of arrays have more to them than their numbers: a mask, say."""

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
        import tempfile

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


def _views(memory: mmap.mmap | Array, layout: Iterable[Place]) -> dict[str, Array]:
    return {name: np.ndarray(shape, dtype, memory, offset) for name, dtype, shape, offset in layout}


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
    """A state whose arrays lie in one block: read-only, and passed on to the other process without another copy.

    The block is in use as long as anybody holds one of the arrays, or a view of one, though the state itself be gone.
    """

    __slots__ = ("__weakref__", "block", "layout")

    def __init__(self, values: Mapping[str, Any], layout: Iterable[Place], block: Block) -> None:
        """A user of `block`. `values` has a None in the place of each array."""
        self.block = block
        self.layout = tuple(layout)
        super().__init__(values)
        whole = np.ndarray((block.size,), np.uint8, block.mapped)  # the base of all arrays, and of all views of them
        weakref.finalize(whole, block.leave).atexit = False
        for name, view in _views(whole, self.layout).items():
            view.flags.writeable = False
            self[name] = view

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
            if type(value) in _PLAIN and not value.dtype.hasobject:
                size = _aligned(size)
                layout.append((name, value.dtype.str, value.shape, size))
                size += value.nbytes
        if size < SMALL or any(np.dtype(dtype) != state[name].dtype for name, dtype, _, _ in layout):
            return copy_state(state)  # also where a type has more to it than its code, as structured ones do
        block = self._taken(size)
        for name, array in _views(block.mapped, layout).items():
            np.copyto(array, state[name])
        arrays = {place[0] for place in layout}
        return SharedState(copy_state({n: None if n in arrays else v for n, v in state.items()}), layout, block)

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
            block = Block(self._next, descriptor, size, _mapped(descriptor, size), self._left)
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


_adopted: set[int] = set()
"""Blocks of other processes that are read here."""


def many_adopted() -> bool:
    """Whether so many are read here that the next states should be copied: each takes two descriptors."""
    return len(_adopted) > MOST_ADOPTED


def adopted(number: int, descriptor: int, size: int, freed: Callable[[int], object]) -> Block:
    """A block of the other side, to be read here. Takes over the descriptor."""

    def left(block: Block) -> None:
        os.close(block.descriptor)
        _adopted.discard(block.number)
        freed(block.number)

    block = Block(number, descriptor, size, _mapped(descriptor, size, prot=mmap.PROT_READ), left)
    _adopted.add(number)
    return block


def _mapped(descriptor: int, size: int, **how: int) -> mmap.mmap:
    """The memory behind a descriptor, which is closed if that fails."""
    try:
        return mmap.mmap(descriptor, size, **how)
    except BaseException:
        os.close(descriptor)
        raise


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
        if kind is SharedState:
            block = obj.block
            self.blocks.append(os.dup(block.descriptor))
            self._handing_over(block)
            return "state", len(self.blocks) - 1, obj.bare(), obj.layout, block.number, block.size
        if kind not in _PLAIN:
            return None
        if obj.nbytes < SMALL or obj.dtype.hasobject or np.dtype(obj.dtype.str) != obj.dtype:
            return None
        known = self._known.get(id(obj))
        if known is None:
            known = self._known[id(obj)] = obj, self._in_file(obj) or self._in_block(obj)
        return known[1]

    def _in_block(self, array: Array) -> Any:
        offset = _aligned(self.size)
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
            blocks.append(_anonymous(pickler.size))  # the last one
            mapped = mmap.mmap(blocks[-1], pickler.size)
            for array, offset in pickler.left_out:
                place = np.ndarray(array.shape, array.dtype, mapped, offset, order=_order(array))
                np.copyto(place, array)
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
