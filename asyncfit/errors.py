"""The exceptions, one tree.

::

    AsyncFitError
    ├── InvalidInput (ValueError)      what was given cannot be used; raised before anything has started
    ├── ModelBusy (RuntimeError)       a run holds the model; the message names the way that works meanwhile
    ├── CallbackBusy (RuntimeError)    a callback object takes part in another run, which has not ended
    ├── DirectoryBusy (RuntimeError)   another run, of this process or another, writes its checkpoints there
    ├── NotStarted (RuntimeError)      a fit was used before it was entered, or a second time
    ├── DetachedEvent (RuntimeError)   control or model asked of an event that belongs to no run, or has none
    ├── GateReleased (RuntimeError)    control asked of an event whose gate is no longer held
    ├── RunCancelled                   somebody cancelled the run that you await
    ├── SubscriberTimeout (TimeoutError)   a handler was not done within its `timeout=`
    ├── WorkerLost                     the process that computed is gone
    ├── CheckpointError (OSError)      a file could not be written
    └── BadFile (ValueError)           a file cannot be read as a model

Values are attributes, not only in the text. Slips in code (a wrong signature, an unknown keyword) are plain
`TypeError`, as Python itself raises them.
"""

from __future__ import annotations

import functools
import os
from typing import Any

__all__ = [
    "AsyncFitError",
    "BadFile",
    "CallbackBusy",
    "CheckpointError",
    "DetachedEvent",
    "DirectoryBusy",
    "GateReleased",
    "InvalidInput",
    "ModelBusy",
    "NotStarted",
    "RunCancelled",
    "SubscriberTimeout",
    "WorkerLost",
]


class AsyncFitError(Exception):
    """The root of all errors that asyncfit raises on purpose."""


class InvalidInput(AsyncFitError, ValueError):
    """What was given cannot be used; the message says what was expected and what to do."""


class ModelBusy(AsyncFitError, RuntimeError):
    """A run holds the model, so it cannot be changed (or read without waiting) now."""


class CallbackBusy(AsyncFitError, RuntimeError):
    """A callback object takes part in another run, which has not ended; it serves one at a time."""


class DirectoryBusy(AsyncFitError, RuntimeError):
    """Another run writes its checkpoints into this directory; one at a time may, of all processes.

    Attributes:
        path: the directory.
        pid, host: the process that has it; None and "" if that cannot be told.
        run_id: its run, or "" if that has not begun.
    """

    def __init__(self, path: str, *, pid: int | None = None, host: str = "", run_id: str = "") -> None:
        where = f"process {pid} on host {host!r}" if pid is not None else "another process"
        if pid == os.getpid() and host == os.uname().nodename:
            where = f"this process ({pid} on host {host!r})"
        run = f"run {run_id!r}" if run_id else "a run"
        super().__init__(
            f"{path!r} is in use: {run} of {where} writes its checkpoints there; wait for its end, or give each "
            "BackupAndRestore a directory of its own"
        )
        self.path = path
        self.pid = pid
        self.host = host
        self.run_id = run_id

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), pid=self.pid, host=self.host, run_id=self.run_id), (self.path,)


class NotStarted(AsyncFitError, RuntimeError):
    """A fit was used before it was entered, or used twice."""


class DetachedEvent(AsyncFitError, RuntimeError):
    """Control or a model was asked of an event that belongs to no run, or that carries none."""


class GateReleased(AsyncFitError, RuntimeError):
    """Control was asked of an event that the run no longer waits for."""


class RunCancelled(AsyncFitError):
    """The run was cancelled by somebody else than the one who awaits it.

    Attributes:
        reason: what `cancel(reason)` was given.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the run was cancelled")
        self.reason = reason

    def __reduce__(self) -> tuple[type[RunCancelled], tuple[str]]:
        return type(self), (self.reason,)


class SubscriberTimeout(AsyncFitError, TimeoutError):
    """A handler was not done within the `timeout=` of its subscription.

    Attributes:
        name: the subscriber.
        timeout: its limit in seconds.
    """

    def __init__(self, name: str, timeout: float, doing: str = "") -> None:
        super().__init__(f"{name} was not done within its timeout of {timeout:g} s{doing and f' ({doing})'}")
        self.name = name
        self.timeout = timeout
        self._doing = doing

    def __reduce__(self) -> tuple[type[SubscriberTimeout], tuple[str, float, str]]:
        return type(self), (self.name, self.timeout, self._doing)


class WorkerLost(AsyncFitError):
    """The process that computed is gone.

    Attributes:
        exitcode: its exit code, or None if a signal ended it.
        signal: the number of that signal, or None.
    """

    def __init__(self, message: str, *, exitcode: int | None = None, signal: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode
        self.signal = signal


class CheckpointError(AsyncFitError, OSError):
    """A model file could not be written; whatever was there before is still there."""


class BadFile(AsyncFitError, ValueError):
    """A file is no model that can be read; the message names the file and what is wrong with it."""
