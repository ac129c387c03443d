"""Compute in processes of their own: nothing that it does can hold the loop, and one that dies takes nothing with it.

    run's loop                                  worker process (`worker.py`)
      ProcessWorker.send  ── commands ───────►  a reading thread → Compute.inbox
      ProcessWorker.wait  ◄── reports ────────  Compute.run(), in the main thread

`ProcessWorker` is in `remote.py`, the process as an object in `child.py`, what a run sends there first in `parcel.py`.
Between the two is one Unix socket (`channel.py`); arrays go as descriptors (`memory.py`). A worker is a fresh
interpreter that imports this package and what the work names, never the main module. The end of the socket tells each
side that the other is gone. The parent keeps the newest state that nobody can undo, and puts it into its own model at
the end.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import anyio

from ..compute import Work
from ..errors import InvalidInput, NotStarted, WorkerLost
from ..machine import THREAD_VARIABLES
from ..signals import Signal
from .base import Place, Worker
from .child import EXIT, Child
from .memory import NotPortable, check_portable
from .parcel import check_factory
from .remote import ProcessWorker

__all__ = ["OwnProcess", "ProcessExecutor"]


class _Waiting:
    """A run's place in the queue for a worker."""

    def __init__(self, executor: ProcessExecutor, changed: Callable[[], None]) -> None:
        self.ready = False
        self.refused = False
        self._executor = executor
        self._changed = changed

    def grant(self) -> None:
        self.ready = True
        self._changed()

    def refuse(self) -> None:
        """There will be no place: to whoever starts it says so."""
        self.refused = True
        self.grant()

    def start(self, work: Work) -> Worker:
        if self.refused:
            raise NotStarted(_ENDED)
        try:
            return ProcessWorker(self._executor, work)
        except BaseException:
            self._executor._given_back(None)
            raise

    def release(self) -> None:
        self._executor._leave(self)


_ENDED = "the block of this ProcessExecutor has ended; make another one"


class ProcessExecutor:
    """Runs compute in worker processes: `async with af.ProcessExecutor(workers=2) as pool: … fit(…, executor=pool)`.

    A worker is a fresh interpreter, so scripts need no `if __name__ == "__main__"` guard. It is started when a run
    needs it, serves one run after the other, and ends with the block, which waits for the runs that still use it
    (leaving it with an exception ends them). More runs than workers wait for a free one, in order; they have begun
    nothing yet. A worker that dies fails the run that it serves with `WorkerLost`, or with `restarts` is replaced: the
    new one begins at the newest boundary whose state is here and repeats in silence what had been told. Nobody sees an
    event twice or misses one, and the numbers are the same to the bit; `WorkerRestarted` tells of it.

    Args:
        workers: how many runs may compute at the same time.
        env: environment variables for the workers, in addition to this process's, None for one that they shall not
            have. They are there before NumPy is imported, so that `{"OPENBLAS_CORETYPE": …}` chooses the kernels of
            their BLAS, `{"OPENBLAS_NUM_THREADS": …}` its threads; `TrainBegin.params` tells what they compute with.
        threads: BLAS threads of each worker; None leaves that to the environment. More than cores/workers is slower,
            and the last bits depend on the number.
        factory: "package.module:function", which makes a model of your own in the worker; its state is taken over.
            Without it the model must be importable and picklable itself.
        restarts: how many workers each run may lose before it fails.

    Raises:
        InvalidInput: a value that makes no sense.
    """

    name = "process"
    remote = True

    def __init__(
        self,
        workers: int = 1,
        *,
        env: Mapping[str, str | None] | None = None,
        threads: int | None = None,
        factory: str | None = None,
        restarts: int = 0,
    ) -> None:
        numbers: dict[str, tuple[Any, int]] = {
            "workers": (workers, 1), "threads": (1 if threads is None else threads, 1), "restarts": (restarts, 0),
        }  # fmt: skip
        for what, (number, least) in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise InvalidInput(
                    f"ProcessExecutor({what}=…) takes a whole number of at least {least}, not {number!r}"
                )
        given: Any = {} if env is None else env
        if not isinstance(given, Mapping) or not all(_is_variable(*pair) for pair in given.items()):
            raise InvalidInput(
                f"ProcessExecutor(env=…) takes a mapping of text to text, or to None for what workers shall not have, "
                f"not {env!r}"
            )
        if factory is not None:
            check_factory(factory)
        self.workers = workers
        self.factory = factory
        self.restarts = restarts
        self.env: dict[str, str | None] = {
            **given,
            **({} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))),
        }
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._taken = 0
        self._queue: deque[_Waiting] = deque()
        self._live: weakref.WeakSet[ProcessWorker] = weakref.WeakSet()
        self._changed = Signal()  # a place was given back; renewed each time
        self._state = "new"

    # --- its block -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise NotStarted("this ProcessExecutor has been entered already; make another one")
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._unused()
        finally:
            with self._lock:
                self._state = "closed"
                live, queue = list(self._live), list(self._queue)
                idle, self._idle = self._idle, []
                self._queue.clear()
            for waiting in queue:
                waiting.refuse()
            for worker in live:
                worker.kill(WorkerLost("the worker process was ended: the block of its ProcessExecutor was left"))
            for process in idle:
                process.close()
            with anyio.CancelScope(shield=True):
                try:
                    await self._unused()
                    for process in idle:
                        await process.gone(EXIT)
                finally:
                    for process in idle:
                        process.reap()

    async def _unused(self) -> None:
        """Wait until no run has a worker, or waits for one."""
        while True:
            changed = self._changed  # before the look: what changes after it sets this one
            with self._lock:
                if not self._taken and not self._queue:
                    return
            await changed.wait()

    # --- places --------------------------------------------------------------------------------------------------

    def check(self, trainable: Any) -> None:
        if self.factory is not None:
            return
        try:
            check_portable(trainable)
        except NotPortable as error:
            reason = str(error)
        except Exception as error:  # whatever a model's own pickling raises
            reason = f"it cannot be pickled ({type(error).__name__}: {error})"
        else:
            return
        raise InvalidInput(
            f"{type(trainable).__name__} cannot compute in a process of its own: {reason}. Define it at the top of a "
            "module that can be imported, or name a function there that makes it: "
            "ProcessExecutor(factory='package.module:function'); executor='thread' takes it as it is"
        )

    def place(self, changed: Callable[[], None]) -> Place:
        if self._state != "open":
            raise NotStarted(
                "a ProcessExecutor serves runs within its block: "
                f"async with af.ProcessExecutor({self.workers}) as executor: … fit(…, executor=executor)"
                if self._state == "new"
                else _ENDED
            )
        waiting = _Waiting(self, changed)
        with self._lock:
            self._queue.append(waiting)
        self._grant()
        return waiting

    def _grant(self) -> None:
        granted = []
        with self._lock:
            while self._queue and self._taken < self.workers:
                granted.append(self._queue.popleft())
                self._taken += 1
        for waiting in granted:
            waiting.grant()

    def _leave(self, waiting: _Waiting) -> None:
        with self._lock:
            queued = waiting in self._queue
            if queued:
                self._queue.remove(waiting)
        if queued:
            self._tell()
        elif not waiting.refused:
            self._given_back(None)

    def _process(self) -> Child:
        """A worker process for a run that has a place; a new one if none is idle."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return Child(self.env)
            if process.status() is None:
                return process
            process.close()  # it died meanwhile

    def _given_back(self, process: Child | None) -> bool:
        """A run needs its place no longer; whether its process is kept."""
        with self._lock:
            self._taken -= 1
            keep = process is not None and self._state == "open" and process.status() is None
            if keep and process is not None:
                self._idle.append(process)
        self._tell()
        self._grant()
        return keep

    def _tell(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, Signal()
        changed.set()

    def __repr__(self) -> str:
        waiting = len(self._queue)
        wait = "1 run waits" if waiting == 1 else f"{waiting} runs wait"
        return f"<ProcessExecutor: {self._taken} of {self.workers} workers busy, {wait}>"


class OwnProcess(ProcessExecutor):
    """`executor="process"`: one worker, for one run."""

    def __init__(self) -> None:
        super().__init__()
        self._state = "open"

    def _given_back(self, process: Child | None) -> bool:
        self._taken -= 1
        return False


def _is_variable(name: object, value: object) -> bool:
    """Whether an environment can hold it."""
    if not isinstance(name, str) or not isinstance(value, str | None):
        return False
    return name != "" and not {"=", "\0"} & set(name) and "\0" not in (value or "")
