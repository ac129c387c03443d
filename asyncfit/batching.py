"""`batches`: rows that come one by one, from an async iterator, a queue or a memory stream, gathered into batches."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
import numpy as np

from .data import options
from .errors import InvalidInput
from .jobs import running_library
from .tasks import cancellations, close_iterator

__all__ = ["Batches", "batches"]


def batches(rows: Any, size: int, *, max_wait: float | None = None) -> Batches:
    """Gather rows into batches of `size`, as an async iterator that `fit`, `evaluate` and `predict` take.

    A row is `x`, `(x, y)` or `(x, y, sample_weight)`: a tuple of arrays, lists or numbers, the same shapes in each row.
    The last batch may be smaller, and so is one for which no more rows have come within `max_wait` seconds after its
    first. Running out of that time cancels nothing in `rows`: the next row goes into the next batch. Whoever has read
    enough closes it (`aclose`, `async with`; a run does so at its end): that ends a read that is under way, and closes
    what `rows` is, if it can be closed.

    Args:
        rows: an async iterable; something with `async get()`, such as `asyncio.Queue`; or with `async receive()`, such
            as the memory streams of anyio and trio.
        size: rows a batch.
        max_wait: seconds; None waits for as many rows as it takes.

    Raises:
        InvalidInput: `rows` is none of these, or a number makes no sense.
    """
    return Batches(rows, size, max_wait=max_wait)


class Batches(AsyncIterator[Any]):
    """See `batches`. It is read once, by one reader at a time."""

    def __init__(self, rows: Any, size: int, *, max_wait: float | None = None) -> None:
        self._size = options.whole("size", size)
        wait: Any = max_wait
        if wait is not None and not (type(wait) in (int, float) and 0 < wait < math.inf):
            raise InvalidInput(f"max_wait={max_wait!r}: give seconds, more than 0, or None to wait for whole batches")
        self._max_wait = max_wait
        self._rows = _rows_of(rows, pausing=max_wait is not None)
        self._gathered: list[Any] = []
        self._until = math.inf  # when what has been gathered is enough
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._over:
            if self._max_wait is None:  # no scope: what yields rows may open one of its own, and leave it open
                await self._gather()
            else:
                with anyio.CancelScope(deadline=self._until) as scope:
                    await self._gather(scope)
        gathered = self._gathered
        if not gathered:
            raise StopAsyncIteration
        self._gathered, self._until = [], math.inf
        return _stacked(gathered)

    async def _gather(self, scope: anyio.CancelScope | None = None) -> None:
        gathered = self._gathered  # kept if this is cancelled
        while len(gathered) < self._size:
            row = await self._rows.take()
            if row is _END:
                self._over = True
                return
            gathered.append(row)
            if len(gathered) == 1 and scope is not None and self._max_wait is not None:
                scope.deadline = self._until = anyio.current_time() + self._max_wait

    async def aclose(self) -> None:
        """Read no more. Rows that are no whole batch yet are dropped."""
        self._over = True
        self._gathered.clear()
        await self._rows.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


_END: Any = object()


class _Rows(Protocol):
    async def take(self) -> Any:
        """The next row, or `_END`. What it has when it is cancelled it gives the next time."""

    async def aclose(self) -> None: ...


def _rows_of(rows: Any, *, pausing: bool) -> _Rows:
    """How to read `rows`; if one may stop waiting for the next one, in a way that does not hurt what yields them."""
    for name in ("receive", "get"):
        if inspect.iscoroutinefunction(getattr(rows, name, None)):
            return _Received(rows, getattr(rows, name))
    if hasattr(rows, "__aiter__"):
        return _Pumped(rows) if pausing else _Iterated(rows)
    kind = type(rows).__name__
    if inspect.iscoroutine(rows):
        rows.close()
        raise InvalidInput("batches takes what yields rows, not a coroutine; await it first")
    way = "let a generator gather them, and give that to fit"
    if callable(getattr(rows, "get", None)):
        way = "use asyncio.Queue or an anyio memory stream, or let a generator gather what get() returns"
    raise InvalidInput(
        "batches takes rows that come one by one: an async iterator, an asyncio.Queue or a memory stream, not a "
        f"{kind}; {way}"
    )


class _Received:
    """A queue or a stream: a call that is cancelled has taken nothing."""

    def __init__(self, rows: Any, take: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._rows, self._take = rows, take

    async def take(self) -> Any:
        try:
            return await self._take()
        except Exception as error:
            if type(error).__name__ in ("EndOfStream", "EndOfChannel", "QueueShutDown"):
                return _END
            raise

    async def aclose(self) -> None:
        await close_iterator(self._rows)


class _Iterated:
    """An async iterator, read by whoever waits for it."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._iterator: Any = None

    async def take(self) -> Any:
        if self._iterator is None:
            self._iterator = aiter(self._rows)
        return await anext(self._iterator, _END)

    async def aclose(self) -> None:
        await close_iterator(self._iterator)


class _Pumped:
    """An async iterator, read by a task of its own: who waits may give up, and take the row the next time.

    The task reads a row when one is wanted, and never one ahead.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._begun = self._wanted = self._reading = self._closing = False
        self._scope: anyio.CancelScope | None = None
        self._answer: list[Any] = []  # a row, or an error
        self._task: object = None  # asyncio holds its tasks only weakly

    async def take(self) -> Any:
        if not self._begun:
            self._begun = True
            self._ask, self._arrived, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
            self._scope = anyio.CancelScope()
            self._task = _spawn(self._pump)
        if not self._wanted:
            self._wanted = True
            self._ask.set()
        await self._arrived.wait()
        self._wanted, self._arrived = False, anyio.Event()
        row, error = self._answer.pop()
        if error is not None:
            raise error
        return row

    async def _pump(self) -> None:
        assert self._scope is not None
        iterator: Any = None
        try:
            with self._scope:
                iterator = aiter(self._rows)
                try:
                    while True:
                        await self._ask.wait()
                        if self._closing:
                            break
                        self._ask = anyio.Event()
                        self._give(await self._read(iterator))
                finally:
                    if not self._scope.cancel_called:  # here: what it has open it may close only within this scope
                        iterator, ending = None, iterator
                        await close_iterator(ending)
        except BaseException as error:
            if isinstance(error, cancellations()):  # the loop is ending, or the source awaited what was cancelled
                leaked = RuntimeError("what yields rows was cancelled from elsewhere")
                leaked.__cause__, error = error, leaked
            self._give(None, error)
        finally:
            self._iterator = iterator
            self._ended.set()

    async def _read(self, iterator: Any) -> Any:
        self._reading = True
        try:
            return await anext(iterator, _END)
        finally:
            self._reading = False

    def _give(self, row: Any, error: BaseException | None = None) -> None:
        self._answer.append((row, error))
        self._arrived.set()

    async def aclose(self) -> None:
        if self._scope is None:
            return
        self._closing = True
        if self._reading:
            self._scope.cancel()
        else:
            self._ask.set()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
            await close_iterator(self._iterator)
        self._task = self._iterator = None


def _spawn(function: Callable[[], Coroutine[Any, Any, None]]) -> object:
    """A task that belongs to nobody: `function` must end by itself, and raise nothing."""
    if running_library() == "trio":
        spawn = sys.modules["trio"].lowlevel.spawn_system_task
        return spawn(function, context=contextvars.copy_context())
    return asyncio.get_running_loop().create_task(function(), name="asyncfit: rows")


def _stacked(rows: list[Any]) -> Any:
    """The rows as arrays: x, or a tuple."""
    first = rows[0]
    if not isinstance(first, tuple):
        if any(isinstance(row, tuple) for row in rows):
            raise InvalidInput("some rows are tuples and some are not; let each be x, (x, y) or (x, y, sample_weight)")
        return _column("x", rows)
    names = ("x", "y", "sample_weight")
    if not 1 <= len(first) <= 3 or any(not isinstance(row, tuple) or len(row) != len(first) for row in rows):
        raise InvalidInput("each row is x, (x, y) or (x, y, sample_weight), and all rows are alike")
    return tuple(_column(name, [row[i] for row in rows]) for i, name in enumerate(names[: len(first)]))


def _column(name: str, values: list[Any]) -> Any:
    arrays = [np.asarray(value) for value in values]
    for place, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise InvalidInput(
                f"{name} of a row has shape {array.shape}, but that of the row {place} before it in its batch "
                f"{arrays[0].shape}; give all rows one shape"
            )
    return np.stack(arrays)
