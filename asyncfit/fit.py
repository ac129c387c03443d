"""What `fit` returns: await it, enter it, or start it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio
import anyio.abc

from .errors import NotStarted
from .history import History
from .jobs import Job, running_library
from .run import Run, sole

__all__ = ["Fit"]

_kept: set[asyncio.Task[None]] = set()
"""Runs that the loop owns: asyncio itself holds its tasks only weakly."""


class Fit(Job[History]):
    """A run that has not begun. `await` it for its `History`, enter it for the live `Run`, or `start` it.

    Leaving the block waits for the run, as leaving a task group does: to end it earlier say `run.stop()`. An exception
    in the block cancels the run; a run that fails, or that somebody cancels, cancels the block.

    It is a coroutine: `asyncio.run`, `create_task`, `start_soon` and nurseries take it too, and `blocking()` runs it
    in a plain script.
    """

    def __init__(self, what: str, begin: Callable[[], Awaitable[Run]]) -> None:
        async def run_here() -> History:  # no method: a cycle would keep the data, and the warning, until a collection
            run = await begin()
            run._observed = True
            await run._hosted()
            return run._result()

        super().__init__(what, run_here)
        self._begin = begin
        self._host: _TaskHost | _GroupHost | None = None

    async def start(self, task_group: Any = None) -> Run:
        """Start the run and return the handle to it; nothing is published before the caller suspends.

        Args:
            task_group: an anyio or asyncio task group, or a trio nursery: it owns the run, and cancelling it cancels
                the run. What makes the run fail is raised by `run.wait()`, not by the group. On asyncio it may be left
                out: the loop owns the run then.
        """
        self._take()
        if task_group is None:
            if running_library() != "asyncio":
                raise NotStarted(f"on trio a run needs an owner: await {self._what}.start(nursery)")
        elif not hasattr(task_group, "start_soon") and not hasattr(task_group, "create_task"):
            raise TypeError(f"start takes a task group or a nursery, not {task_group!r}")
        run = await self._begin()
        try:
            if task_group is None:
                _in_task(run, asyncio.get_running_loop().create_task)
            elif hasattr(task_group, "start_soon"):
                task_group.start_soon(run._apart, name=f"asyncfit: run {run.id}")
            else:
                _in_task(run, task_group.create_task)
        except BaseException:  # the group is over
            run._settle()
            raise
        return run

    async def __aenter__(self) -> Run:
        self._take()
        run = await self._begin()
        run._observed = True
        self._host = _TaskHost(run) if running_library() == "asyncio" else _GroupHost(run)
        try:
            await self._host.enter()
        except BaseException:  # the loop is closing
            run._settle()
            raise
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._host is not None
        return await self._host.leave(error)

    @property
    def events(self) -> Any:
        """Not here: on the run."""
        raise NotStarted(f"{self._what} has not begun: `async with {self._what} as run: … run.events(…)`")


def _in_task(run: Run, create_task: Callable[..., asyncio.Task[None]]) -> asyncio.Task[None]:
    """The run in an asyncio task, which may be cancelled before its first step: then the run never begins."""
    coroutine = run._alone()
    try:
        task = create_task(coroutine, name=f"asyncfit: run {run.id}")
    except BaseException:
        coroutine.close()
        raise
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    task.add_done_callback(lambda task: run._settle())
    return task


def _leave(run: Run, error: BaseException | None) -> None:
    """The body has ended: with an exception it takes the run with it."""
    run._delivery.close_streams()
    if error is not None and not run._done.is_set():
        reason = "the block was cancelled" if isinstance(error, anyio.get_cancelled_exc_class()) else repr(error)
        kept = error if isinstance(error, Exception) else None
        run._ask(lambda: run._cancel(reason, kept))


class _TaskHost:
    """On asyncio: a task of its own, so that the block may be left in another task than it was entered in."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._body: asyncio.Task[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._inside = True
        self._interrupting = False

    async def enter(self) -> None:
        self._body = asyncio.current_task()
        self._task = _in_task(self._run, asyncio.get_running_loop().create_task)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A run that failed, or that somebody cancelled, cancels the body."""
        failed = self._run.outcome in ("failed", "cancelled")
        if self._inside and failed and self._body is not None and not self._body.done():
            self._interrupting = True
            self._body.cancel()

    async def leave(self, error: BaseException | None) -> bool:
        self._inside = False
        run = self._run
        mine = False
        if self._interrupting and self._body is not None:
            others = self._body.uncancel() > 0  # somebody else wants it cancelled too
            mine = isinstance(error, asyncio.CancelledError) and not others
        _leave(run, None if mine else error)
        cancelled: BaseException | None = None
        while self._task is not None and not self._task.done():
            try:
                with anyio.CancelScope(shield=cancelled is not None):
                    await asyncio.wait([self._task])
            except asyncio.CancelledError as another:
                cancelled = another
                run._host_cancelled()
        if error is not None and not mine:
            return False
        if cancelled is not None:
            raise cancelled
        run._result()
        return mine


class _GroupHost:
    """On trio: a nursery around the body."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks = anyio.create_task_group()
        self._inside = True
        self._interrupting = False

    async def enter(self) -> None:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._host, name=f"asyncfit: run {self._run.id}")
        self._tasks.start_soon(self._run._care)

    async def _host(self) -> None:
        await self._run._main()
        if self._inside and self._run.outcome in ("failed", "cancelled"):
            self._interrupting = True
            self._tasks.cancel_scope.cancel()

    async def leave(self, error: BaseException | None) -> bool:
        self._inside = False
        cancelled = error if isinstance(error, anyio.get_cancelled_exc_class()) else None
        mine = self._interrupting and cancelled is not None
        _leave(self._run, None if mine else error)
        try:
            if cancelled is None:
                await self._tasks.__aexit__(None, None, None)
            else:
                await self._tasks.__aexit__(type(cancelled), cancelled, cancelled.__traceback__)
        except BaseExceptionGroup as group:  # an interrupt
            raise sole(group) from None
        if error is not None and not mine:
            return False
        self._run._result()
        return mine
