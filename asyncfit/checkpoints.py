"""Files that are whole or not there: written beside their place, synced, and moved into it in one step.

Plain synchronous code about bytes and paths, to be run in a worker thread; it must not know what the bytes
mean, nor anything of runs and events.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import BinaryIO

from .errors import CheckpointError

__all__ = ["write_whole"]

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
    file is not replaced.

    Args:
        data: the bytes, or a function that writes them to the open file it is given (readable and seekable).

    Raises:
        CheckpointError: with `errno`, `filename` and the cause. What was there is still there, unless the
            message says that the new file is in place and only its directory could not be synced.
        Exception: what `data` itself raised, if it is no OSError, after the same tidying up.
    """
    name = os.fspath(path)
    placed = False
    try:
        target = os.path.realpath(name)
        mode = _replaceable(target)
        folder, base = os.path.split(target)
        # Opened first: that a directory cannot be synced is found out while nothing has changed.
        directory = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            temporary = os.path.join(folder, _neighbour(base))
            try:
                _fill(temporary, data, mode)
                os.replace(temporary, target)
                placed = True
            except BaseException as error:
                _discard(temporary, error)
                raise
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        number = error.errno or errno.EIO
        said = os.strerror(number)
        reason = f"{_REASONS[number]} ({said})" if number in _REASONS else said
        if placed:
            text = f"in place, but its directory was not synced: a power cut may undo it: {reason}"
        else:
            text = f"the file was not written: {reason}"
        raise CheckpointError(number, text, name) from error


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


def _neighbour(base: str) -> str:
    short = os.fsdecode(os.fsencode(base)[:200])  # a name may have 255 bytes, and ours needs some of them
    return f".{short}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def _fill(temporary: str, data: bytes | memoryview | Callable[[BinaryIO], None], mode: int | None) -> None:
    """Create `temporary` with all of `data` in it, on the disk when this returns."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    raw = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    try:
        if mode is not None:
            os.chmod(raw, mode)
        if callable(data):
            with open(raw, "w+b", closefd=False) as file:
                data(file)
        else:
            left = memoryview(data).cast("B")
            while left:
                written = os.write(raw, left)  # a signal, a quota or 2 GiB can make it less than asked for
                if not written:
                    raise OSError(errno.EIO, "nothing was written")
                left = left[written:]
        os.fsync(raw)
    except BaseException:
        try:
            os.close(raw)
        except OSError:
            pass  # the first error is the one to tell
        raise
    os.close(raw)  # some network file systems report a full disk only here


def _discard(temporary: str, error: BaseException) -> None:
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    except OSError as left_over:
        error.add_note(f"{temporary} could not be removed: {left_over.strerror}")
