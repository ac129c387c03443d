"""Compute without a thread: stepped by hand, so that a test can drive every interleaving.

`Loopback` is the bare thing, synchronous: reports gather in a queue until they are taken, and compute moves only when
it is told to. `asyncfit.testing.LoopbackExecutor` runs a whole `fit` on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from ..compute import Compute, Work
from ..pool import Pool
from ..protocol import Command, Report
from .base import AtOnce, Place, Wakeup

__all__ = ["Loopback", "LoopbackExecutor", "LoopbackWorker"]


class Loopback:
    """One run's compute, stepped from outside.

    Attributes:
        reports: what it has reported and nobody has taken yet.
        over: whether it has answered `End`.
    """

    def __init__(self, work: Work) -> None:
        work.stepwise = True
        self._pool = Pool(most=work.copies)
        work.copy = self._pool.share
        self.reports: deque[Report] = deque()
        self.compute = Compute(work, self.reports.append)
        self.over = False
        self._waiting = False
        self._steps = self.compute.run()

    def send(self, command: Command) -> None:
        self.compute.inbox.append(command)

    @property
    def ready(self) -> bool:
        """Whether a step would do anything."""
        return not self.over and (not self._waiting or bool(self.compute.inbox))

    def step(self) -> None:
        """Run until the next batch, or to where it can do nothing without a command."""
        try:
            with self.compute.work.around():
                self._waiting = next(self._steps)
        except StopIteration:
            self.close()

    def close(self) -> None:
        self._steps.close()
        self._pool.close()
        self.over = True


class LoopbackWorker:
    """Compute on the loop itself: it moves a step each time the run waits, so that the order of all things is fixed."""

    def __init__(self, work: Work) -> None:
        self._loopback = Loopback(work)
        self.reports = self._loopback.reports
        self.progress = self._loopback.compute.progress
        self._wakeup = Wakeup()

    def send(self, command: Command) -> None:
        self._loopback.send(command)
        self._wakeup.set()

    async def wait(self) -> None:
        if self._loopback.ready:
            await anyio.lowlevel.checkpoint()
            if self._loopback.ready:
                self._loopback.step()
        else:
            await self._wakeup.wait()

    def wake(self) -> None:
        self._wakeup.set()

    def abandon(self) -> None:
        pass

    async def aclose(self) -> None:
        self._loopback.close()
        self._wakeup.close()


class LoopbackExecutor:
    """Runs a `fit` without a thread, one batch each time the loop comes by. For tests: compute holds the loop."""

    name = "loopback"
    remote = False

    def check(self, trainable: Any) -> None:
        pass

    def place(self, changed: Callable[[], None]) -> Place:
        return AtOnce(LoopbackWorker)
