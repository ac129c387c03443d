"""What an executor is: something that runs compute somewhere and carries reports up and commands down.

A new one (a cluster's, say) implements `Executor`, `Place` and `Worker`, and nothing else in the house has to know.
"""

from __future__ import annotations

import contextvars
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import anyio
import anyio.lowlevel

from ..compute import Progress, Work
from ..protocol import Command, Report

__all__ = ["AtOnce", "Executor", "Place", "Wakeup", "Worker", "in_context"]


class Worker(Protocol):
    """One run's compute, wherever it runs. Used from the run's own loop, but for `wake`; unless the executor is
    `remote`, `send` is also called from a thread, with batches that are read there. If it is, a worker may have a
    `pack`, which is called there instead, and makes of a command what `send` will be given."""

    reports: deque[Report]
    """What came up and was not taken yet."""
    progress: Progress

    def send(self, command: Command) -> None:
        """Let compute have a command; never waits."""

    async def wait(self) -> None:
        """Wait until there are reports, or somebody called `wake`. May return early."""

    def wake(self) -> None:
        """Let `wait` return: from any thread, also from a signal handler."""

    def abandon(self) -> None:
        """The time for an orderly end is up: end it by force, if that can be done; `Ended` comes all the same."""

    async def aclose(self) -> None:
        """After `Ended`, or to give up: nothing of it is left when this returns. Called again if it is interrupted."""


class Place(Protocol):
    """A run's place in an executor, which may have to be waited for."""

    ready: bool

    def start(self, work: Work) -> Worker:
        """Begin the run's compute, once it is ready. Called on the loop; must not wait."""

    def release(self) -> None:
        """Give it up unused."""


class Executor(Protocol):
    """Where runs compute.

    Attributes:
        remote: not in this process, so that what takes part must be importable there.
    """

    name: str
    remote: bool

    def check(self, trainable: Any) -> None:
        """Refuse, when `fit` is called, a model that cannot compute there.

        Raises:
            InvalidInput: with the way out.
        """

    def place(self, changed: Callable[[], None]) -> Place:
        """Queue for a place; `changed` is called, from any thread, when it becomes ready.

        Raises:
            Exception: there is none to be had; before anything of the run has happened.
        """


class AtOnce:
    """A place where there is always one."""

    ready = True

    def __init__(self, start: Callable[[Work], Worker]) -> None:
        self.start = start

    def release(self) -> None:
        pass


class Wakeup:
    """A socket pair: wakes asyncio, uvloop and trio alike, from any thread and from signal handlers."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_set = False
        self._closed = False

    def set(self) -> None:
        if self._is_set or self._closed:
            return
        self._is_set = True
        try:
            self._writer.send(b".")
        except OSError:  # full, so it will be read; or closed at this very moment
            pass

    async def wait(self) -> None:
        if not self._is_set:
            await anyio.wait_readable(self._reader)
        else:
            await anyio.lowlevel.checkpoint()
        self.clear()

    def clear(self) -> None:
        """Before the caller looks for what came: what comes later sets it again."""
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            pass
        self._is_set = False

    def fileno(self) -> int:
        """Readable when it is set."""
        return self._reader.fileno()

    def close(self) -> None:
        self._closed = True
        self._reader.close()
        self._writer.close()


def in_context(work: Callable[[], None], name: str) -> threading.Thread:
    """A started thread that does `work` in a copy of the caller's context."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread
