"""Temporary files beside their target: locked while they are written, and swept away when their writer is dead.

A name alone does not tell whether a file is still being written: process numbers come round again, and in another
container they mean something else. So the writer holds a lock (`flock`) on the file, which the kernel drops when the
writer is gone, however it went; whoever can have the lock has found a file that nobody writes. Plain synchronous
code for a worker thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat

__all__ = ["close", "create", "discard", "sweep"]

_OURS = re.compile(r"\.(?P<base>.+)\.\d+\.[0-9a-f]{8}\.tmp", re.DOTALL)
_NO_LOCKS_HERE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
_ATTEMPTS = 100  # each is lost only to a sweep that looks within microseconds


def create(folder: str, base: str, permissions: int) -> tuple[str, int]:
    """A new file for what shall be `base` in `folder`: its path, and its descriptor, which holds the lock.

    Raises:
        OSError: it cannot be created; nothing is left of it.
    """
    for _ in range(_ATTEMPTS):
        path = os.path.join(folder, f".{_short(base)}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, permissions)
        try:
            # Between the two calls a sweep may have taken it for a dead writer's: then it is gone, or about to be.
            if _lock(descriptor) and _leads_to(path, descriptor):
                return path, descriptor
        except BaseException as error:
            close(descriptor)
            discard(path, error)
            raise
        close(descriptor)
        discard(path)
    raise OSError(errno.EAGAIN, "temporary files are swept away as soon as they are made")


def discard(path: str, error: BaseException | None = None) -> None:
    """Remove a temporary file; that it cannot be is noted in `error`, which is the reason to remove it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as left_over:
        if error is not None:
            error.add_note(f"{path} could not be removed: {left_over.strerror}")


def sweep(folder: str | os.PathLike[str], base: str | None = None) -> list[str]:
    """Remove the temporary files of writers that are dead; those that are being written stay, whoever writes them.

    Where a file system has no locks nothing is removed.

    Args:
        base: only those for this file name.

    Returns:
        The names that were removed.

    Raises:
        OSError: the folder cannot be listed. What cannot be removed stays, without an error.
    """
    place = os.fspath(folder)
    swept = []
    for name in os.listdir(place):
        found = _OURS.fullmatch(name)
        if found and (base is None or found["base"] == _short(base)):
            try:
                if _removed(os.path.join(place, name)):
                    swept.append(name)
            except OSError:
                pass  # somebody else's, or on its way already
    return swept


def _removed(path: str) -> bool:
    """Whether the file was a dead writer's, and is gone now."""
    # Not blocking, and no link followed: the name promises nothing of what is there.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)  # if the writer was done meanwhile, the file has another name by now, and nothing is here
        return True
    finally:
        close(descriptor)


def _short(base: str) -> str:
    return os.fsdecode(os.fsencode(base)[:200])  # a name may have 255 bytes, and ours needs some of them


def _lock(descriptor: int) -> bool:
    """Lock the file: False if a sweep has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    return True


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def close(descriptor: int) -> None:
    """Close without an error: what was written was synced before, or goes away."""
    try:
        os.close(descriptor)
    except OSError:
        pass
