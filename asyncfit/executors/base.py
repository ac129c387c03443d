"""What an executor is: something that runs compute somewhere and carries reports up and commands down.

A new one (a cluster's, say) implements `Executor` and `Worker`, and nothing else in the house has to know.
"""

from __future__ import annotations

import contextvars
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel

from ..compute import Progress, Work
from ..protocol import Command, Report

__all__ = ["Executor", "Wakeup", "Worker", "in_context"]


class Worker(Protocol):
    """One run's compute, wherever it runs. Used from the run's own loop, but for `wake`."""

    reports: deque[Report]
    """What came up and was not taken yet."""
    progress: Progress

    def send(self, command: Command) -> None:
        """Let compute have a command; never waits."""

    async def wait(self) -> None:
        """Wait until there are reports, or somebody called `wake`. May return early."""

    def wake(self) -> None:
        """Let `wait` return: from any thread, also from a signal handler."""

    async def aclose(self) -> None:
        """After `Ended`, or to give up: nothing of it is left when this returns."""


class Executor(Protocol):
    """Where runs compute."""

    name: str

    def start(self, work: Work) -> Worker:
        """Begin a run's compute. Called on the loop; must not wait."""


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
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            pass
        self._is_set = False  # before the caller looks for what came: what comes later sets it again

    def close(self) -> None:
        self._closed = True
        self._reader.close()
        self._writer.close()


def in_context(work: Callable[[], None], name: str) -> threading.Thread:
    """A started thread that does `work` in a copy of the caller's context."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread
