"""Work that goes batch by batch in worker threads: cancelling who waits for it ends it within a batch.

The work is a generator. It yields None when it has checked its input, and then for each batch the number of rows and
what came of them; or None again where it cannot go on before something was fetched on the loop. Between two batches it
may change threads, and nothing of it is left in one while it waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

from .signals import Signal
from .tasks import cancellations

__all__ = ["Done", "Ended", "Fetch", "Stepping", "Steps", "alone"]

R = TypeVar("R")
T = TypeVar("T")

Steps = Generator[tuple[int, Any] | None, None, T]

AHEAD = 256
"""So many batches may be done and not taken by the loop yet; then the thread lets the loop catch up."""

Fetch = Callable[[], Awaitable[object]]

Done = tuple[int, int, Any, float]
"""Number of a batch (from 0), its rows, what came of them, when."""


class Stepping(Generic[T]):
    """Steps on their way. `tick` and `advance` are called in worker threads, all else on the loop.

    Args:
        around: entered around all steps in a thread.
        wake: called in a thread when there is something in `done`; None if nobody looks at it.

    Attributes:
        batches: how many are done, if somebody looks.
        done: the batches that `every` asks for, until somebody takes them.
        every: 0 for none.
        woken: whether `wake` was called; set it to False before you look at `done`.
        wait: whether `advance` shall return after its batch.
        needs: whether something has to be fetched before `advance` is called again.
        over: whether the steps have come to their end; then `result` is there.
        limiter: for threads that go on with the steps. Steps that hold a lock between batches need one of their own:
            all others may be taken by threads that wait for that lock.
    """

    result: T

    def __init__(
        self,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        wake: Callable[[], object] | None = None,
    ) -> None:
        self.batches = 0
        self.done: deque[Done] = deque()
        self.every = 0
        self.woken = False
        self.wait = False
        self.needs = False
        self.over = False
        self.limiter: anyio.CapacityLimiter | None = None
        self._around = around
        self._wake = wake
        self._ended = False
        self._steps: Generator[tuple[int, Any] | None, None, None] | None = None

    # --- in a worker thread ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """For work before the first batch that takes time: raises if it was ended meanwhile."""
        if self._ended:
            raise Ended

    def open(self, steps: Steps[T]) -> None:
        """Check the input; if nobody is to hear of that, go on to the end."""
        self._steps, self.over = self._kept(steps), False
        with self._around():
            next(self._steps, None)
            if self._wake is None:
                self._go_on()

    def _kept(self, steps: Steps[T]) -> Generator[tuple[int, Any] | None, None, None]:
        self.result = yield from steps
        self.over = True

    def advance(self) -> None:
        """Do batches until there are none left, or somebody must be waited for."""
        with self._around():
            self._go_on()

    def _go_on(self) -> None:
        assert self._steps is not None
        if self._wake is None:
            for step in self._steps:
                if self._ended:
                    raise Ended
                if step is None:
                    self.needs = True
                    return
            return
        done = self.done
        for step in self._steps:
            if step is None:
                self.needs = True
                return
            self.batches = batches = self.batches + 1
            if self.every and not batches % self.every:
                done.append((batches - 1, *step, time.time()))
                if not self.woken:
                    self.woken = True
                    self._wake()
            if self._ended:
                raise Ended
            if self.wait or len(done) >= AHEAD:
                return

    # --- on the loop -------------------------------------------------------------------------------------------------

    async def go_on(self, fetch: Fetch | None = None) -> None:
        """`advance`, in a worker thread; see `hop`. What it needs is fetched before."""
        if self.needs:
            assert fetch is not None
            await fetch()
            self.needs = False
        await self._hop(self.limiter, self.advance)

    async def hop(self, work: Callable[..., R], *args: Any) -> R:
        """Call `work` in a worker thread. A cancellation ends the steps, and goes on when the thread has left them."""
        return await self._hop(None, work, *args)

    async def _hop(self, limiter: anyio.CapacityLimiter | None, work: Callable[..., R], *args: Any) -> R:
        errand = _Errand(work, args)
        try:
            answer: R = await anyio.to_thread.run_sync(errand.run, abandon_on_cancel=True, limiter=limiter)
            return answer
        except BaseException:
            self._ended = True
            await errand.left()
            raise

    def end(self) -> None:
        """Do no further batch."""
        self._ended = True

    def close(self) -> None:
        """Free what steps that did not come to their end hold. They must not run any more."""
        self._ended = True
        if self._steps is not None:
            self._steps.close()


async def alone(
    steps: Callable[[Callable[[], None]], Steps[T]],
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    fetch: Fetch | None = None,
) -> T:
    """Do steps that nobody listens to; `steps` takes the `tick`."""
    stepping: Stepping[T] = Stepping(around)
    try:
        await stepping.hop(stepping.open, steps(stepping.tick))
        while not stepping.over:
            await stepping.go_on(fetch)
        return stepping.result
    finally:
        stepping.close()


class Ended(Exception):
    """The steps were ended from outside: nobody waits for what they would have brought."""


class _Errand:
    """A call that a thread makes, unless it is called off before it began."""

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._work, self._args = work, args
        self._begins = threading.Lock()  # the thread takes it to begin, or who calls it off, whoever is first
        self._finished = Signal()

    def run(self) -> Any:
        if self._begins.acquire(blocking=False):
            try:
                return self._work(*self._args)
            finally:
                self._finished.set()
        return None

    async def left(self) -> None:
        """Return when no thread is at it, nor will be: whatever cancels the caller meanwhile."""
        if self._begins.acquire(blocking=False):
            return
        interrupt: BaseException | None = None
        while not self._finished.is_set():
            try:
                with anyio.CancelScope(shield=True):
                    await self._finished.wait()
            except cancellations():
                pass  # the caller is on its way out with one
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
