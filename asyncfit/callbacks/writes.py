"""Writing snapshots while training goes on: one write running and one waiting, and which files are kept.

The gate that asks for a write costs the copy of the model that it holds anyway; the writing is work of the run
(`event.start_soon`), so the run's end waits for it. A file is told of, and others are deleted for it, once it is
durable.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np

from ..errors import CheckpointError, DetachedEvent, InvalidInput
from ..events import CheckpointFailed, CheckpointSaved, Event
from ..snapshot import Snapshot
from .base import logger
from .files import off_loop

__all__ = ["File", "Write", "Writes", "obstacle"]


@dataclass(frozen=True, slots=True)
class File:
    """A file that was written: where (absolute), after which batch, and the figure that says how good it is."""

    path: str
    step: int
    value: float | None


@dataclass(slots=True, eq=False)
class Write:
    """One write.

    Attributes:
        event: the event that it belongs to, through which it is told of.
        snapshot: what to write.
        path: where.
        value: the monitored figure; None if there is none.
    """

    event: Event
    snapshot: Snapshot
    path: str
    value: float | None = None


class Writes:
    """The writes of one callback.

    Args:
        keep_last: how many of the newest files to keep; None does not count them.
        keep_best: how many of the best to keep, by `value`; of equal ones the newer is better. With both, a file
            stays that either keeps; with neither all stay.
        done: called with each write and whether its file is durable: False if it failed or was cut off by the run's
            cancellation.

    Attributes:
        files: those that are kept, oldest first, if any are to be deleted at all.
    """

    def __init__(self, keep_last: int | None, keep_best: int | None, done: Callable[[Write, bool], None]) -> None:
        self._keep_last, self._keep_best, self._done = keep_last, keep_best, done
        self.direction = "min"
        self.files: list[File] = []
        self._running: Write | None = None
        self._waiting: Write | None = None
        self._room: anyio.Event | None = None
        self._ended: anyio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being written, or waits to be."""
        return self._running is not None

    async def settled(self) -> None:
        """Wait until no write is on its way that was when this was called."""
        asked = {self._running, self._waiting} - {None}
        while asked & {self._running, self._waiting}:
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()

    async def put(self, write: Write) -> None:
        """Write it soon. Waits while another file waits already; one for the same file gives way to this newer one."""
        while self._waiting is not None and self._waiting.path != write.path:
            self._room = anyio.Event()
            await self._room.wait()
        if self._running is not None:
            self._waiting = write
            return
        try:
            self._start(write)
        except DetachedEvent:  # the run was cancelled, and ended while this waited
            self._done(write, False)

    def _start(self, write: Write) -> None:
        write.event.start_soon(self._write, write)
        self._running = write

    async def _write(self, write: Write) -> None:
        try:
            await anyio.lowlevel.checkpoint()  # the last place where it can be cut off
            with anyio.CancelScope(shield=True):  # a thread cannot be interrupted, and what it has done is to be told
                await self._save(write)
        except BaseException:
            self._done(write, False)
            raise
        finally:
            self._running = None
            waiting, self._waiting = self._waiting, None
            if self._room is not None:
                self._room.set()
            if self._ended is not None:
                self._ended.set()
                self._ended = None
            if waiting is not None:
                self._start(waiting)

    async def _save(self, write: Write) -> None:
        path, event, step = write.path, write.event, write.snapshot.step
        try:
            await off_loop(_make_folder, path)
            await write.snapshot.save(path)
            size = await off_loop(os.path.getsize, path)
        except Exception as error:
            failure = _as_checkpoint_error(error, path)
            event.publish(CheckpointFailed(path=path, error=failure, step=step))
            raise failure from error
        self._done(write, True)
        seconds = max(0.0, time.time() - event.time)
        event.publish(CheckpointSaved(path=path, size=size, seconds=seconds, step=step))
        if self._keep_last is not None or self._keep_best is not None:
            await off_loop(self._prune, path, step, write.value)

    # --- which files stay --------------------------------------------------------------------------------------------

    def _prune(self, path: str, step: int, value: float | None) -> None:
        """Delete what need not be kept now that the file at `path` is there; in a thread."""
        new = File(os.path.abspath(path), step, value)
        there = [file for file in self.files if file.path != new.path and os.path.exists(file.path)]
        there.append(new)
        kept = self._kept(there)
        for file in there:
            if file not in kept:
                try:
                    os.unlink(file.path)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    logger.warning("%s is to be kept no longer, but could not be deleted: %s", file.path, error)
        self.files = [file for file in there if file in kept]

    def _kept(self, files: list[File]) -> set[File]:
        kept = set(files[-self._keep_last :]) if self._keep_last is not None else set()
        if self._keep_best is not None:
            newest_first = files[::-1]
            kept.update(sorted(newest_first, key=self._rank)[: self._keep_best])  # stable: of equal ones the newer
        return kept

    def _rank(self, file: File) -> tuple[int, float]:
        """What stands further down is worse: NaN behind all numbers, no figure behind that."""
        if file.value is None or math.isnan(file.value):
            return (1 if file.value is not None else 2), 0.0
        with np.errstate(over="ignore"):
            value = float(np.float32(file.value))  # as figures are compared
        return 0, -value if self.direction == "max" else value

    # --- as text -----------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """The files, for a `state_dict`; with those that are on their way, if any are to be deleted at all."""
        files = list(self.files)
        if self._keep_last is not None or self._keep_best is not None:
            for write in (self._running, self._waiting):
                if write is not None:
                    new = File(os.path.abspath(write.path), write.snapshot.step, write.value)
                    files = [*(file for file in files if file.path != new.path), new]
        return json.dumps([[file.path, file.step, file.value] for file in files])

    def from_text(self, text: Any) -> None:
        """Take them over from an earlier run, which this one continues.

        Raises:
            InvalidInput: it is not what `to_text` gave.
        """
        try:
            found = [File(str(path), int(step), None if value is None else float(value))
                     for path, step, value in json.loads(text)]  # fmt: skip
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the files in the state of a callback are damaged: {error}: {text!r:.200}") from None
        self.files = found


def obstacle(path: str) -> OSError | None:
    """What shows, without writing, that no file can be written to `path`; directories that lack would be made."""

    def because(number: int, said: str) -> OSError:
        return OSError(number, said, path)

    if os.path.isdir(path):
        return because(errno.EISDIR, "there is a directory of that name")
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return because(errno.ENOTDIR, f"{folder} is no directory")
    if not os.access(folder, os.W_OK | os.X_OK):
        return because(errno.EACCES, f"permission to create files in {folder} is missing")
    return None


def _make_folder(path: str) -> None:
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)


def _as_checkpoint_error(error: Exception, path: str) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    error = obstacle(path) or error  # what `save` refused beforehand has no errno
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CheckpointError(number, f"the file was not written: {said}", path)
