"""A worker process as an object: started, asked to end, killed, reaped. What it says is `remote.py`'s business."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import anyio

from ..errors import WorkerLost

__all__ = ["EXIT", "Child"]

EXIT = 2.0
"""Seconds that a worker has to end itself when nothing is left to do."""

_START = """
import sys
sys.path[:] = eval(sys.argv[2])
from asyncfit.executors.worker import main
main(int(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
"""


class Child:
    """A worker process: started, asked to end, killed, reaped. The constructor takes milliseconds: not on the loop.

    Attributes:
        ended: a descriptor that becomes readable when it has ended, -1 where the system has none. The socket may stay
            open longer: what the process started in its turn may have inherited its end of it.

    Raises:
        WorkerLost: the system gives us no process, or no descriptors.
    """

    def __init__(self, env: Mapping[str, str | None]) -> None:
        self._line = self.ended = -1
        with contextlib.ExitStack() as theirs:
            try:
                self.socket, other = socket.socketpair()
                theirs.callback(other.close)
                line, self._line = os.pipe()  # its other end tells the kernel, if all else fails, that we are gone
                theirs.callback(os.close, line)
                paths: list[Any] = sys.path
                path = ascii([each for each in paths if isinstance(each, str)])  # imports ignore all others
                self._process = subprocess.Popen(
                    [
                        sys.executable, *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                        "-c", _START, str(other.fileno()), path, str(line), str(os.getpid()),
                    ],
                    pass_fds=[other.fileno(), line],
                    stdin=subprocess.DEVNULL,
                    env={name: value for name, value in {**os.environ, **env}.items() if value is not None},
                    process_group=0,  # Ctrl-C is for us; the worker hears of it from the run
                )  # fmt: skip
            except BaseException as error:
                self.close()
                if isinstance(error, OSError):
                    raise WorkerLost(f"no worker process could be started: {error}") from error
                raise
        self.socket.setblocking(False)
        with contextlib.suppress(AttributeError, OSError):
            self.ended = os.pidfd_open(self._process.pid)

    def status(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it lives."""
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Close our ends: it ends itself, if it lives."""
        mine = getattr(self, "socket", None)
        if mine is not None and mine.fileno() >= 0:
            with contextlib.suppress(OSError):
                mine.shutdown(socket.SHUT_RDWR)  # a process that we forked may have a copy of our end
            mine.close()
        for descriptor in (self._line, self.ended):
            if descriptor >= 0:
                os.close(descriptor)
        self._line = self.ended = -1

    async def gone(self, seconds: float) -> int:
        """Wait until it has ended, kill it when the time is up, and reap it."""
        deadline = time.monotonic() + seconds
        pause = 0.0005
        while (status := self._process.poll()) is None:
            if time.monotonic() >= deadline:
                self._process.kill()
                deadline = math.inf
            await anyio.sleep(pause)
            pause = min(2 * pause, 0.02)
        return status

    def reap(self) -> None:
        """Kill it if it lives, and see to it that nothing of it is left: takes milliseconds."""
        self._process.kill()
        self._process.wait()
