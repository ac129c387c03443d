"""Work that handlers start and no gate waits for: `event.start_soon`. The run's end waits for it, before `TrainEnd`.

It may be asked for from any thread; all else happens in the run's loop. Whoever conducts the run holds compute's last
report back as long as there is such work, so that what the work publishes comes before `TrainEnd`.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

from .errors import AsyncFitError, DetachedEvent
from .mailbox import Mailbox
from .subscriptions import is_async
from .tasks import cancellations, scope_cancelled, take_back, task_cancelled, was_interrupted

__all__ = ["Background", "checked_work"]

_logger = logging.getLogger("asyncfit")


def checked_work(function: object) -> Callable[..., Awaitable[object]]:
    """`function`, if calling it gives something to await."""
    if not callable(function):
        if hasattr(function, "close") and hasattr(function, "__await__"):
            function.close()  # else a "never awaited" warning follows the error
            raise TypeError("start_soon takes the async function itself and its arguments; drop the () after it")
        raise TypeError(f"start_soon takes an async function and its arguments, not {function!r}")
    if not is_async(function):
        raise TypeError(
            f"start_soon takes an async function, not {function!r}; for a plain one that blocks: "
            "event.start_soon(anyio.to_thread.run_sync, function)"
        )
    return function


class Background:
    """The work in the background of one run.

    Args:
        on_loop: has something called in the run's loop, soon; from any thread.
        failed: gets what work raised that no subscriber's `on_error` deals with.
        crashed: gets what no handler may raise, such as SystemExit.
        interrupted: hears of the loop's own cancellation.
        settled: called when there is none left, for now.
    """

    def __init__(
        self,
        *,
        on_loop: Callable[[Callable[[], object]], None],
        failed: Callable[[BaseException], None],
        crashed: Callable[[BaseException], None],
        interrupted: Callable[[], None],
        settled: Callable[[], None],
    ) -> None:
        self._on_loop, self._failed, self._crashed = on_loop, failed, crashed
        self._interrupted, self._settled = interrupted, settled
        self._lock = threading.Lock()
        self._asked = 0  # and not done
        self._over = self._closed = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._deadline = math.inf

    def serve(self, tasks: anyio.abc.TaskGroup) -> None:
        """From now on work runs in this group."""
        self._tasks = tasks

    def start(
        self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], box: Mailbox | None, wait: bool
    ) -> None:
        """Run `function(*args)` in a task of the run, in the caller's context; `box` is whose handler asks for it.

        Without `wait` it goes on until the run's tasks are cancelled, which is the last that happens to them.

        Raises:
            DetachedEvent: the run has come to its `TrainEnd`, or without `wait` to its very end.
        """
        checked_work(function)
        with self._lock:
            if self._over and wait:
                raise DetachedEvent("start_soon() is too late: nothing of the run comes after TrainEnd")
            if self._closed:
                raise DetachedEvent("start_soon() is too late: the run has ended")
            self._asked += wait
        context = contextvars.copy_context()

        def spawn() -> None:
            assert self._tasks is not None  # no event comes before there is one
            begin = functools.partial(self._tasks.start_soon, name=f"asyncfit: work of {_name(box)}")
            context.run(begin, self._do if wait else self._attend, function, args, box)

        self._on_loop(spawn)

    async def _do(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], box: Mailbox | None) -> None:
        try:
            with anyio.CancelScope(deadline=self._deadline) as scope:
                self._scopes.add(scope)
                try:
                    await function(*args)
                except BaseException as error:
                    self._raised(error, box)
                finally:
                    self._scopes.discard(scope)
            if scope.cancelled_caught:
                _logger.warning("work that %s started was cut off: the run's grace time is over", _name(box))
        finally:
            with self._lock:
                self._asked -= 1
            if not self._asked:
                self._settled()

    async def _attend(
        self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], box: Mailbox | None
    ) -> None:
        """Work that nobody waits for."""
        try:
            await function(*args)
        except BaseException as error:
            self._raised(error, box)

    def _raised(self, error: BaseException, box: Mailbox | None) -> None:
        """What a handler's exception would do, this one does."""
        if isinstance(error, cancellations()):
            if was_interrupted(error):
                take_back()
                self._interrupted()
                return
            if scope_cancelled() or task_cancelled():
                raise error
            leaked = AsyncFitError("it awaited a task that was cancelled")
            leaked.__cause__ = error
            error = leaked
        if box is not None:
            error.add_note(f"in work that {box.name} started with start_soon")
        if not isinstance(error, Exception):
            self._crashed(error)
        elif box is None:
            self._failed(error)
        else:
            box.work_failed(error)

    def hurry(self, deadline: float) -> None:
        """Cancel at that time what is not done by then."""
        self._deadline = min(self._deadline, deadline)
        for scope in self._scopes:
            scope.deadline = self._deadline

    def close(self) -> None:
        """The run's tasks are about to be cancelled: nothing can be started any more."""
        self._closed = True

    def finish(self) -> bool:
        """Whether there is none left; if so, none can be started any more."""
        with self._lock:
            self._over = self._over or not self._asked
            return self._over


def _name(box: Mailbox | None) -> str:
    return "a handler" if box is None else box.name
