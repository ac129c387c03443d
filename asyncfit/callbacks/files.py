"""Files that loggers add to: opened for each addition and closed again, so that none is left open however a run ends.

Plain functions, to be called through `off_loop`. An addition is whole or is not there, but for a crash of the machine.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from ..errors import InvalidInput
from ..formats.paths import is_path

__all__ = ["Gathered", "add", "checked_file", "checked_path", "end_line", "off_loop", "start"]

OFTEN = 1.0
"""Seconds that what was gathered waits at most to be written."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def off_loop(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """`work(*args)` in a thread, however many the program keeps busy; a cancellation waits until it is done."""
    return await anyio.to_thread.run_sync(work, *args, limiter=anyio.CapacityLimiter(1))


class Gathered(Generic[T]):
    """Things that wait to be written together, in a thread.

    Args:
        write: writes them, in order; plain.
        most: with more than so much waiting, `add` says that it is time to `flush`.
    """

    def __init__(self, write: Callable[[list[T]], None], most: int) -> None:
        self._write = write
        self._most = most
        self._items: deque[T] = deque()
        self._size = 0
        self._flushed = time.monotonic()
        self._lock = threading.Lock()  # so that what was taken first is written first

    def begin(self) -> None:
        """A run begins; what waits stays."""
        self._flushed = time.monotonic()

    def add(self, item: T, size: int = 1) -> bool:
        """Let `item` wait. Whether it is time to write."""
        self._items.append(item)
        self._size += size
        return self._size > self._most or time.monotonic() - self._flushed > OFTEN

    async def flush(self) -> None:
        """Write what waits. What cannot be written is lost, and the error says so."""
        self._size = 0
        self._flushed = time.monotonic()
        if self._items or self._lock.locked():
            await off_loop(self._flush)

    def _flush(self) -> None:
        with self._lock:
            items = [self._items.popleft() for _ in range(len(self._items))]
            if items:
                self._write(items)

    async def keep_flushing(self) -> None:
        """Write what waits once a second, for as long as this is not cancelled."""
        while True:
            await anyio.sleep(OFTEN)
            await self.flush()


def checked_path(what: str, path: str | os.PathLike[str]) -> str:
    """A path as text."""
    try:
        name = os.fspath(path)
    except TypeError:
        raise TypeError(f"{what} takes a path, not {path!r}") from None
    if not isinstance(name, str):
        raise TypeError(f"{what} takes a path of text, not of bytes: {name!r}")
    if not is_path(name):
        raise InvalidInput(f"{what}: {name!r} is no path")
    return name


def checked_file(what: str, filename: str | os.PathLike[str]) -> str:
    """The name of a file that can be written, as far as that shows before a run."""
    name = checked_path(what, filename)
    if os.path.isdir(name):
        raise InvalidInput(f"{what}: {name} is a directory; give the path of a file")
    folder = os.path.dirname(name)
    if folder and not os.path.isdir(folder):
        raise InvalidInput(f"{what}: the directory {folder} does not exist; create it first")
    return name


def start(name: str, *, keep: bool) -> int:
    """Make the file, or empty it unless it is to be kept; the number of bytes that are in it."""
    raw = _open(name, 0 if keep else os.O_TRUNC)
    try:
        return os.fstat(raw).st_size
    finally:
        os.close(raw)


def end_line(name: str, end: bytes) -> int:
    """Put `end` behind a last line that a crash has torn, so that the next one stands alone; the file's size then."""
    with open(name, "rb") as file:
        size = file.seek(0, os.SEEK_END) if file.seekable() else 0
        if not size:
            return 0
        file.seek(-1, os.SEEK_END)
        whole = file.read() == b"\n"
    return size if whole else add(name, end)


def add(name: str, data: bytes) -> int:
    """Add `data` to the end of the file, all or nothing; the number of bytes that are in it then.

    Raises:
        OSError: it was not added, and names the file.
    """
    raw = _open(name, 0)
    try:
        before = os.fstat(raw)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(raw, left) :]
        except BaseException:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(raw, before.st_size)
            raise
        return before.st_size + len(data)
    except OSError as error:
        error.filename = name
        raise
    finally:
        os.close(raw)


def _open(name: str, how: int) -> int:
    try:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | how, 0o666)
    except FileNotFoundError:
        folder = os.path.dirname(name)
        raise FileNotFoundError(errno.ENOENT, f"the directory {folder} does not exist; create it first", name) from None
