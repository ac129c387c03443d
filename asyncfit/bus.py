"""The bus: whoever publishes an event need not know who listens.

Entered (`async with bus`) it gives each subscription a task; what it publishes is queued, and `await publish` waits
for gates only. Not entered it works without tasks of its own: `await publish` runs the handlers in the publisher's
task, `publish_nowait` runs plain ones on the spot. It knows nothing of models or runs. A run that is given a bus serves
the bus's subscriptions itself: it attaches as a listener and hears of those that come and go.
"""

from __future__ import annotations

import logging
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol, Self, TypeVar, Unpack, overload

import anyio
import anyio.abc
import anyio.lowlevel

from .events import Event, SubscriberFailed
from .mailbox import Gate, Mailbox, clock, handling, would_wait_for
from .roster import Entry, guarded, roster
from .streams import EventStream, stream_subscription
from .subscriptions import Hook, How, Options, StreamOptions, Subscription, event_kinds, handler_hook

__all__ = ["EventBus", "Listener"]

E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
R = TypeVar("R")

_logger = logging.getLogger("asyncfit")


class Listener(Protocol):
    """Who serves the bus's subscriptions besides the bus itself: a run."""

    thread: int
    """Whose loop it lives in."""

    def subscribed(self, subscription: Subscription) -> None:
        """A subscription was made."""

    def unsubscribed(self, subscription: Subscription) -> None:
        """A subscription was cancelled; its mailboxes are closed right after."""


class EventBus:
    """Publishes events to handlers that subscribed to their class.

    Attributes:
        subscriptions: those that were not cancelled, in the order in which they were made.
    """

    def __init__(self) -> None:
        self.subscriptions: tuple[Subscription, ...] = ()
        self._listeners: list[Listener] = []
        self._streams: dict[Subscription, weakref.ref[EventStream[Any]]] = {}
        self._mailboxes: dict[Subscription, Mailbox] = {}
        self._targets: dict[type[Event], list[tuple[Mailbox, Hook]]] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._thread = 0
        self._block: AbstractAsyncContextManager[None] | None = None
        self._failure: BaseException | None = None
        self._strays: list[BaseException] = []  # errors at events that nobody waits for, on a bus not entered
        self._watching = False
        self._watch_again: anyio.Event | None = None
        self._waiters: list[anyio.Event] = []

    # --- subscribing ---------------------------------------------------------------------------------------------

    @overload
    def on(self, kind: type[E1], /, **how: Unpack[Options]) -> Callable[[Callable[[E1], R]], Callable[[E1], R]]: ...
    @overload
    def on(
        self, kind: type[E1], kind2: type[E2], /, **how: Unpack[Options]
    ) -> Callable[[Callable[[E1 | E2], R]], Callable[[E1 | E2], R]]: ...
    @overload
    def on(
        self, kind: type[E1], kind2: type[E2], kind3: type[E3], /, **how: Unpack[Options]
    ) -> Callable[[Callable[[E1 | E2 | E3], R]], Callable[[E1 | E2 | E3], R]]: ...
    @overload
    def on(
        self, *kinds: type[Event], **how: Unpack[Options]
    ) -> Callable[[Callable[[Event], R]], Callable[[Event], R]]: ...
    @overload
    def on(
        self, *kinds: type[Event] | types.UnionType, **how: Unpack[Options]
    ) -> Callable[[Callable[[Any], R]], Callable[[Any], R]]: ...
    def on(self, *kinds: Any, **how: Any) -> Any:
        """Decorate a handler of these events: `@bus.on(af.BatchEnd, every=100)`. The function stays as it is.

        Options, by keyword: `gate`, `inline`, `replayable`, `thread`, `snapshots`, `order`, `every`, `every_s`,
        `where`, `buffer`, `overflow`, `on_error`, `timeout`, `name`; `help(asyncfit.subscriptions.How)` has them.
        """
        what = "@bus.on(…)"
        event_kinds(kinds, what)
        How.of(what, how)

        def decorate(handler: Any) -> Any:
            self._subscribe(kinds, handler, how, what)
            return handler

        return decorate

    @overload
    def subscribe(self, kind: type[E1], handler: Callable[[E1], object], /, **how: Unpack[Options]) -> Subscription: ...
    @overload
    def subscribe(
        self, kind: type[E1], kind2: type[E2], handler: Callable[[E1 | E2], object], /, **how: Unpack[Options]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        kind: type[E1],
        kind2: type[E2],
        kind3: type[E3],
        handler: Callable[[E1 | E2 | E3], object],
        /,
        **how: Unpack[Options],
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, kind: types.UnionType, handler: Callable[[Any], object], /, **how: Unpack[Options]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        kind: type[Event],
        kind2: type[Event],
        kind3: type[Event],
        kind4: type[Event],
        /,
        *kinds_and_handler: type[Event] | Callable[[Event], object],
        **how: Unpack[Options],
    ) -> Subscription: ...
    def subscribe(self, *kinds_and_handler: Any, **how: Any) -> Subscription:
        """Call the handler, the last argument, for each event of the classes before it: `subscribe(af.BatchEnd, f)`.

        Options are those of `on`.

        Returns:
            the handle that ends it, with `cancel()` or as a `with` block.
        """
        what = "subscribe(…, handler)"
        if len(kinds_and_handler) == 1 and not _is_kind(kinds_and_handler[0]):
            raise TypeError(f"{what} needs to know which events: subscribe(af.BatchEnd, handler), af.Event for all")
        if kinds_and_handler and all(_is_kind(given) for given in kinds_and_handler):
            raise TypeError(f"{what} takes a handler as its last argument: subscribe(af.BatchEnd, handler)")
        return self._subscribe(kinds_and_handler[:-1], kinds_and_handler[-1] if kinds_and_handler else None, how, what)

    def _subscribe(self, kinds: Any, handler: Any, how: dict[str, Any], what: str) -> Subscription:
        found = event_kinds(kinds, what)
        options = How.of(what, how)
        hook = handler_hook(handler, options, what)
        name = options.name or hook.label
        return self._add(
            Subscription(dict.fromkeys(found, hook), options, name, source=handler, on_cancel=self._forget)
        )

    @overload
    def events(self, kind: type[E1], /, **how: Unpack[StreamOptions]) -> EventStream[E1]: ...
    @overload
    def events(self, kind: type[E1], kind2: type[E2], /, **how: Unpack[StreamOptions]) -> EventStream[E1 | E2]: ...
    @overload
    def events(
        self, kind: type[E1], kind2: type[E2], kind3: type[E3], /, **how: Unpack[StreamOptions]
    ) -> EventStream[E1 | E2 | E3]: ...
    @overload
    def events(self, *kinds: type[Event], **how: Unpack[StreamOptions]) -> EventStream[Event]: ...
    @overload
    def events(self, *kinds: type[Event] | types.UnionType, **how: Unpack[StreamOptions]) -> EventStream[Any]: ...
    def events(self, *kinds: Any, **how: Any) -> Any:
        """The events as an async iterator, from now on; of all classes if none is named.

        It ends when it is closed, or when the block of a bus that was entered is left. Options: `gate`, `snapshots`,
        `every`, `every_s`, `where`, `buffer`, `overflow`, `name`; `help(asyncfit.subscriptions.How)` has them.
        """
        subscription = stream_subscription(kinds, how, self._forget)
        stream: EventStream[Any] = EventStream(subscription)
        self._streams[subscription] = weakref.ref(stream)
        self._add(subscription)
        return stream

    def _add(self, subscription: Subscription) -> Subscription:
        self._check_thread("subscribe")
        self.subscriptions = (*self.subscriptions, subscription)
        self._mailbox(subscription)
        self._targets.clear()
        for listener in list(self._listeners):
            listener.subscribed(subscription)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        self.subscriptions = tuple(known for known in self.subscriptions if known is not subscription)
        self._streams.pop(subscription, None)
        self._targets.clear()
        for listener in list(self._listeners):
            listener.unsubscribed(subscription)

    def _attach(self, listener: Listener) -> None:
        """Tell `listener` of each subscription that comes or goes from now on."""
        self._listeners.append(listener)

    def _detach(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    # --- publishing ----------------------------------------------------------------------------------------------

    async def publish(self, event: Event) -> None:
        """Give `event` to everybody who subscribed to its class.

        On an entered bus: returns when the gates have returned and those with `overflow="block"` had room; raises
        what a gate raised, the first in the order of subscription. On a bus that was not entered: returns when all
        handlers have. A handler may publish: nothing that it publishes waits for itself.
        """
        self._targets_of(event, "publish")
        await anyio.lowlevel.checkpoint_if_cancelled()
        owner = handling.get()
        await self._room(event, owner)
        publication = self._send(event, self._targets_of(event, "publish"))
        if publication is not None:
            await publication.wait(owner)
        if self._tasks is None:
            await self._leftovers(owner)
        await anyio.lowlevel.cancel_shielded_checkpoint()
        if publication is not None:
            publication.raise_error()
        self._raise_stray()

    def publish_nowait(self, event: Event) -> None:
        """Give `event` to everybody who subscribed to its class, without waiting.

        On an entered bus it is queued, for gates too. Else plain handlers run here and now.

        Raises:
            RuntimeError: the bus was not entered and somebody has an async handler; nobody got the event.
            anyio.WouldBlock: a subscriber with `overflow="block"` has no room; nobody got the event.
        """
        targets = self._targets_of(event, "publish_nowait")
        if self._tasks is None:
            for mailbox, hook in targets:
                if not mailbox.subscription.is_stream and (hook.is_async or hook.thread) and not mailbox.busy:
                    sort = "is async" if hook.is_async else "has thread=True"
                    raise RuntimeError(
                        f"{mailbox.name} {sort}, so publish_nowait cannot run it here: "
                        "enter the bus (async with bus), or await bus.publish(…)"
                    )
        full = [mailbox.name for mailbox, _ in targets if event.lossy and not mailbox.has_room]
        if full:
            raise anyio.WouldBlock(f"no room for {', '.join(full)}; await bus.publish(…) waits for it")
        publication = self._send(event, targets)
        if publication is None:
            self._raise_stray()
            return
        publication.run()
        if self._tasks is None:
            for mailbox in list(self._mailboxes.values()):
                waits = len(mailbox) and not mailbox.subscription.is_stream
                if waits and not any(h.is_async or h.thread for h in mailbox.subscription._hooks.values()):
                    mailbox.drain_now()
            publication.raise_error()
            self._raise_stray()

    def _send(self, event: Event, targets: list[tuple[Mailbox, Hook]]) -> _Publication | None:
        """Queue it everywhere at once, so that all get all events in one order."""
        asked: list[Mailbox] = []
        here: list[Mailbox] = []
        for mailbox, hook in targets:
            if hook.mode == "inline":
                mailbox.put(event)
                here.append(mailbox)
            elif hook.mode == "queued" and (mailbox.pumped or mailbox.subscription.is_stream):
                mailbox.put(event)
            else:
                asked.append(mailbox)
        publication = _Publication(self, event, asked) if asked else None
        for mailbox in here:
            mailbox.drain_now()
        return publication

    def _targets_of(self, event: Event, what: str) -> list[tuple[Mailbox, Hook]]:
        found = self._targets.get(event.__class__)
        if found is None:
            if not isinstance(event, Event):
                hint = (
                    f"{event.__name__}(…), not the class" if isinstance(event, type) else "as in af.EpochBegin(epoch=0)"
                )
                raise TypeError(f"{what} takes an event, {hint}; got {event!r}")
            found = []
            for subscription in self.subscriptions:
                hook = subscription.handler_for(event.__class__)
                if hook is not None:
                    found.append((self._mailbox(subscription), hook))
            self._targets[event.__class__] = found
        self._check_thread(what)
        return found

    def _mailbox(self, subscription: Subscription) -> Mailbox:
        mailbox = self._mailboxes.get(subscription)
        if mailbox is None:
            inline = all(hook.mode == "inline" for hook in subscription._hooks.values())
            mailbox = Mailbox(subscription, self, pumped=self._tasks is not None and not inline)
            self._mailboxes[subscription] = mailbox
            self._serve(mailbox)
        return mailbox

    def _check_thread(self, what: str) -> None:
        here = threading.get_ident()
        served = any(listener.thread != here for listener in self._listeners) and what == "subscribe"
        if served:
            raise RuntimeError(
                "subscribe was called in another thread than the one whose loop runs with this bus; "
                "there, anyio.from_thread.run_sync(bus.subscribe, …) reaches it"
            )
        if self._tasks is not None and here != self._thread:
            raise RuntimeError(
                f"{what} was called in another thread than the one that entered the bus; "
                f"there, anyio.from_thread.run_sync(bus.{what.split('(')[0]}, …) reaches it"
            )

    async def _room(self, event: Event, owner: Mailbox | None) -> None:
        """Wait until nobody with `overflow="block"` is full, except those who wait for the caller."""
        while True:
            targets = self._targets_of(event, "publish")
            full = [mailbox for mailbox, _ in targets if mailbox.full and not would_wait_for(mailbox, owner)]
            if not full or not event.lossy:
                return
            changed = anyio.Event()
            self._waiters.append(changed)
            with _waiting(owner, full):
                try:
                    await changed.wait()
                finally:
                    if changed in self._waiters:
                        self._waiters.remove(changed)

    async def _leftovers(self, owner: Mailbox | None) -> None:
        """Without tasks: deliver what handlers published meanwhile and nobody waits for."""
        for mailbox in list(self._mailboxes.values()):
            waits = len(mailbox) and not mailbox.subscription.is_stream and not mailbox.busy
            if waits and not would_wait_for(mailbox, owner):
                with _waiting(owner, [mailbox]):
                    await mailbox.drain_until()

    def _raise_stray(self) -> None:
        if self._strays and handling.get() is None:
            error, *rest = self._strays
            self._strays.clear()
            for other in rest:
                error.add_note(f"also: {other!r}")
            raise error

    # --- what mailboxes tell -------------------------------------------------------------------------------------

    def failed(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        """A handler raised where nobody waits: the block ends with it; without a block, whoever publishes gets it."""
        if mailbox.subscription.is_stream:
            stream = self._streams.get(mailbox.subscription, lambda: None)()
            if stream is not None:
                stream.fail(error)
        elif self._tasks is None and not mailbox.pumped:
            self._strays.append(error)
        else:
            if self._failure is None:
                self._failure = error
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()

    def report_failure(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        """A handler's error was logged; tell those who subscribed to `SubscriberFailed`."""
        if event is None:  # it fell behind; its mailbox will be closed, and here that is its only one
            mailbox.subscription.cancel()
        if isinstance(event, SubscriberFailed):
            return  # else a handler that fails at these would never come to rest
        report = SubscriberFailed(name=mailbox.name, error=error)
        for target, hook in list(self._targets_of(report, "publish")):
            target.put(report)
            if hook.mode == "inline":
                target.drain_now()

    def interrupted(self, mailbox: Mailbox) -> None:
        """The loop cancelled a subscriber's task, as asyncio does with all when it ends: it is served no more."""
        _logger.warning("the task of %s was cancelled from outside; it gets no more events", mailbox.name)
        mailbox.subscription.cancel()

    def on_full(self, mailbox: Mailbox, full: bool) -> None:
        """Let publishers that wait for room look again."""
        if not full:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.set()

    def closed(self, mailbox: Mailbox) -> None:
        """Forget a mailbox."""
        if self._mailboxes.get(mailbox.subscription) is mailbox:
            del self._mailboxes[mailbox.subscription]
        self._targets.clear()

    # --- tasks of its own ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise RuntimeError("this bus has been entered already; share the object, or make a second bus")
        self._block = self._entered()
        await self._block.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        block, self._block = self._block, None
        assert block is not None
        return await block.__aexit__(*exc)

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[None]:
        """One task for each subscription. An exception of the body goes out as itself, never in a group."""
        raised: BaseException | None = None
        self._failure = None
        self._thread = threading.get_ident()
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for mailbox in list(self._mailboxes.values()):
                    mailbox.pumped = not mailbox.subscription.is_stream and mailbox.subscription.mode != "inline"
                    self._serve(mailbox)
                try:
                    yield
                    for mailbox in list(self._mailboxes.values()):
                        if mailbox.subscription.is_stream:
                            mailbox.end()
                    await self._drain()
                except anyio.get_cancelled_exc_class():
                    raise  # the group cancels the tasks
                except BaseException as error:
                    raised = error
                finally:
                    self._tasks = None  # no new tasks from now on
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:  # only what no handler may raise, such as KeyboardInterrupt
            if raised is None:
                raise _sole(group) from None
        finally:
            self._watching = False
            for stream in [ref() for ref in self._streams.values()]:
                if stream is not None:
                    stream.finish()
            for mailbox in list(self._mailboxes.values()):
                if mailbox.subscription.is_stream:
                    mailbox.end()
                elif mailbox.pumped:
                    mailbox.close()
            self._targets.clear()
        failure, self._failure = self._failure, None
        if raised is not None:
            if failure is not None and failure is not raised:
                raised.add_note(f"a subscriber had failed before: {failure!r}")
            raise raised
        if failure is not None:
            raise failure

    async def _drain(self) -> None:
        """Wait until nobody has anything left. Streams are not waited for: who reads them may be the caller."""
        while True:
            left = [mailbox for mailbox in self._mailboxes.values() if mailbox.pumped and not mailbox.idle]
            if not left:
                await anyio.lowlevel.checkpoint_if_cancelled()  # idle because it was cancelled is not drained
                return
            for mailbox in left:
                await mailbox.drained()

    def _serve(self, mailbox: Mailbox) -> None:
        if self._tasks is None or not mailbox.pumped:
            return
        self._tasks.start_soon(mailbox.pump, name=f"asyncfit: {mailbox.name}")
        if mailbox.subscription.how.timeout is not None:
            if not self._watching:
                self._watching = True
                self._tasks.start_soon(self._watch, name="asyncfit: timeouts")
            elif self._watch_again is not None:
                self._watch_again.set()

    async def _watch(self) -> None:
        """End deliveries that take longer than their `timeout=`: one task, which sleeps until the first can be due."""
        while True:
            now = clock()
            due = now + 3600.0
            for mailbox in list(self._mailboxes.values()):
                if mailbox.overdue(now):
                    mailbox.expire()
                due = min(due, mailbox.next_check(now))
            self._watch_again = anyio.Event()
            with anyio.move_on_after(due - now):
                await self._watch_again.wait()

    def __repr__(self) -> str:
        return guarded("EventBus", self._shown)

    def _shown(self) -> str:
        entries = [Entry(subscription, subscription.statistics()) for subscription in self.subscriptions]
        told = [f"{len(entries) or 'no'} subscriber{'s' if len(entries) != 1 else ''}"]
        told += ["entered"] if self._tasks is not None else []
        told += [f"in {len(self._listeners)} run{'s' if len(self._listeners) > 1 else ''}"] if self._listeners else []
        return roster(f"EventBus: {', '.join(told)}", entries)


class _Publication:
    """One event on its way through its gates: group after group by `order`, driven by their answers."""

    def __init__(self, bus: EventBus, event: Event, asked: list[Mailbox]) -> None:
        """Queue `event` at all gates. Those of later groups are held, so that nothing overtakes it meanwhile."""
        self._bus = bus
        self._event = event
        self._place = {mailbox: place for place, mailbox in enumerate(asked)}
        self._pending: list[Mailbox] = []  # of the group whose turn it is
        self._errors: list[tuple[int, BaseException]] = []
        self._broken = False
        self._observed = True  # somebody will raise the errors
        self._changed: anyio.Event | None = None
        groups: dict[int, list[tuple[Mailbox, Gate]]] = {}
        for mailbox in asked:
            gate = mailbox.put_gate(event, self._answered, self._pending)
            if gate is not None:
                groups.setdefault(mailbox.subscription.how.order, []).append((mailbox, gate))
        self._groups = [groups[order] for order in sorted(groups)]
        self._advance()

    def _advance(self) -> None:
        """Let the next group go, if the one before is done."""
        while self._groups and not self._pending:
            if not self._broken:
                self._pending.extend(mailbox for mailbox, gate in self._groups[0] if not gate.answered)
            for mailbox, gate in self._groups[0]:
                if self._broken:
                    mailbox.withdraw(gate)
                else:
                    mailbox.proceed(gate)
            if not self._pending:
                del self._groups[0]

    def _answered(self, mailbox: Mailbox, error: BaseException | None) -> None:
        if error is not None:
            self._broken = True
            if self._observed:
                self._errors.append((self._place[mailbox], error))
            else:
                self._bus.failed(mailbox, error, self._event)
        if mailbox in self._pending:
            self._pending.remove(mailbox)
            if not self._pending:
                del self._groups[0]
                self._advance()
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    def _waits(self) -> list[tuple[Mailbox, Gate]]:
        return [(mailbox, gate) for mailbox, gate in self._groups[0] if not gate.answered] if self._groups else []

    async def wait(self, owner: Mailbox | None) -> None:
        """Until all have answered, except those who cannot before the handler of `owner`, the caller, has returned."""
        try:
            while group := [(m, gate) for m, gate in self._waits() if not would_wait_for(m, owner)]:
                with _waiting(owner, [mailbox for mailbox, _ in group]):
                    for mailbox, gate in group:
                        if not mailbox.pumped and not mailbox.subscription.is_stream:
                            await mailbox.drain_until(gate)
                    if not all(gate.answered for _, gate in group):
                        if self._changed is None:
                            self._changed = anyio.Event()
                        await self._changed.wait()
        except BaseException:
            if self._bus._tasks is None:  # the handlers ran in this task: nobody goes on without it
                self._broken = True
                for group in list(self._groups):
                    for mailbox, gate in group:
                        mailbox.withdraw(gate)
            raise
        finally:
            self._observed = False

    def run(self) -> None:
        """Without waiting: on a bus that was not entered, run the handlers here."""
        if self._bus._tasks is None:
            while True:
                before = self._waits()
                for mailbox, _ in before:
                    if not mailbox.subscription.is_stream:
                        mailbox.drain_now()
                if len(self._waits()) == 0 or self._waits() == before:  # what is left, a stream or a caller will do
                    break
        self._observed = False

    def raise_error(self) -> None:
        """Raise what a gate raised, the first in the order of subscription."""
        if self._errors:
            raise min(self._errors, key=lambda entry: entry[0])[1]


@contextmanager
def _waiting(owner: Mailbox | None, others: list[Mailbox]) -> Iterator[None]:
    """Note that a handler of `owner` waits for the others, so that none of theirs waits for it."""
    if owner is not None:
        owner.waiting_for.extend(others)
    try:
        yield
    finally:
        if owner is not None:
            for mailbox in others:
                owner.waiting_for.remove(mailbox)


def _is_kind(given: object) -> bool:
    return isinstance(given, types.UnionType) or (isinstance(given, type) and issubclass(given, Event))


def _sole(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
