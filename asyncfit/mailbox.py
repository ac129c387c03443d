"""One subscriber's events in one place: a bounded queue, what delivers it, and the figures.

All logic is in methods that do not wait; those that wait try one of them, then park. A delivery costs well under a
microsecond besides the handler: no scope, lock, task or event object is made for it, and one clock read is shared
between the end of one delivery and the start of the next.

Who owns a mailbox is its *home*: a bus that was entered, or a run. The home puts events in, runs `pump` in a task of
its own (or delivers with `drain_until` and `drain_now` in the publisher's), and hears of failures. Everything here
happens in the home's thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread

from .errors import AsyncFitError, SubscriberTimeout
from .events import Event, EventsDropped
from .subscriptions import Filter, SubscriberStats
from .tasks import cancellations, scope_cancelled, suspended_at, take_back, task_cancelled, was_interrupted

if TYPE_CHECKING:
    from .subscriptions import Subscription

__all__ = ["Gate", "Home", "Mailbox", "clock", "handling", "would_wait_for"]

clock = time.perf_counter
"""What `timeout=` is measured with: seconds, of no meaning but by difference."""

handling: ContextVar[Mailbox | None] = ContextVar("asyncfit_handling", default=None)
"""The mailbox whose handler runs in this context."""

MOST_LOSSLESS = 10_000
SLICE = 0.0005
SLOW = 0.05

_logger = logging.getLogger("asyncfit")


class Home(Protocol):
    """What a mailbox tells its owner. All are called in the home's thread and must not wait."""

    def failed(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        """A handler with `on_error="raise"` failed at an event that is no gate, or fell too far behind.

        The mailbox goes on with the next event unless it is closed here.
        """

    def report_failure(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        """A handler failed and the error was logged: to be published as a `SubscriberFailed`."""

    def interrupted(self, mailbox: Mailbox) -> None:
        """The loop cancelled the pump's task (asyncio does when it ends); the mailbox goes on until it is stopped."""

    def on_full(self, mailbox: Mailbox, full: bool) -> None:
        """With `overflow="block"`: the source should wait, or may go on."""

    def closed(self, mailbox: Mailbox) -> None:
        """The mailbox takes no more events: its subscription was cancelled or ended, or the home closed it."""


class Gate:
    """An event whose handler somebody waits for.

    Attributes:
        event: what is delivered.
        held: the mailboxes that must be done with the event first, None when it may be delivered.
        answered: whether `done` has been called.
    """

    __slots__ = ("answered", "done", "event", "held")

    def __init__(
        self,
        event: Event,
        done: Callable[[Mailbox, BaseException | None], None],
        held: Collection[Mailbox] | None = None,
    ) -> None:
        self.event = event
        self.done = done
        self.held = held
        self.answered = False


Item = Event | Gate


class Marker:
    """A place in a mailbox: `reached` is called when all before it has been delivered. No event, and not counted."""

    __slots__ = ("reached",)

    def __init__(self, reached: Callable[[], None]) -> None:
        self.reached = reached


class _Gap:
    """Events that were dropped since the last delivery: their numbers alone, for they may have models."""

    __slots__ = ("attempt", "count", "first", "last", "run_id", "ticket")

    def __init__(self, first: Event) -> None:
        self.first = first.seq
        self.count = 0

    def add(self, ticket: int, event: Event) -> None:
        self.run_id, self.attempt, self.last = event.run_id, event.attempt, event.seq
        self.ticket = ticket
        self.count += 1

    def notice(self) -> EventsDropped:
        span = {"first": self.first, "last": self.last, "count": self.count}
        return EventsDropped(run_id=self.run_id, attempt=self.attempt, seq=self.last, **span)


class Mailbox:
    """The queue of one subscription in one home.

    Attributes:
        subscription: whose events these are.
        home: who is told of failures.
        name: the subscriber's.
        pumped: whether a task runs `pump` (or will); False for a bus that was not entered, and for streams.
        is_closed: whether it takes no more events.
        full: with `overflow="block"`, whether its source should wait.
        waiting_for: the mailboxes that a handler of this one waits for now.
        task: the id of the task that runs `pump`, or iterates; None without one.
    """

    def __init__(self, subscription: Subscription, home: Home, *, pumped: bool = True) -> None:
        self.subscription = subscription
        self.home = home
        self.name = subscription.name
        self.pumped = pumped and not subscription.is_stream
        self.is_closed = False
        self.full = False
        self.waiting_for: list[Mailbox] = []
        self.task: int | None = None
        how = subscription.how
        self._filter = Filter.of(how, subscription.only_batches)
        self._timeout = how.timeout
        self._overflow = how.overflow
        self._buffer = how.buffer
        # with so many waiting, one more is looked at closely: "latest" looks at each, "block" at the one that fills up
        self._room = {"latest": 0, "block": how.buffer - 1}.get(how.overflow, how.buffer)
        # Two queues, so that the oldest event that may be dropped is always at the left end of its own. The tickets
        # (each event's number in this mailbox) say which of the two heads is older.
        self._lossy: deque[tuple[int, Event]] = deque()
        self._kept: deque[tuple[int, Item | Marker]] = deque()
        self._markers = 0  # so many are in it
        self._ticket = 0
        self._calls: dict[type, Callable[[Any], Any]] = {}  # of events that the pump delivers without further ado
        self._gap: _Gap | None = None
        self._attention = False  # something else than the next event is due
        self._ending = False
        # the delivery in hand
        self._item: Item | None = None
        self._started = 0.0
        self._awaited: Any = None
        self._in_thread = False
        self._expired = False
        self._scope: anyio.CancelScope | None = None
        # who waits for what
        self._busy = False  # somebody delivers: the pump, or a publisher
        self._parked: anyio.Event | None = None
        self._turn: anyio.Event | None = None
        self._queueing = 0
        self._settled: anyio.Event | None = None
        self._limiter: anyio.CapacityLimiter | None = None
        # figures
        self._delivered = 0
        self._notices = 0
        self._dropped = 0
        self._cancelled = 0
        self._errors = 0
        self._seconds = 0.0
        self._max_lag = 0.0
        self._named_slow = False
        subscription._joined(self)

    # --- putting events in ---------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Queue `event`, unless a filter keeps it out. What the overflow policy says is done here."""
        if self.is_closed or (self._filter is not None and not self._passes(event)):
            return
        if event.lossy:
            if len(self._lossy) >= self._room and not self._make_room(event):
                return
            self._ticket = ticket = self._ticket + 1
            self._lossy.append((ticket, event))
        else:
            if len(self._kept) >= MOST_LOSSLESS:
                self._fall_behind(f"{MOST_LOSSLESS:,} events that must not be dropped wait for it", event)
                return
            self._ticket = ticket = self._ticket + 1
            self._kept.append((ticket, event))
        if self._parked is not None:
            self._wake()

    def put_gate(
        self,
        event: Event,
        done: Callable[[Mailbox, BaseException | None], None],
        held: Collection[Mailbox] | None = None,
    ) -> Gate | None:
        """Queue `event` behind all others and call `done(mailbox, error)` once when it has been dealt with.

        Never calls `done` before it returns. `error` is what the handler raised if `on_error="raise"`, else None;
        also when the event was cancelled. With `held` the event waits, and all behind it, until `proceed`.

        Returns:
            the gate, or None if the event was kept out by a filter or the mailbox is closed: nobody is to be asked.
        """
        if self.is_closed or (self._filter is not None and not self._passes(event)):
            return None
        gate = self._append(Gate(event, done, held))
        if self._ending and self.subscription.is_stream:
            gate.answered, gate.held = True, None  # it can be read, but nobody waits
            return None
        return gate

    def put_marker(self, reached: Callable[[], None]) -> None:
        """Call `reached` when all that was put in so far has been delivered, or never will be; at once, if it has."""
        if self.is_closed or (self.idle and self._gap is None):
            reached()
            return
        self._ticket = ticket = self._ticket + 1
        self._kept.append((ticket, Marker(reached)))
        self._markers += 1
        if self._parked is not None:
            self._wake()

    def proceed(self, gate: Gate) -> None:
        """Let a held gate go."""
        gate.held = None
        self._wake()
        self._next_turn()

    def let_go(self) -> None:
        """Answer the gate in hand although its handler goes on: it waits for something that waits for the answer."""
        if isinstance(self._item, Gate):
            self._answer(self._item, None)

    def withdraw(self, gate: Gate) -> None:
        """Take a waiting gate back; it counts as cancelled. One that is in hand or was answered stays as it is."""
        for entry in self._kept:
            if entry[1] is gate:
                self._kept.remove(entry)
                self._cancelled += 1
                self._answer(gate, None)
                self._wake()
                self._next_turn()
                return

    def _append(self, gate: Gate) -> Gate:
        self._ticket = ticket = self._ticket + 1
        self._kept.append((ticket, gate))
        if self._parked is not None:
            self._wake()
        return gate

    def _passes(self, event: Event) -> bool:
        assert self._filter is not None
        try:
            return self._filter.passes(event)
        except Exception as error:
            error.add_note(f"in where= of {self.name}")
            self._fail(error, event, None)
            return False

    def _make_room(self, event: Event) -> bool:
        """The overflow policy, for an event that finds `buffer` others waiting. True if it is to be queued."""
        if self._overflow == "block":
            if not self.full:
                self.full = self._attention = True
                self.home.on_full(self, True)
        elif self._overflow == "drop_oldest":
            self._drop(*self._lossy.popleft())
        elif self._overflow == "fail":
            self._fall_behind(f"buffer={self._buffer}, overflow='fail'", event)
            return False
        else:
            kind = event.__class__
            for entry in reversed(self._lossy):
                if entry[1].__class__ is kind:
                    self._lossy.remove(entry)
                    self._drop(*entry)
                    break
        return True

    def _drop(self, ticket: int, event: Event) -> None:
        self._dropped += 1
        gap = self._gap
        if gap is None:
            if self.subscription.handler_for(EventsDropped) is None:
                return
            gap = self._gap = _Gap(event)
            self._attention = True
        gap.add(ticket, event)

    def _fall_behind(self, limit: str, event: Event) -> None:
        waiting = len(self)
        self._cancelled += 1  # the event that found no place
        error = AsyncFitError(
            f"{self.name} fell {waiting:,} events behind ({limit}) and was ended; it is too slow for what it asked for"
        )
        lossless = not event.lossy
        self._errors += 1
        if self.subscription.how.on_error == "raise" and not lossless:
            self.home.failed(self, error, None)
        else:  # a subscriber that is too slow never ends a run
            _logger.error("%s", error)
            self.home.report_failure(self, error, None)
        if self.subscription.how.on_error == "detach":
            self.subscription.cancel()
        self.close()

    # --- looking -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._lossy) + len(self._kept) - self._markers

    @property
    def has_room(self) -> bool:
        """Whether one more event could wait without anything being dropped, or its source having to wait."""
        return self._overflow != "block" or len(self._lossy) < self._buffer

    @property
    def busy(self) -> bool:
        """Whether somebody delivers at the moment, which may be waiting inside a handler."""
        return self._busy

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in hand."""
        return self._item is None and not self._lossy and not self._kept

    @property
    def in_hand(self) -> Event | None:
        """The event that the handler has got."""
        return self._item.event if isinstance(self._item, Gate) else self._item

    def blockers(self) -> list[Mailbox]:
        """The mailboxes that must get on before this one can."""
        found = list(self.waiting_for)
        for _, item in self._kept:
            if isinstance(item, Gate) and item.held:
                found.extend(item.held)
        return found

    def busy_for(self) -> float | None:
        """Seconds since the handler got what it has in hand, None if it has nothing."""
        return None if self._item is None else max(0.0, clock() - self._started)

    def where(self) -> str | None:
        """File, line and function at which the handler is suspended: the innermost that is not the loop's own code."""
        if self._item is None:
            return None
        if self._in_thread:
            return "in a thread"
        return suspended_at(self._awaited)

    def statistics(self) -> SubscriberStats:
        """The figures of this mailbox, also from another thread."""
        queued, in_hand = len(self), self._item
        waiting: list[tuple[int, Item | Marker]] = list(self._lossy)  # in one step: the loop may change it meanwhile
        waiting += list(self._kept)
        items = [item for _, item in waiting if not isinstance(item, Marker)]
        items += [] if in_hand is None else [in_hand]
        events = [item.event if isinstance(item, Gate) else item for item in items]
        return SubscriberStats(
            name=self.name,
            mode=self.subscription.mode,
            delivered=self._delivered - self._notices,
            dropped=self._dropped,
            queued=queued,
            cancelled=self._cancelled,
            errors=self._errors,
            seconds=self._seconds,
            max_lag=self._max_lag,
            busy_for=self.busy_for(),
            where=self.where(),
            snapshots=sum(getattr(event, "_model", None) is not None for event in events),
        )

    # --- ending --------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Nothing more will come: the pump ends, and a stream stops, when what waits has been delivered.

        Nobody waits for a stream any longer: who reads it may be the one who ends it.
        """
        self._ending = True
        if self.subscription.is_stream:
            for gate in [item for _, item in self._kept if isinstance(item, Gate)]:
                self._answer(gate, None)
            if isinstance(self._item, Gate):
                self._answer(self._item, None)
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether nothing can come out of it any more."""
        return self.is_closed or (self._ending and not self._lossy and not self._kept)

    def close(self) -> None:
        """Take and deliver nothing more. What waits counts as cancelled; gates, also the one in hand, are answered.

        A handler that has an event in hand is not interrupted: the pump ends when it returns.
        """
        if self.is_closed:
            return
        self.is_closed = self._attention = True
        self._cancelled += len(self)
        gates = [item for _, item in self._kept if isinstance(item, Gate)]
        markers = [item for _, item in self._kept if isinstance(item, Marker)]
        self._lossy.clear()
        self._kept.clear()
        self._markers = 0
        self._gap = None
        if isinstance(self._item, Gate):
            gates.append(self._item)
        for gate in gates:
            self._answer(gate, None)
        for marker in markers:
            marker.reached()
        if self.full:
            self.full = False
            self.home.on_full(self, False)
        self.home.closed(self)
        self._wake()
        self._next_turn()
        self._rest()

    def _rest(self) -> None:
        """Tell who waits for it that nothing is in hand."""
        if self._settled is not None and self.idle:
            self._settled.set()
            self._settled = None
        if self.is_closed and not self._busy and self._item is None:
            self.subscription._left(self)

    async def drained(self) -> None:
        """Wait until nothing waits and nothing is in hand."""
        while not self.idle:
            if self._settled is None:
                self._settled = anyio.Event()
            await self._settled.wait()

    # --- the pump ------------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Deliver, in order, until the mailbox is closed, or has ended and is empty. The home runs it in one task."""
        handling.set(self)
        self.task = anyio.get_current_task().id
        try:
            while self._busy:  # a publisher that began before there was a pump
                await self._await_turn()
            self._busy = True
            while True:
                with anyio.CancelScope() as scope:
                    self._scope = scope
                    await self._serve()
                if not self._expired:
                    break
                self._put_down()  # the handler ran out of time; a scope can be cancelled only once, so take a new one
        finally:
            self._scope = None
            self._put_down()
            self._busy = False
            self.close()
            self._rest()

    async def _serve(self) -> None:
        lossy, kept, calls = self._lossy, self._kept, self._calls
        since = now = clock()
        skew = time.time() - now
        item: Item | None
        while True:
            if lossy and not kept and not self._attention:
                item = lossy.popleft()[1]
            elif self._expired:
                return
            else:
                taken = self._take()
                if taken is None:
                    if self.is_closed or (self._ending and not kept):
                        return
                    item = None  # it may have a model, and nothing may come for long
                    await self._park()
                    since = now = clock()
                    skew = time.time() - now
                    continue
                item = taken
            call = calls.get(item.__class__)
            if call is None or isinstance(item, Gate):
                await self._deliver(item)
                now = clock()
            else:
                self._item = item
                self._started = now
                lag = now + skew - item.time
                if lag > self._max_lag:
                    self._max_lag = lag
                result = None
                try:
                    result = call(item)
                    if result.__class__ is CoroutineType or (result is not None and hasattr(result, "__await__")):
                        self._awaited = result
                        await result
                except BaseException as error:
                    if self._caught(error):
                        raise
                ended = clock()
                took = ended - now
                now = ended
                self._seconds += took
                self._delivered += 1
                self._item = None
                if took > SLOW and result is None:
                    self._name_slow(took)
            if now - since > SLICE:
                self._awaited = None
                await self._breathe()
                since = now = clock()

    def _head(self) -> deque[Any] | None:
        """The queue whose left end is the next thing to deliver, None if there is none or it is held."""
        lossy, kept = self._lossy, self._kept
        if kept and (not lossy or kept[0][0] < lossy[0][0]):
            item = kept[0][1]
            return None if isinstance(item, Gate) and item.held is not None else kept
        return lossy or None

    def _take(self) -> Item | None:
        """Take the next thing to deliver off its queue; markers before it are reached."""
        while True:
            queue = self._head()
            if queue is None:
                return None
            ticket, item = queue[0]
            if not isinstance(item, Marker):
                break
            queue.popleft()
            self._markers -= 1
            item.reached()
        gap = self._gap
        if gap is not None and ticket > gap.ticket:
            self._gap = None
            self._attention = self.full
            self._notices += 1
            return gap.notice()
        queue.popleft()
        if self.full and len(self._lossy) <= self._buffer // 2:
            self.full = False
            self._attention = self._gap is not None
            self.home.on_full(self, False)
        taken: Item = item
        return taken

    async def _deliver(self, item: Item, *, blocking: bool = False) -> None:
        """Deliver one item, of whatever sort. With `blocking` it never suspends: the caller runs no loop."""
        gate = item if isinstance(item, Gate) else None
        event = item.event if isinstance(item, Gate) else item
        hook = self.subscription.handler_for(event.__class__)
        assert hook is not None, f"{self.name} does not get {event.type}"
        if not hook.thread:
            self._calls[event.__class__] = hook.call
        self._item = item
        self._started = clock()
        self._max_lag = max(self._max_lag, time.time() - event.time)
        result = None
        try:
            if hook.thread and not hook.is_async:
                if blocking:
                    raise RuntimeError(f"{self.name} has thread=True: enter the bus, or await publish")
                if self._limiter is None:
                    self._limiter = anyio.CapacityLimiter(1)
                self._in_thread = True
                result = await anyio.to_thread.run_sync(hook.call, event, limiter=self._limiter)
            else:
                result = hook.call(event)
            if result is not None and hasattr(result, "__await__"):
                if blocking:
                    if isinstance(result, Coroutine):
                        result.close()
                    raise RuntimeError(f"{self.name} gave back something to await: enter the bus, or await publish")
                self._awaited = result
                await result
        except BaseException as error:
            if self._caught(error):
                raise
        finally:
            self._in_thread = False
            self._awaited = None
        took = clock() - self._started
        self._seconds += took
        self._delivered += 1
        self._item = None
        if gate is not None:
            self._answer(gate, None)
        if took > SLOW and result is None and not hook.thread:
            self._name_slow(took)

    async def _park(self) -> None:
        self._awaited = None
        self._rest()
        self._parked = anyio.Event()
        try:
            await self._parked.wait()
        except BaseException as error:
            if not self._was_interrupted(error):
                raise
        finally:
            self._parked = None

    async def _breathe(self) -> None:
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException as error:
            if not self._was_interrupted(error):
                raise

    def _wake(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.set()

    # --- without a pump ------------------------------------------------------------------------------------------

    async def drain_until(self, gate: Gate | None = None) -> None:
        """Deliver in the caller's task until `gate` is answered (None: until nothing waits), in turn with others.

        What is queued meanwhile and has nobody to wait for it is delivered as well.
        """
        while not self.pumped and not (gate.answered if gate is not None else self._head() is None):
            if self._busy or self._head() is None:
                await self._await_turn()
                continue
            self._busy = True
            token = handling.set(self)
            try:
                while not (gate is not None and gate.answered and self._queueing) and not self.pumped:
                    item = self._take()
                    if item is None:
                        break
                    await self._deliver_timed(item)
                    self._next_turn()
            finally:
                handling.reset(token)
                self._put_down()
                self._busy = False
                self._next_turn()
                self._rest()

    def drain_now(self) -> None:
        """Deliver what waits, here and now. A call from within a handler returns: the one outside goes on with it."""
        if self._busy:
            return
        self._busy = True
        token = handling.set(self)
        try:
            while (item := self._take()) is not None:
                try:
                    self._deliver(item, blocking=True).send(None)
                except StopIteration:
                    pass
        finally:
            handling.reset(token)
            self._put_down()
            self._busy = False
            self._next_turn()
            self._rest()

    async def _deliver_timed(self, item: Item) -> None:
        if self._timeout is None:
            await self._deliver(item)
            return
        with anyio.move_on_after(self._timeout) as scope:
            await self._deliver(item)
        if scope.cancelled_caught:
            self._expired = True
            self._out_of_time()
            self._put_down()

    async def _await_turn(self) -> None:
        if self._turn is None:
            self._turn = anyio.Event()
        self._queueing += 1
        try:
            await self._turn.wait()
        finally:
            self._queueing -= 1

    def _next_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.set()

    # --- streams -------------------------------------------------------------------------------------------------

    def hand_over(self) -> Event | None:
        """The next event for a stream, None if none waits. A gate is in hand until `put_down`."""
        item = self._take()
        if item is None:
            self._rest()
            return None
        event = item.event if isinstance(item, Gate) else item
        self._max_lag = max(self._max_lag, time.time() - event.time)
        if isinstance(item, Gate):
            self._item, self._started = item, clock()
        else:
            self._delivered += 1
            self._rest()
        return event

    def put_down(self, seconds: float) -> None:
        """The consumer of the stream is done with what it was handed, after so many seconds."""
        self._seconds += seconds
        item, self._item = self._item, None
        if item is not None:
            self._delivered += 1
            if isinstance(item, Gate):
                self._answer(item, None)
            self._rest()

    # --- time ----------------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether the delivery in hand has used up its `timeout=` at `now`, by `clock`."""
        return self._timeout is not None and self._item is not None and not self._expired and now >= self._due()

    def next_check(self, now: float) -> float:
        """When `overdue` is to be asked next: no delivery can be overdue before. Infinity without a timeout."""
        if self._timeout is None:
            return math.inf
        return self._due() if self._item is not None and not self._expired else now + self._timeout

    def _due(self) -> float:
        assert self._timeout is not None
        return self._started + self._timeout

    def expire(self) -> None:
        """End the delivery in hand with a `SubscriberTimeout`.

        The error acts and a gate is answered at once; the handler is cancelled and may still take time to clean up,
        and a thread runs to its end.
        """
        if self._item is None or self._expired:
            return
        self._expired = self._attention = True
        self._out_of_time()
        if self._scope is not None and not self._in_thread:
            self._scope.cancel()

    def _out_of_time(self) -> None:
        assert self._timeout is not None
        where = self.where()
        error = SubscriberTimeout(self.name, self._timeout, where or "")
        gate = self._item if isinstance(self._item, Gate) else None
        self._fail(error, self.in_hand, gate)
        if gate is not None:
            self._answer(gate, None)

    # --- errors --------------------------------------------------------------------------------------------------

    def _answer(self, gate: Gate, error: BaseException | None) -> None:
        if not gate.answered:
            gate.answered = True
            gate.held = None
            gate.done(self, error)

    def _put_down(self) -> None:
        """Account for a delivery that was broken off."""
        item, self._item = self._item, None
        expired, self._expired = self._expired, False
        if expired:
            self._attention = self.is_closed or self.full or self._gap is not None
        if item is not None:
            if expired:
                self._delivered += 1
                self._seconds += clock() - self._started
            else:
                self._cancelled += 1
            if isinstance(item, Gate):
                self._answer(item, None)

    def _caught(self, error: BaseException) -> bool:
        """Deal with what a handler raised. True if it is to be raised on."""
        if isinstance(error, cancellations()):
            if self._expired or scope_cancelled() or not isinstance(error, asyncio.CancelledError):
                return True
            if task_cancelled():
                if not self._was_interrupted(error):
                    return True  # a publisher's own task
                self._cancelled += 1
                self._delivered -= 1  # the caller counts it
                if isinstance(self._item, Gate):
                    self._answer(self._item, None)
                return False
            leaked = AsyncFitError(f"{self.name} awaited a task that was cancelled")
            leaked.__cause__ = error
            error = leaked
        elif isinstance(error, BaseExceptionGroup) and not isinstance(error, Exception):
            stops, rest = error.split(cancellations())
            if stops is not None and (self._expired or scope_cancelled()):
                if rest is not None:
                    _logger.error("%s raised while it was cancelled", self.name, exc_info=rest)
                return True
        if self._expired:  # it was told off already
            _logger.error("%s raised after its timeout", self.name, exc_info=error)
            return False
        gate = self._item if isinstance(self._item, Gate) else None
        if not isinstance(error, Exception):
            self._errors += 1
            self._delivered += 1
            self._item = None
            if gate is not None:
                self._answer(gate, error)
            return True
        self._fail(error, self.in_hand, gate)
        return False

    def work_failed(self, error: BaseException) -> None:
        """What a handler of this one started, and nobody waited for, raised."""
        self._fail(error, None, None)

    def _fail(self, error: BaseException, event: Event | None, gate: Gate | None) -> None:
        self._errors += 1
        if event is not None:
            hook = self.subscription.handler_for(event.__class__)
            error.add_note(f"in {(hook and hook.label) or self.name}, at {_place(event)}")
        on_error = self.subscription.how.on_error
        if on_error == "raise":
            if gate is not None and not gate.answered:
                self._answer(gate, error)
            else:
                self.home.failed(self, error, event)
            return
        _logger.error("%s failed", self.name, exc_info=error)
        self.home.report_failure(self, error, event)
        if on_error == "detach":
            self.subscription.cancel()

    def _was_interrupted(self, error: BaseException) -> bool:
        """Whether this is asyncio's own cancellation of the task; if so, the home knows and the task may go on."""
        if self._scope is None or not was_interrupted(error):
            return False
        take_back()
        self.home.interrupted(self)
        return True

    def _name_slow(self, took: float) -> None:
        if self._named_slow or self._in_thread:
            return
        self._named_slow = True
        _logger.warning(
            "%s held the event loop for %.0f ms; give it thread=True, or make it async and await what it does",
            self.name,
            took * 1000,
        )

    def __repr__(self) -> str:
        return f"<Mailbox of {self.name}: {len(self)} waiting{', closed' if self.is_closed else ''}>"


# --- helpers -------------------------------------------------------------------------------------------------------


def would_wait_for(target: Mailbox, owner: Mailbox | None) -> bool:
    """Whether `target` cannot get on before a handler of `owner` returns: that handler must not wait for it."""
    if owner is None:
        return False
    seen: set[int] = set()
    ahead = [target]
    while ahead:
        mailbox = ahead.pop()
        if mailbox is owner:
            return True
        if id(mailbox) not in seen:
            seen.add(id(mailbox))
            ahead.extend(mailbox.blockers())
    return False


def _place(event: Event) -> str:
    numbers = [f"{key} {getattr(event, key)}" for key in ("epoch", "batch", "step") if hasattr(event, key)]
    of_run = [f"run {event.run_id}"] if event.run_id is not None else []
    return ", ".join([event.type, *numbers, *of_run])
