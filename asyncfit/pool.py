"""Memory for copies of a state, filled again and again: new pages cost ten times as much as a copy into old ones.

A state is copied into a *block*. Large arrays start at page boundaries of it, and nothing but zeros follows them in
their last page, so that files can be written by direct I/O straight from there. The arrays are read-only; a block is
filled anew only when nobody holds one of them, or a view of one, any longer.

Blocks for a worker process lie in anonymous memory with a descriptor, by which the other side gets at them: it has no
name, so it is gone when the last process that holds it is, however that ended, and no size of /dev/shm limits it. Those
for a thread are plain memory.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .protocol import State

__all__ = [
    "PLAIN",
    "SMALL",
    "Block",
    "Pool",
    "SharedState",
    "adopted",
    "aligned",
    "copy_state",
    "many_adopted",
    "memfd",
    "size_of_copy",
]

SMALL = 16 * 1024
"""States below this many bytes are copied as they are: a block costs some 20 µs on either side."""

PAGE = mmap.PAGESIZE
OWN_PAGES = 4096
"""Arrays of at least so many bytes have pages of their own."""

MOST_ADOPTED = 32

ALIGNED = 64
HUGE = 1 << 22
"""Blocks of at least so many bytes ask for huge pages, as NumPy does for its arrays."""

PLAIN = (np.ndarray, np.memmap)
"""Other kinds of arrays have more to them than their numbers: a mask, say."""

Array = np.ndarray[Any, np.dtype[Any]]
Place = tuple[str, str, tuple[int, ...], int]
"""Name, type, shape and offset of an array in a block."""


def copy_state(state: State) -> dict[str, Any]:
    """A copy whose arrays nobody can write to."""
    copied: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            value = value.copy()
            value.flags.writeable = False
        copied[name] = value
    return copied


def memfd(size: int) -> int:
    """The descriptor of new memory without a name, all zeros."""
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


def aligned(offset: int, to: int = ALIGNED) -> int:
    return -(-offset // to) * to


def _laid_out(state: State) -> tuple[tuple[Place, ...], int]:
    """Where the arrays of a state lie in a block, and its size in bytes: whole pages, 0 if a plain copy will do."""
    large: list[tuple[str, Array]] = []
    small: list[tuple[str, Array]] = []
    for name, value in state.items():
        if type(value) in PLAIN and not value.dtype.hasobject and np.dtype(value.dtype.str) == value.dtype:
            (large if value.nbytes >= OWN_PAGES else small).append((name, value))
    layout: list[Place] = []
    size = filled = 0
    for arrays, to in ((large, PAGE), (small, ALIGNED)):
        size = aligned(size, PAGE)  # the small ones all together: not behind a large one, where zeros belong
        for name, array in arrays:
            size = aligned(size, to)
            layout.append((name, array.dtype.str, array.shape, size))
            size += array.nbytes
            filled += array.nbytes
    return tuple(layout), aligned(size, PAGE) if filled >= SMALL else 0


def size_of_copy(state: State) -> int:
    """Bytes that a copy of a state takes in a pool."""
    layout, size = _laid_out(state)
    inside = {place[0] for place in layout} if size else ()
    return size + sum(v.nbytes for name, v in state.items() if isinstance(v, np.ndarray) and name not in inside)


def _views(memory: mmap.mmap | Array, layout: Iterable[Place]) -> dict[str, Array]:
    return {name: np.ndarray(shape, dtype, memory, offset) for name, dtype, shape, offset in layout}


class Block:
    """A block of memory, mapped.

    Attributes:
        number: its name on both sides.
        descriptor: by which it is handed over; -1 if it cannot be.
        mapped: the memory, of `size` bytes.
    """

    __slots__ = ("_filled", "_left", "descriptor", "layout", "mapped", "number", "size")

    def __init__(
        self,
        number: int,
        descriptor: int,
        size: int,
        mapped: mmap.mmap,
        left: Callable[[Block], object],
        layout: tuple[Place, ...] = (),
    ) -> None:
        self.number, self.descriptor, self.size, self.mapped = number, descriptor, size, mapped
        self.layout = layout
        self._filled = _views(mapped, layout)
        self._left = left

    def fill(self, state: State) -> None:
        """Copy the arrays of a state in."""
        for name, array in self._filled.items():
            np.copyto(array, state[name])

    def leave(self) -> None:
        """Nobody here reads it any longer; may be called by a collection in any thread."""
        self._left(self)


class SharedState(dict[str, Any]):
    """A state whose arrays lie in one block: read-only, and passed on to another process without another copy.

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

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere it is a plain one."""
        return dict, (dict(self),)


class Pool:
    """The blocks for the states of one run. One is filled anew when nobody, on either side, reads it any longer.

    Args:
        portable: make blocks that can be handed over to another process.
        most: while there are more blocks than that, one that nobody reads any longer is given back to the system.
    """

    def __init__(self, *, portable: bool = False, most: int | None = None) -> None:
        self._portable = portable
        self.most = most
        self._lock = threading.Lock()
        self._freed: deque[int] = deque()
        """One user less of each of these. A collection may call `leave` at any moment, in any thread, also in a process
        that was forked meanwhile: so nothing is locked for that, and nobody looks at it but the one who needs a block.
        """
        self._free: list[Block] = []
        self._users: dict[int, int] = {}
        self._blocks: dict[int, Block] = {}
        self._layout: tuple[Place, ...] = ()
        self._next = int.from_bytes(os.urandom(6)) << 16  # a number means one block, in all processes
        self._closed = False

    def share(self, state: State) -> dict[str, Any]:
        """A copy of a state that nobody can write to; in a block, if it is large."""
        layout, size = _laid_out(state)
        if not size or self._closed:
            return copy_state(state)
        arrays = {place[0] for place in layout}
        rest = copy_state({name: None if name in arrays else value for name, value in state.items()})
        block = self._taken(layout, size)
        try:
            block.fill(state)
            return SharedState(rest, layout, block)
        except BaseException:
            block.leave()
            raise

    def _taken(self, layout: tuple[Place, ...], size: int) -> Block:
        with self._lock:
            if layout != self._layout:  # the state has grown
                self._layout = layout
                while self._free:
                    self._discard(self._free.pop())
            self._settle()
            if self._free:
                block = self._free.pop()
            else:
                self._next += 1
                block = self._made(self._next, layout, size)
                self._blocks[block.number] = block
            self._users[block.number] = 1
            return block

    def _made(self, number: int, layout: tuple[Place, ...], size: int) -> Block:
        if self._portable:
            descriptor = memfd(size)
            return Block(number, descriptor, size, _mapped(descriptor, size), self._left, layout)
        how = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}
        mapped = mmap.mmap(-1, size, **how)  # a process that is forked meanwhile keeps what it holds
        if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                mapped.madvise(mmap.MADV_HUGEPAGE)
            except OSError:  # a kernel without them
                pass
        return Block(number, -1, size, mapped, self._left, layout)

    def _discard(self, block: Block) -> None:
        del self._blocks[block.number]
        if block.descriptor >= 0:
            os.close(block.descriptor)
            block.descriptor = -1

    def _settle(self) -> None:
        """See who has left."""
        while self._freed:
            number = self._freed.popleft()
            users = self._users.get(number, 0) - 1
            if users > 0:
                self._users[number] = users
            elif number in self._users:
                del self._users[number]
                block = self._blocks[number]
                if block.layout == self._layout and (self.most is None or len(self._blocks) <= self.most):
                    self._free.append(block)
                else:
                    self._discard(block)

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
        self._freed.append(block.number)

    def freed(self, numbers: Iterable[int]) -> None:
        """One user less of each of these."""
        self._freed.extend(numbers)

    @property
    def in_use(self) -> int:
        """How many blocks somebody reads."""
        with self._lock:
            self._settle()
            return len(self._users)

    @property
    def idle(self) -> int:
        """How many blocks wait to be filled anew."""
        with self._lock:
            self._settle()
            return len(self._free)

    def close(self) -> None:
        """Give the memory back; what is still read stays readable, and goes with those who read it."""
        with self._lock:
            self._closed = True
            for block in list(self._blocks.values()):
                self._discard(block)
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
