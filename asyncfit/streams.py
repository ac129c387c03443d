"""Events to iterate over: `async for event in bus.events(af.EpochEnd)`.

An `EventStream` is an iterator object, not an async generator, so that its end does not depend on somebody closing
it: its subscription ends when it is closed, collected, or its home ends.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, cast

import anyio
import anyio.lowlevel

from .events import Event, TrainEnd
from .mailbox import SLICE, Mailbox, clock, handling
from .signals import loop_caller
from .subscriptions import Hook, How, StreamOptions, SubscriberStats, Subscription, event_kinds

__all__ = ["EventStream", "stream_subscription"]

E_co = TypeVar("E_co", bound=Event, covariant=True)


def _iterated(event: Event) -> None:
    raise AssertionError("a stream is iterated over; nobody calls it")


def stream_subscription(
    kinds: tuple[object, ...],
    options: dict[str, Any],
    on_cancel: Callable[[Subscription], None] | None = None,
) -> Subscription:
    """The subscription for `events(*kinds, **options)`, checked. `EventStream(subscription)` iterates over it."""
    how = How.of("events(…)", options, [*StreamOptions.__annotations__])
    found = event_kinds(kinds or (Event,), "events(…)")
    name = how.name or f"events({', '.join(kind.__name__ for kind in found)})"
    hook = Hook(_iterated, False, how.mode, label=name)
    return Subscription(dict.fromkeys(found, hook), how, name, is_stream=True, on_cancel=on_cancel)


class EventStream(Generic[E_co]):
    """Events as an async iterator, in order, from the moment it was made.

    With `gate=True` whoever published an event waits from its hand-over to the next step of the iteration, `close`,
    or the end of the block.
    """

    def __init__(self, subscription: Subscription, *, bound: bool = False) -> None:
        """Iterate over what the mailboxes of `subscription` get.

        Args:
            bound: belongs to one home, so it ends after a `TrainEnd` and when its mailboxes have ended.
        """
        self._subscription = subscription
        self._bound = bound
        self._over = False
        self._error: BaseException | None = None
        self._in_hand: Mailbox | None = None
        self._since = self._given = clock()
        self._parked: anyio.Event | None = None
        self._soon = loop_caller()
        self._thread = threading.get_ident()
        this = weakref.ref(self)

        def wake(mailbox: Mailbox) -> None:
            stream = this()
            if stream is not None:
                mailbox._parked = stream._parked

        subscription._waker = wake

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E_co:
        if self._parked is not None:
            raise RuntimeError(f"another task waits on {self._subscription.name} already; give each its own events(…)")
        now = clock()
        self._put_down(now)
        if now - self._since > SLICE:  # a long queue must not hold the loop
            await anyio.lowlevel.checkpoint()
            self._since = clock()
        while True:
            event = self._next()
            if event is not None:
                return cast("E_co", event)
            if self._ended():
                self._subscription.cancel()
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            await self._park()

    def _next(self) -> Any:
        if self._subscription.cancelled:
            return None
        for mailbox in list(self._subscription.mailboxes):
            event = mailbox.hand_over()
            if event is not None:
                self._in_hand = mailbox
                self._given = clock()
                if handling.get() is not mailbox:
                    handling.set(mailbox)
                    mailbox.task = anyio.get_current_task().id
                self._over |= self._bound and isinstance(event, TrainEnd)
                return cast("E_co", event)
        return None

    def _ended(self) -> bool:
        if self._subscription.cancelled or self._over:
            return True
        return self._bound and all(mailbox.ended for mailbox in self._subscription.mailboxes)

    async def _park(self) -> None:
        parked = self._parked = anyio.Event()
        for mailbox in self._subscription.mailboxes:
            mailbox._parked = parked
        try:
            await parked.wait()
        finally:
            self._parked = None
            self._since = clock()
            for mailbox in self._subscription.mailboxes:
                mailbox._parked = None

    def _put_down(self, now: float) -> None:
        mailbox, self._in_hand = self._in_hand, None
        if mailbox is not None:
            mailbox.put_down(now - self._given)

    def finish(self) -> None:
        """Stop the iteration when what waits has been handed over: nothing more will come."""
        self._over = True
        if self._parked is not None:
            self._parked.set()

    def fail(self, error: BaseException) -> None:
        """End the subscription; the next step of the iteration raises `error`."""
        self._error = error
        self._subscription.cancel()

    def close(self) -> None:
        """End the subscription and release what is held, at once. May be called twice."""
        self._put_down(clock())
        self._subscription.cancel()
        if self._parked is not None:
            self._parked.set()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing` and exit stacks."""
        self.close()
        await anyio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def statistics(self) -> SubscriberStats:
        """The figures of its subscription."""
        return self._subscription.statistics()

    def __del__(self) -> None:
        subscription: Subscription | None = getattr(self, "_subscription", None)
        if subscription is None or subscription.cancelled:
            return
        if threading.get_ident() == self._thread:
            self.close()
        elif self._soon is not None:  # the collector ran in some other thread
            mailbox = self._in_hand

            def close() -> None:
                if mailbox is not None:
                    mailbox.put_down(0.0)
                subscription.cancel()

            try:
                self._soon(close)
            except RuntimeError:  # that loop is gone
                pass

    def __repr__(self) -> str:
        return f"<EventStream {self._subscription.name}{', closed' if self._subscription.cancelled else ''}>"
