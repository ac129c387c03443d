"""Compute in a thread of this process: the default.

Reports gather in a queue. The loop is woken when one matters at once (a hold, a boundary, the end), when compute is
about to wait, and else at most every `GATHER` seconds: waking it for each batch costs more than a small batch. After
a wake-up it looks once more of its own accord, so that no report waits for a long batch to end.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from ..compute import Compute, Work
from ..pool import Pool
from ..protocol import BatchBegun, BatchDone, Command, End, Ended, Report
from .base import AtOnce, Place, Wakeup

__all__ = ["ThreadExecutor", "ThreadWorker"]

GATHER = 0.005

PROBE, NAP, LATE, PROBES = 0.05, 0.001, 0.004, 20
"""Every `PROBE` seconds a nap of `NAP` seconds finds out how soon the loop's thread gets the interpreter's lock; if
most of `PROBES` end later than `LATE`, that is worth a warning."""

_logger = logging.getLogger("asyncfit")


LEAVE = 1.0
"""When compute has waited for data for so many seconds its thread ends, and the next command begins another one."""


class ThreadWorker:
    """A thread that steps compute. A model of a user's own has one thread only, however long that waits for data."""

    def __init__(self, work: Work) -> None:
        self.reports: deque[Report] = deque()
        self._pool = Pool(most=work.copies)
        work.copy = self._pool.share
        self._compute = Compute(work, self._report)
        self.progress = self._compute.progress
        self._wakeup = Wakeup()
        self._woken = 0.0
        self._gathering = False
        self._lock = Lock(type(work.trainable).__name__)
        self._commanded = threading.Event()
        self._abandoned = False
        self._patience = LEAVE if getattr(work.trainable, "any_thread", False) else None
        self._leaving = threading.Lock()
        self._away = False
        self._steps = self._compute.run()
        self._context = contextvars.copy_context()
        self._begin()

    def _begin(self) -> None:
        context = self._context.copy()  # the one before may not be out of its own yet
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="asyncfit compute", daemon=True)
        self._thread.start()

    # --- in the thread ---

    def _run(self) -> None:
        over = True
        try:
            with self._compute.work.around():
                over = self._step_through()
        except BaseException as error:  # not of a batch: those are reports; the run must hear of it all the same
            at = self.progress
            self.reports.append(Ended(0, time.time(), at.step, at.epoch, None, error))
            self._wakeup.set()
        finally:
            if over:
                self._pool.close()

    def _step_through(self) -> bool:
        """Whether compute has ended; else it waits, and another thread is to go on with it."""
        compute, steps = self._compute, self._steps
        inbox, commanded = compute.inbox, self._commanded
        for _ in steps:  # it has come to where it needs a command
            self._wakeup.set()
            while not inbox:
                if self._abandoned:
                    steps.close()
                    return True
                commanded.wait(self._patience if compute.hungry else None)
                if compute.hungry and not commanded.is_set():
                    with self._leaving:
                        self._away = True  # first this, then a last look: who sends does it the other way round
                        if not inbox:
                            return False
                        self._away = False
                commanded.clear()
        self._wakeup.set()
        return True

    def _report(self, report: Report) -> None:
        self.reports.append(report)
        if report.__class__ in _OFTEN and not report.held:
            if 0.0 <= report.time - self._woken < GATHER:
                return
            self._woken = report.time
        self._wakeup.set()

    # --- on the loop ---

    def send(self, command: Command) -> None:
        self._compute.inbox.append(command)
        self._commanded.set()
        if self._away:
            with self._leaving:
                away, self._away = self._away, False
            if away:
                self._begin()

    async def wait(self) -> None:
        if self._lock.due and not self.reports:
            await self._lock.probe()
        if not self._gathering:
            await self._wakeup.wait()
            self._gathering = True
            return
        with anyio.move_on_after(2 * GATHER) as late:  # what came soon after the last wake-up may have set off none
            await self._wakeup.wait()
        self._gathering = not late.cancelled_caught

    def wake(self) -> None:
        self._wakeup.set()

    def abandon(self) -> None:
        pass  # a thread can only be asked

    async def aclose(self) -> None:
        self._abandoned = True
        self.send(End())
        self._thread.join()  # it has answered an End already, or does so after its batch
        self._wakeup.close()


class Lock:
    """Notices that compute keeps the interpreter's lock from the loop: naps there end late though nothing else ran.

    A thread that does not release the lock of itself gives it up only when somebody has asked for it for 5 ms. What
    NumPy computes releases it, or takes microseconds.
    """

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._late: list[bool] = []
        self._next = time.perf_counter() + PROBE
        self._told = False

    @property
    def due(self) -> bool:
        return not self._told and time.perf_counter() >= self._next

    async def probe(self) -> None:
        """Nap for a millisecond."""
        began, worked = time.perf_counter(), time.thread_time()
        await anyio.sleep(NAP)
        now = time.perf_counter()
        self._next = now + PROBE
        self._late.append(now - began - NAP - (time.thread_time() - worked) > LATE)  # other tasks ran meanwhile
        if len(self._late) < PROBES:
            return
        if sum(self._late) >= 0.65 * PROBES:
            self._told = True
            _logger.warning(
                "%s keeps the interpreter's lock while it trains: %d of %d times the event loop got it more than "
                "%.0f ms late. executor=\"process\" takes training out of its way",
                self._holder, sum(self._late), PROBES, LATE * 1000,
            )  # fmt: skip
        self._late.clear()


_OFTEN = (BatchBegun, BatchDone)


class ThreadExecutor:
    """A thread for each run."""

    name = "thread"
    remote = False

    def check(self, trainable: Any) -> None:
        pass

    def place(self, changed: Callable[[], None]) -> Place:
        return AtOnce(ThreadWorker)
