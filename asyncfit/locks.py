"""One writer at a time in a directory: a lock file that names who holds it.

Plain synchronous code, to be run in a worker thread. The lock is the operating system's (`flock`), so a process that is
killed holds nothing, and what it left in the file is no obstacle.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import threading
import weakref
from dataclasses import dataclass, replace

from .errors import CheckpointError, DirectoryBusy

__all__ = ["LOCK", "Holder", "Lock", "sync_directory"]

LOCK = ".lock"
"""The name of the lock file."""

_TRIES = 100
"""So often in a row others may remove the directory, or the file, while it is being taken."""
_MOST = 4096
"""Bytes of a lock file that are looked at."""
_LONGEST = 200
"""Characters of a run's id that are written into it."""
_UNKNOWN = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}
"""What file systems without `flock` answer."""

_logger = logging.getLogger("asyncfit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a lock file says.

    Attributes:
        pid, host, run: who holds the lock, or held it last.
        attempt: the newest attempt that was ever begun here; None if there was none.
    """

    pid: int
    host: str
    run: str = ""
    attempt: int | None = None


class Lock:
    """The right to write into a directory. Its methods may be called from any thread.

    Attributes:
        folder: the directory, absolute.
        previous: what the last holder left in the file, if it did not get to removing it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.path = os.path.join(self.folder, LOCK)
        self.previous: Holder | None = None
        self._mine = Holder(pid=os.getpid(), host=os.uname().nodename)
        self._file: int | None = None
        self._wanted = False
        self._guard = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether it has been taken and not been released."""
        return self._file is not None

    def take(self, run: str = "") -> bool:
        """Make the directory if it is not there, and lock it.

        Returns:
            whether the directory had to be made.

        Raises:
            DirectoryBusy: somebody else has it, or this very object.
            CheckpointError: the directory cannot be made, or nothing can be written in it.
        """
        with self._guard:
            if self._file is not None:
                raise _busy(self.folder, self._mine)
            self._mine = Holder(pid=os.getpid(), host=os.uname().nodename, run=run[:_LONGEST])
            made = self._take()
            if self.previous is not None:
                self._mine = replace(self._mine, attempt=self.previous.attempt)
            try:
                self._tell()
            except OSError as error:
                self._let_go(remove=self.previous is None)
                if made:
                    _remove_empty(self.folder)
                raise _failed(self.folder, error) from error
            self._wanted = True
            return made

    def note(self, *, run: str, attempt: int) -> None:
        """Write down, to stay whatever happens next, which attempt of which run begins.

        Raises:
            CheckpointError: it cannot be written.
        """
        with self._guard:
            self._mine = replace(self._mine, run=run[:_LONGEST], attempt=attempt)
            try:
                if self._file is not None:
                    self._tell()
            except OSError as error:
                raise _failed(self.folder, error) from error

    def keep(self) -> None:
        """Before each write: see that the directory and the lock are still there; else take them anew.

        Raises:
            DirectoryBusy: they were removed, and somebody else has them now.
            CheckpointError: they were removed, and cannot be made again; or the lock was released.
        """
        with self._guard:
            if not self._wanted:
                raise _failed(self.folder, OSError(errno.ENOLCK, "its lock was released"))
            if self._file is not None:
                if self._is_there(self._file):
                    return
                self._let_go(remove=False)
                _logger.warning("the lock of %r was removed while run %s writes there", self.folder, self._mine.run)
            self._take()
            try:
                self._tell()
            except OSError as error:
                self._let_go(remove=True)
                raise _failed(self.folder, error) from error

    def release(self, *, remove: bool = True) -> None:
        """Let go of it, and remove the file, unless it has to remember the attempt. May be called twice."""
        with self._guard:
            self._wanted = False
            self._let_go(remove=remove)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        missing: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        made = False
        for _ in range(_TRIES):
            try:
                made = _make(self.folder) or made
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                file = os.open(self.path, flags, 0o666)
            except FileNotFoundError as error:  # whoever held it has just removed the directory
                missing = error
                continue
            except OSError as error:
                if made:
                    _remove_empty(self.folder)
                raise _failed(self.folder, error) from error
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise OSError(errno.EINVAL, f"{LOCK} in it is no regular file")
                self._flock(file)
                if self._is_there(file):  # else whoever held it removed it between our opening and locking it
                    self.previous = _read(file)
                    self._file = file
                    _live.add(self)
                    return made
            except BaseException as error:
                os.close(file)
                if isinstance(error, OSError):
                    raise _failed(self.folder, error) from error
                raise
            os.close(file)
        raise _failed(self.folder, missing) from missing

    def _flock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(self.folder, _read(file)) from None
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            _logger.warning(
                "the file system of %r knows no locks (%s): nothing keeps a second process from writing there",
                self.folder, error.strerror,
            )  # fmt: skip

    def _is_there(self, file: int) -> bool:
        try:
            there, ours = os.lstat(self.path), os.fstat(file)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _tell(self) -> None:
        """Readers take the first line, so the rest of a longer one before it does no harm."""
        assert self._file is not None
        mine = self._mine
        fields = {"pid": mine.pid, "host": mine.host, "run": mine.run, "attempt": mine.attempt}
        data = json.dumps(fields).encode("ascii") + b"\n"
        if os.pwrite(self._file, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(self._file, len(data))
        os.fsync(self._file)

    def _let_go(self, *, remove: bool) -> None:
        file, self._file = self._file, None
        _live.discard(self)
        if file is None:
            return
        try:
            if remove and self._is_there(file):  # while it is locked: nobody else can have locked it
                os.unlink(self.path)
        except OSError as error:
            _logger.warning("%r could not be removed: %s", self.path, error.strerror)
        finally:
            os.close(file)


_live: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forked() -> None:
    """A child got the descriptors too: with them it would hold the locks when its parent is gone."""
    for lock in list(_live):
        file, lock._file, lock._wanted, lock._guard = lock._file, None, False, threading.Lock()
        if file is not None:
            os.close(file)
    _live.clear()


os.register_at_fork(after_in_child=_forked)


def _make(folder: str) -> bool:
    """Make the directory; whether it was not there."""
    if os.path.isdir(folder):
        return False
    made = [folder]
    while not os.path.lexists(parent := os.path.dirname(made[-1])):
        made.append(parent)
    try:
        os.makedirs(folder)
    except FileExistsError:
        if os.path.isdir(folder):  # somebody was quicker
            return False
        what = "a link that leads nowhere" if os.path.islink(folder) else "a file"
        raise NotADirectoryError(errno.ENOTDIR, f"it is {what}, not a directory") from None
    for each in reversed(made):  # what is durable in it is lost in a power cut if the directory itself is
        try:
            sync_directory(os.path.dirname(each))
        except OSError:
            pass  # of those that we may not read, the system takes care
    return True


def sync_directory(folder: str) -> None:
    """Let what was created, renamed and deleted in it reach the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass


def _read(file: int) -> Holder | None:
    """What a lock file says; None if it says nothing that makes sense."""
    try:
        found = json.loads(os.pread(file, _MOST, 0).partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    pid, host, run, attempt = (found.get(key) for key in ("pid", "host", "run", "attempt"))
    if type(pid) is not int or type(host) is not str or type(run) is not str:
        return None
    if type(attempt) is not int or not 0 <= attempt < 10**9:
        attempt = None
    return Holder(pid=pid, host=host[:_LONGEST], run=run, attempt=attempt)


def _busy(folder: str, holder: Holder | None) -> DirectoryBusy:
    if holder is None:
        return DirectoryBusy(folder)
    return DirectoryBusy(folder, pid=holder.pid, host=holder.host, run_id=holder.run)


def _failed(folder: str, error: OSError) -> CheckpointError:
    number = error.errno or errno.EIO
    return CheckpointError(number, f"no checkpoints can be written there: {error.strerror or error}", folder)
