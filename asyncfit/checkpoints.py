"""Files that are whole or not there: written beside their place, synced, and moved into it in one step.

Plain synchronous code about bytes and paths, to be run in a worker thread; it must not know what the bytes
mean, nor anything of runs and events.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import BinaryIO, TypeVar

from . import direct, temporaries
from .direct import Segment
from .errors import CheckpointError
from .temporaries import sweep as sweep

__all__ = ["Segment", "sweep", "write_segments", "write_whole"]

T = TypeVar("T")

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than is allowed here",
    errno.EACCES: "permission is missing",
    errno.EPERM: "permission is missing",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "its directory does not exist",
    errno.ENOTDIR: "its directory is a file",
    errno.EISDIR: "there is a directory of that name",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "this process has too many files open",
}


def write_whole(path: str | os.PathLike[str], data: bytes | memoryview | Callable[[BinaryIO], None]) -> None:
    """Make `path` hold `data`, or leave it as it is: no reader and no crash ever meets a part of it.

    The bytes go into a temporary neighbour (`.name.<pid>.<unique>.tmp`), reach the disk, and are renamed into
    place; then the rename reaches the disk. Of several writers at the same time the last one wins, whole. A
    file that existed keeps its permission bits; a new one gets those that the umask leaves. A symbolic link
    stays and the file that it points to is replaced, as if it had been opened for writing. A write-protected
    file is not replaced. Temporary files for the same name that a dead writer left are removed.

    Args:
        data: the bytes, or a function that writes them to the open file it is given (readable and seekable).

    Raises:
        CheckpointError: with `errno`, `filename` and the cause. What was there is still there, unless the
            message says that the new file is in place and only its directory could not be synced.
        Exception: what `data` itself raised, if it is no OSError, after the same tidying up.
    """
    _place(path, lambda raw: _fill(raw, data))


def write_segments(path: str | os.PathLike[str], segments: Iterable[Segment]) -> int:
    """The same with blocks of memory at given places, zeros between them, by direct I/O where there is such.

    Args:
        segments: offsets, multiples of 4096 in rising order, and contiguous buffers; quickest from memory that
            begins at a page boundary.

    Returns:
        The size of the file, a multiple of 4096.

    Raises:
        CheckpointError: as `write_whole` does.
    """
    return _place(path, lambda raw: direct.write(raw, segments))


def _place(path: str | os.PathLike[str], fill: Callable[[int], T]) -> T:
    name = os.fspath(path)
    placed = False
    try:
        target = os.path.realpath(name)
        mode = _replaceable(target)
        folder, base = os.path.split(target)
        # Opened first: that a directory cannot be synced is found out while nothing has changed.
        directory = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _sweep(folder, base)  # first: what the dead left may be what the disk lacks
            temporary, raw = temporaries.create(folder, base, 0o666 if mode is None else 0o600)
            try:
                try:
                    if mode is not None:
                        os.chmod(raw, mode)
                    result = fill(raw)
                    os.fsync(raw)
                    # Some network file systems report a full disk only when a descriptor is closed. This one must
                    # stay open: it holds the lock, without which the file could be swept away.
                    os.close(os.dup(raw))
                    os.replace(temporary, target)
                    placed = True
                except BaseException as error:
                    temporaries.discard(temporary, error)
                    raise
            finally:
                temporaries.close(raw)
            os.fsync(directory)
        finally:
            temporaries.close(directory)
    except OSError as error:
        number = error.errno or errno.EIO
        said = os.strerror(number)
        reason = f"{_REASONS[number]} ({said})" if number in _REASONS else said
        if placed:
            text = f"in place, but its directory was not synced: a power cut may undo it: {reason}"
        else:
            text = f"the file was not written: {reason}"
        raise CheckpointError(number, text, name) from error
    return result


def _sweep(folder: str, base: str) -> None:
    try:
        sweep(folder, base)
    except OSError:
        pass  # a folder may be written to and not be listed


def _replaceable(target: str) -> int | None:
    """The permission bits of the file at `target`, None if there is none; an error if it must stay."""
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if stat.S_ISLNK(found.st_mode):  # a link is left after all were followed: they go round in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    if not stat.S_ISREG(found.st_mode):  # a rename would do away with the device, pipe or socket
        raise OSError(errno.EINVAL, "not a regular file", target)
    if not os.access(target, os.W_OK):  # a rename would ask the directory only
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    return stat.S_IMODE(found.st_mode)


def _fill(raw: int, data: bytes | memoryview | Callable[[BinaryIO], None]) -> None:
    if callable(data):
        with open(raw, "w+b", closefd=False) as file:
            data(file)
        return
    left = memoryview(data).cast("B")
    while left:
        written = os.write(raw, left)  # a signal, a quota or 2 GiB can make it less than asked for
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        left = left[written:]
