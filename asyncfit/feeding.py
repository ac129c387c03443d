"""The side of a run that reads what yields batches, and hands them to compute wherever that is.

Compute says which batch it wants; whoever reads may be `prefetch` batches ahead of that. What is synchronous is read in
a thread of its own, from the first item to its `close()`; what is async in a task on the run's loop, which waits there
without a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import numpy as np

from .data import Feed
from .data.feed import ReadingFailed
from .data.takers import END, taker
from .errors import InvalidInput
from .protocol import Fed
from .signals import Signal, loop_caller
from .tasks import close_iterator, scope_cancelled, take_back, was_interrupted

__all__ = ["Feeding"]

AT_ONCE = 64 * 1024
"""A batch of up to so many bytes is checked and copied on the loop, a larger one in a thread."""

PATIENCE = 5.0
"""After so many seconds it is logged what the end of a run waits for."""

Hand = Callable[[Any], None]
"""Takes a `Fed`, or what `Pack` has made of one."""

Pack = Callable[[Fed], Any]

_logger = logging.getLogger("asyncfit")


class Feeding:
    """All that one run is fed with.

    Args:
        feeds: of the training and of the validation; None where compute reads itself.
        remote: compute is in another process, and is handed its batches from the loop.
        on_loop: has something called in the run's loop, soon; from any thread.
        failed: gets what closing raised.
        crashed: gets what is no Exception.
        interrupted: hears of the loop's own cancellation.
        closed: called, from any thread, when one of them is read no longer.
    """

    def __init__(
        self,
        feeds: tuple[Feed | None, Feed | None],
        *,
        remote: bool,
        on_loop: Callable[[Callable[[], object]], None],
        failed: Callable[[BaseException], None],
        crashed: Callable[[BaseException], None],
        interrupted: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        self._readers: list[_Reader] = []
        self._trained: _Reader | None = None
        for which, feed in enumerate(feeds):
            if feed is None:
                continue
            if feed.source.kind == "async":
                reader: _Reader = _Task(which, feed, failed, crashed, interrupted, closed, remote=remote)
            else:
                reader = _Thread(which, feed, failed, closed, on_loop if remote else None)
            feed.ask = reader.want
            self._readers.append(reader)
            if which == 0 and feed.once:
                self._trained = reader

    def serve(self, tasks: anyio.abc.TaskGroup, hand: Hand, pack: Pack | None = None) -> None:
        """From now on batches can be handed over; large ones packed for that, off the loop."""
        for reader in self._readers:
            reader.serve(tasks, hand, pack)

    @property
    def over(self) -> bool:
        """Nothing is read any more."""
        return all(reader.over.is_set() for reader in self._readers)

    def close(self) -> None:
        """Read nothing more, and close what was read."""
        for reader in self._readers:
            reader.close()

    async def gone(self) -> None:
        """Wait until it is so. A thread that is in somebody's `next` can only be waited for."""
        self.close()
        for reader in self._readers:
            with anyio.move_on_after(PATIENCE):
                await reader.over.wait()
            if not reader.over.is_set():
                _logger.warning(
                    "the end of a run waits for %s (%s) to yield or to return: a thread is in its next()",
                    reader.feed.name, type(reader.feed.source.value).__name__,
                )  # fmt: skip
                await reader.over.wait()
            reader.join()

    def error(self, error: BaseException) -> BaseException:
        """The error itself, if it was raised here and compute is elsewhere."""
        if isinstance(error, ReadingFailed):
            for reader in self._readers:
                if reader.which == error.which and reader.error is not None:
                    return reader.error
        return error

    def unread(self, trained: int) -> int:
        """Batches that were taken of data that is read once, if so many were trained on."""
        return 0 if self._trained is None else max(0, self._trained.taken - trained)


class _Reader(Protocol):
    which: int
    error: BaseException | None
    feed: Feed
    taken: int
    over: Signal

    def want(self, turn: int, epoch: int, batch: int) -> None: ...
    def serve(self, tasks: anyio.abc.TaskGroup, hand: Hand, pack: Pack | None) -> None: ...
    def close(self) -> None: ...
    def join(self) -> None: ...


class _Wishes:
    """What compute wants, and how far ahead of that one may read. Whoever uses it has a lock."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._turn = -1
        self._wanted = self._given = self._most = 0
        self._ended = False
        self.place: tuple[int, int] | None = None  # pass and batch to begin at, if a turn begins

    def want(self, turn: int, epoch: int, batch: int) -> None:
        if turn != self._turn:
            feed = self._feed
            number, first, steps = feed.range_of(epoch)
            self._turn, self._wanted, self._given, self._ended = turn, 0, 0, False
            self._most = steps - batch
            if feed.once:
                self._most = 1 << 62 if feed.limit is None else feed.limit
            self.place = number, first + batch
        self._wanted += 1

    def may_read(self) -> bool:
        if self._ended:
            return self._given < self._wanted
        return self._wanted > 0 and self._given < min(self._wanted + self._feed.prefetch, self._most)

    def begin(self) -> tuple[int, tuple[int, int] | None]:
        """One more is read: of which turn, and where that begins if it does."""
        self._given += 1
        place, self.place = self.place, None
        return self._turn, place

    def ended(self, turn: int) -> bool:
        """The data has ended; whether somebody waits to hear it."""
        if turn != self._turn:
            return False
        self._ended = True
        return True


class _Thread:
    """Reads in a thread of its own."""

    def __init__(
        self,
        which: int,
        feed: Feed,
        failed: Callable[[BaseException], None],
        closed: Callable[[], None],
        on_loop: Callable[[Callable[[], object]], None] | None,
    ) -> None:
        self.which, self.feed, self.taken, self.over = which, feed, 0, Signal()
        self.error: BaseException | None = None
        self._failed, self._tell, self._on_loop = failed, closed, on_loop
        self._wishes = _Wishes(feed)
        self._changed = threading.Condition()
        self._closing = False
        self._hand: Hand | None = None
        self._pack: Pack | None = None
        self._thread: threading.Thread | None = None

    def want(self, turn: int, epoch: int, batch: int) -> None:
        with self._changed:
            self._wishes.want(turn, epoch, batch)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="asyncfit data", daemon=True)
                self._thread.start()
            self._changed.notify()

    def serve(self, tasks: anyio.abc.TaskGroup, hand: Hand, pack: Pack | None) -> None:
        with self._changed:
            self._hand, self._pack = hand, pack
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            begun, self._closing = self._closing, True
            self._changed.notify()
            if self._thread is None and not begun:
                self.over.set()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()  # its last steps

    # --- in the thread ---

    def _run(self) -> None:
        feed, turn = self.feed, 0
        source = taker(feed.source, shuffle=feed.shuffle, key=feed.key)
        try:
            while True:
                with self._changed:
                    while not self._closing and (self._hand is None or not self._wishes.may_read()):
                        self._changed.wait()
                    if self._closing:
                        break
                    turn, place = self._wishes.begin()
                if place is not None:
                    source.seek(*place)
                item = source.take()
                if item is END:
                    with self._changed:
                        self._wishes.ended(turn)
                    self._give(Fed(self.which, turn))
                else:
                    self.taken += 1
                    self._give(Fed(self.which, turn, feed.intake(item, self.taken - 1)))
        except BaseException as error:
            self.error = error
            self._give(_broken(self, turn, error, remote=self._on_loop is not None))
        finally:
            try:
                source.close()
            except BaseException as error:
                _closing_failed(self, error, self.error, self._failed)
            finally:
                self.over.set()
                self._tell()

    def _give(self, fed: Fed) -> None:
        hand = self._hand
        assert hand is not None
        if self._on_loop is None:
            hand(fed)
        else:
            packed = fed if self._pack is None else self._pack(fed)
            self._on_loop(lambda: hand(packed))


class _Task:
    """Reads in a task on the run's loop."""

    def __init__(
        self,
        which: int,
        feed: Feed,
        failed: Callable[[BaseException], None],
        crashed: Callable[[BaseException], None],
        interrupted: Callable[[], None],
        closed: Callable[[], None],
        *,
        remote: bool,
    ) -> None:
        self.which, self.feed, self.taken, self.over = which, feed, 0, Signal()
        self.error: BaseException | None = None
        self._remote, self._failed, self._crashed = remote, failed, crashed
        self._interrupted, self._tell = interrupted, closed
        self._soon = loop_caller()
        self._wishes = _Wishes(feed)
        self._lock = threading.Lock()
        self._room = anyio.Event()
        self._waits = self._closing = self._served = self._reading = False
        self._turn = 0
        self._pack: Pack | None = None
        self._place: tuple[int, int] | None = None
        self._at = (-1, 0)  # pass and batch that come next
        self._scope = anyio.CancelScope()

    def want(self, turn: int, epoch: int, batch: int) -> None:
        with self._lock:
            self._wishes.want(turn, epoch, batch)
            wake, self._waits = self._waits, False
        if wake and self._soon is not None:
            self._soon(self._wake)

    def _wake(self) -> None:
        self._room.set()

    def serve(self, tasks: anyio.abc.TaskGroup, hand: Hand, pack: Pack | None) -> None:
        self._served, self._pack = True, pack
        tasks.start_soon(self._run, hand, name=f"asyncfit: {self.feed.name}")

    def close(self) -> None:
        self._closing = True
        if not self._served:
            self.over.set()
        elif self._reading:
            self._scope.cancel()
        else:
            self._room.set()

    def join(self) -> None:
        pass

    async def _run(self, hand: Hand) -> None:
        iterator: Any = None
        reason: BaseException | None = None
        try:
            with self._scope:
                try:
                    while await self._next_wish():
                        if iterator is None or self._goes_elsewhere():
                            await close_iterator(iterator)
                            iterator = aiter(self.feed.source.value)
                            await self._skip(iterator)
                        await self._hand_over(iterator, hand)
                except BaseException as error:
                    reason = error
                    raise
                finally:
                    if not self._scope.cancel_called:  # here: what it has open it may close only within this scope
                        iterator, ending = None, iterator
                        await self._closed(ending, reason)
        except BaseException as error:
            if was_interrupted(error):
                take_back()
                self._interrupted()
            elif isinstance(error, Exception):
                self.error = error
                hand(_broken(self, self._turn, error, remote=self._remote))
            elif isinstance(error, anyio.get_cancelled_exc_class()):
                if scope_cancelled():
                    raise
                leaked = RuntimeError(f"{self.feed.name} awaited a task that was cancelled")
                leaked.__cause__, self.error = error, leaked
                hand(_broken(self, self._turn, leaked, remote=self._remote))
            else:
                self._crashed(error)
        finally:
            if iterator is not None:
                with anyio.CancelScope(shield=True):
                    await self._closed(iterator, reason)
            self.over.set()
            self._tell()

    async def _closed(self, iterator: Any, reason: BaseException | None) -> None:
        try:
            await close_iterator(iterator)
        except Exception as error:
            _closing_failed(self, error, reason, self._failed)

    async def _next_wish(self) -> bool:
        """Wait until one more may be read; False if none will be."""
        while not self._closing:
            with self._lock:
                if self._wishes.may_read():
                    self._turn, self._place = self._wishes.begin()
                    return True
                self._waits, self._room = True, anyio.Event()
            await self._room.wait()
        return False

    def _goes_elsewhere(self) -> bool:
        """Whether a turn begins, and not where the one before has come to."""
        return self._place is not None and not self.feed.once and self._place != self._at

    async def _skip(self, iterator: Any) -> None:
        """What lies before the place where the turn begins is read and dropped."""
        self._reading = True
        if self._place is not None and not self.feed.once:
            for number in range(self._place[1]):
                if await anext(iterator, END) is END:
                    raise InvalidInput(f"{self.feed.name} has no batch {self._place[1]}: it ended after {number}")
            self._at = self._place
        self._reading = False

    async def _hand_over(self, iterator: Any, hand: Hand) -> None:
        self._reading = True
        item = await anext(iterator, END)
        self._reading = False
        self._at = self._at[0], self._at[1] + 1
        if item is END:
            with self._lock:
                self._wishes.ended(self._turn)
            hand(Fed(self.which, self._turn))
        else:
            self.taken += 1
            hand(await self._batch(item))

    async def _batch(self, item: Any) -> Any:
        if _size(item) <= AT_ONCE:
            return self._fed(item)
        return await anyio.to_thread.run_sync(self._packed, item)

    def _fed(self, item: Any) -> Fed:
        return Fed(self.which, self._turn, self.feed.intake(item, self.taken - 1))

    def _packed(self, item: Any) -> Any:
        return self._fed(item) if self._pack is None else self._pack(self._fed(item))


def _closing_failed(
    reader: _Reader, error: BaseException, reason: BaseException | None, failed: Callable[[BaseException], None]
) -> None:
    """An error that already ended the reading goes first: the other follows from it more often than not."""
    if isinstance(reason, Exception):
        reason.add_note(f"when {reader.feed.name} was closed for that, it raised {error!r}")
        return
    error.add_note(f"when {reader.feed.name} was closed, because the run had read enough of it")
    failed(error)


def _broken(reader: _Reader, turn: int, error: BaseException, *, remote: bool) -> Fed:
    return Fed(reader.which, turn, None, ReadingFailed(reader.which) if remote else error)


def _size(item: Any) -> int:
    """Bytes of a batch that is arrays; of all else nobody knows."""
    parts = item if isinstance(item, tuple) else (item,)
    if not all(isinstance(part, np.ndarray) or part is None for part in parts):
        return AT_ONCE + 1
    return sum(part.nbytes for part in parts if part is not None)
