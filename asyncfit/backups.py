"""A directory of checkpoints: what they are called, which is the newest, which are kept, and who may write there.

Plain synchronous code about names, to be run in a worker thread; it must not know what is in the files, nor anything of
runs and events.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass

from .checkpoints import sweep
from .errors import CheckpointError
from .locks import Lock, sync_directory

__all__ = ["Directory", "File", "file_name"]

_NAME = re.compile(r"checkpoint-([0-9]{4,9})-([0-9]{12,18})\.h5")

_logger = logging.getLogger("asyncfit")


def file_name(attempt: int, step: int) -> str:
    """What a checkpoint is called: names sort as the checkpoints do."""
    return f"checkpoint-{attempt:04d}-{step:012d}.h5"


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A checkpoint on the disk. Of two the greater is the newer.

    Attributes:
        attempt: which attempt of the run wrote it; a resumed one has the next number.
        step: how many batches it holds.
        path: where it is, absolute.
    """

    attempt: int
    step: int
    path: str


class Directory:
    """A directory that one run at a time writes checkpoints into. Files with other names are left alone.

    Args:
        path: where it is, or is to be made; the working directory of now counts.

    Attributes:
        path: the same, absolute; links in it are followed when it is opened.
        run: the id of the run that has it, or had it last.

    Raises:
        CheckpointError: the working directory is gone.
    """

    def __init__(self, path: str) -> None:
        try:
            self.path = os.path.abspath(path)
        except OSError as error:
            raise CheckpointError(error.errno, f"the working directory is gone: {error.strerror}", path) from error
        self._lock: Lock | None = None
        self._made = False
        self._attempt: int | None = None
        self._before: int | None = None  # what that was when this was opened
        self.run = ""

    @property
    def is_open(self) -> bool:
        """Whether it is this run's, to write into."""
        return self._lock is not None

    @property
    def attempt(self) -> int | None:
        """The newest attempt of a run that was ever begun here, as far as is known; None if there was none."""
        return self._attempt

    def open(self, run: str = "") -> None:
        """Make it if it is not there, lock it, and remove what killed runs left half-written.

        Args:
            run: the run's id, if it has one: whoever comes second is told.

        Raises:
            DirectoryBusy: another run has it, or this one already.
            CheckpointError: nothing can be written there, and why.
        """
        lock = self._lock or Lock(os.path.realpath(self.path))  # a link that is moved later leads no run astray
        self._made = lock.take(run)
        self._lock, self.run = lock, run
        try:
            with contextlib.suppress(OSError):  # if it cannot be read, the next line tells
                sweep(lock.folder)
            files = self.listed()
        except BaseException:
            self.close()
            raise
        known = [file.attempt for file in files[-1:]]
        if lock.previous is not None and lock.previous.attempt is not None:
            known.append(lock.previous.attempt)
        self._attempt = self._before = max(known, default=None)

    def begin(self, run: str, attempt: int) -> None:
        """Write down that this attempt of this run begins: no later one will have its number.

        Raises:
            CheckpointError: it cannot be written.
        """
        lock = self._opened()
        lock.note(run=run, attempt=attempt)
        self._attempt, self.run = attempt, run

    def place(self, attempt: int, step: int) -> str:
        """The path to write a checkpoint to. Called before each, for it sees to it that the directory is still ours.

        Raises:
            DirectoryBusy: the directory was removed meanwhile, and another run has made it anew.
            CheckpointError: it was removed, and cannot be made again.
        """
        lock = self._opened()
        lock.keep()
        return os.path.join(lock.folder, file_name(attempt, step))

    def listed(self) -> list[File]:
        """The checkpoints that are there, oldest first, whole or damaged; none if there is no directory.

        Raises:
            CheckpointError: the directory cannot be read.
        """
        found: list[File] = []
        folder = self._folder()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    match = _NAME.fullmatch(entry.name)
                    if match is None:
                        continue
                    attempt, step = int(match[1]), int(match[2])
                    if entry.name == file_name(attempt, step) and _is_file(entry):
                        found.append(File(attempt, step, entry.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(error.errno, f"the directory cannot be read: {error.strerror}", folder) from error
        return sorted(found)

    def prune(self, keep: int, damaged: Collection[str] = ()) -> None:
        """Delete all but the newest `keep` checkpoints, which must be durable. What cannot be deleted is logged.

        Args:
            keep: how many stay; at least 1.
            damaged: paths of those that nobody can read: they do not count, and go.
        """
        files = self._there()
        whole = [file for file in files if file.path not in damaged]
        kept = set(whole[-max(1, keep) :])
        for file in files:
            if file not in kept:
                _delete(file)

    def delete_all(self) -> None:
        """Delete all checkpoints, and see to it that a power cut brings none of them back."""
        files = self._there()
        for file in files:  # oldest first: if this is cut off, the run would go on from the newest
            _delete(file)
        if files:
            try:
                sync_directory(self._folder())
            except OSError as error:
                _logger.warning("%r was not synced: %s", self._folder(), error.strerror)

    def close(self, *, delete: bool = False, begun: bool = True) -> None:
        """Let go of the directory. May be called twice.

        Args:
            delete: the checkpoints go, and the directory too if nothing else is in it.
            begun: False if the attempt came to nothing, so that another may have its number.
        """
        lock = self._lock
        if lock is None:
            return
        if delete:
            self.delete_all()
        files = self._there()
        self._lock = None
        # The next attempt's number follows from the newest file, or else the lock file has to stay and tell it.
        attempt = self._attempt if begun else self._before
        remembers = bool(files) and attempt is not None and files[-1].attempt < attempt
        lock.release(remove=not remembers)
        if delete or self._made:
            self._remove()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _opened(self) -> Lock:
        if self._lock is None:
            raise RuntimeError(f"{self.path!r} is not open")
        return self._lock

    def _folder(self) -> str:
        return self.path if self._lock is None else self._lock.folder

    def _there(self) -> list[File]:
        try:
            return self.listed()
        except CheckpointError as error:
            _logger.warning("%s", error)
            return []

    def _remove(self) -> None:
        """A link stays, for it was somebody else's idea; and so does a working directory."""
        try:
            if not os.path.samefile(self.path, os.curdir):
                os.rmdir(self.path)
        except OSError:  # not empty, a mount point, somebody else's
            pass


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        _logger.warning("%r cannot be looked at: %s", entry.path, error.strerror)
        return False


def _delete(file: File) -> None:
    try:
        os.unlink(file.path)
    except FileNotFoundError:
        pass
    except OSError as error:
        _logger.warning("%r is to be kept no longer, but could not be deleted: %s", file.path, error.strerror)
