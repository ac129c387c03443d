"""What somebody asked for: which events, for which handler, how. Everything is checked here, at the door.

A `Subscription` says what is wanted and can be cancelled; it waits for nothing and queues nothing. Each place that
delivers to it, a bus that was entered or a run, gives it a `Mailbox` of its own.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Union, get_args, get_origin

from .events import Event, kinds_below
from .names import nearest, unknown
from .roster import figures, guarded, line

if TYPE_CHECKING:
    from .mailbox import Mailbox

__all__ = [
    "Filter",
    "Hook",
    "How",
    "Mode",
    "Options",
    "StreamOptions",
    "SubscriberStats",
    "Subscription",
    "event_kinds",
    "handler_hook",
]

Mode = Literal["queued", "gate", "inline"]
Overflow = Literal["drop_oldest", "latest", "block", "fail"]
OnError = Literal["raise", "log", "detach"]


# --- options -------------------------------------------------------------------------------------------------------


class StreamOptions(TypedDict, total=False):
    """The keywords of `events(…)`; `How` says what they mean."""

    gate: bool
    snapshots: bool
    every: int
    every_s: float | None
    where: Callable[[Any], object] | None
    buffer: int
    overflow: Overflow
    name: str | None


class Options(StreamOptions, total=False):
    """The keywords of `on` and `subscribe`; `How` says what they mean."""

    inline: bool
    replayable: bool
    thread: bool
    order: int
    on_error: OnError
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a subscriber wants its events.

    Attributes:
        gate: the decision waits until the handler has returned.
        inline: the handler runs where the event happens, at the event (plain functions only).
        replayable: an inline handler that may see a step again, after work was undone.
        thread: run a plain handler in a thread.
        snapshots: `event.model` is there also without a gate.
        order: gates run in groups of the same order, in ascending order.
        every: of events with a number, only the n-th, 2n-th and so on.
        every_s: seconds that must have passed since the last event of that type; queued subscribers only.
        where: only events for which this returns something true. It runs on the loop and must be quick.
        buffer: how many events that may be dropped can wait.
        overflow: what happens to one more: "drop_oldest", "latest" (only the newest of each type waits),
            "block" (the source waits) or "fail" (the subscriber is ended with an error).
        on_error: what an exception in the handler does: "raise", "log", or "detach" (log, then cancel it).
        timeout: seconds that one delivery may take.
        name: what statistics and messages call it; by default the handler's name.
    """

    gate: bool = False
    inline: bool = False
    replayable: bool = False
    thread: bool = False
    snapshots: bool = False
    order: int = 0
    every: int = 1
    every_s: float | None = None
    where: Callable[[Any], object] | None = None
    buffer: int = 256
    overflow: Overflow = "drop_oldest"
    on_error: OnError = "raise"
    timeout: float | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for flag in ("gate", "inline", "replayable", "thread", "snapshots"):
            if not isinstance(getattr(self, flag), bool):
                raise TypeError(f"{flag}= takes True or False, not {getattr(self, flag)!r}")
        for number in ("order", "every", "buffer"):
            value = getattr(self, number)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{number}= takes a whole number, not {value!r}{_every_hint(number, value)}")
        if self.every < 1:
            raise ValueError(f"every={self.every} is below 1; every=1, the default, is each event")
        if self.buffer < 1:
            raise ValueError(f"buffer={self.buffer} is below 1; at least one event must be able to wait")
        for seconds in ("every_s", "timeout"):
            value = getattr(self, seconds)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{seconds}= takes seconds as a number, not {value!r}")
            if not 0 < value < math.inf:
                raise ValueError(f"{seconds}={value!r} must be more than 0 seconds, and finite")
        if self.where is not None:
            if inspect.iscoroutinefunction(self.where):
                raise TypeError("where= takes a plain function; it is asked before the event is queued, so cannot wait")
            if not callable(self.where):
                raise TypeError(f"where= takes a function of the event, not {self.where!r}")
            check_handler(self.where, "where=")
        if self.overflow not in get_args(Overflow):
            raise ValueError(unknown("overflow", self.overflow, get_args(Overflow)))
        if self.on_error not in get_args(OnError):
            raise ValueError(unknown("on_error", self.on_error, get_args(OnError)))
        name: object = self.name
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name= takes text, not {self.name!r}")
        for other in ("gate", "thread", "timeout"):
            if self.inline and getattr(self, other):
                raise ValueError(f"inline=True and {other}= exclude each other: an inline handler runs at the event")
        if self.every_s is not None and (self.gate or self.inline):
            raise ValueError("every_s= is for queued subscribers: what a gate decides must not depend on the clock")
        if self.replayable and not self.inline:
            raise ValueError("replayable=True says something about an inline handler; give inline=True with it")

    @property
    def mode(self) -> Mode:
        """The way of delivery."""
        return "inline" if self.inline else "gate" if self.gate else "queued"

    @classmethod
    def of(cls, what: str, given: Mapping[str, Any], allowed: Iterable[str] | None = None) -> Self:
        """The options that the caller of `what` gave by keyword."""
        known = [f.name for f in fields(cls)]
        usable = known if allowed is None else list(allowed)
        for key in given:
            if key not in usable:
                if key in known:
                    raise TypeError(f"{what} takes no {key}=; it takes {', '.join(usable)}")
                raise TypeError(f"{what}: {unknown('keyword', key, usable)}")
        return cls(**given)


def _every_hint(name: str, value: object) -> str:
    return "; seconds go into every_s=" if name == "every" and isinstance(value, float) else ""


class Filter:
    """The filters of one subscriber in one place: `every`, `every_s`, `where`. Facts and what has no number pass.

    With `only_batches` `every` thins batch events alone.
    """

    __slots__ = ("_count", "_every", "_every_s", "_last", "_only_batches", "_where")

    def __init__(self, how: How, only_batches: bool = False) -> None:
        self._every = how.every
        self._only_batches = only_batches
        self._every_s = how.every_s
        self._where = how.where
        self._count = 0
        self._last: dict[type[Event], float] = {}

    @classmethod
    def of(cls, how: How, only_batches: bool = False) -> Self | None:
        """The filter for these options, None if all events pass."""
        return None if how.every == 1 and how.every_s is None and how.where is None else cls(how, only_batches)

    def passes(self, event: Event) -> bool:
        """Whether the subscriber gets `event`. Raises what `where=` raises."""
        timed = False
        if event.numbered is not None or event.lossy:
            if self._every > 1 and (event.numbered in ("step", "batch") or not self._only_batches):
                if event.numbered is not None:
                    number = getattr(event, event.numbered)
                else:
                    number = self._count
                    self._count += 1
                if (number + 1) % self._every:
                    return False
            if self._every_s is not None:
                last = self._last.get(event.__class__)
                if last is not None and 0 <= event.time - last < self._every_s:
                    return False
                timed = True
        if self._where is not None and not self._where(event):
            return False
        if timed:
            self._last[event.__class__] = event.time
        return True


# --- kinds and handlers --------------------------------------------------------------------------------------------


def event_kinds(kinds: Iterable[object], what: str) -> tuple[type[Event], ...]:
    """The event classes that the caller of `what` named: classes and unions of classes.

    Raises:
        TypeError: none was given, or one is no event; the message says what to write.
    """
    found: dict[type[Event], None] = {}
    for kind in kinds:
        members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
        for member in members:
            if not (isinstance(member, type) and issubclass(member, Event)):
                raise TypeError(_no_kind(member, what))
            found[member] = None
    if not found:
        raise TypeError(f"{what} needs to know which events: {what.replace('…', 'af.BatchEnd')}, af.Event for all")
    return tuple(found)


def _no_kind(given: object, what: str) -> str:
    head = f"{what} takes event classes"
    if isinstance(given, Event):
        return f"{head}; give the class, {given.type}, not an event of it"
    name = given if isinstance(given, str) else getattr(given, "__name__", None)
    if isinstance(name, str) and isinstance(given, str | type):
        stem = name.removeprefix("on_").removeprefix("on")
        guess = nearest(stem, [kind.__name__ for kind in kinds_below(Event)])
        hint = f"; did you mean af.{guess}?" if guess else ""
        return f"{head}, not {given!r}{hint}"
    if callable(given):
        return f"{head} first, then the handler: {what.replace('…', 'af.BatchEnd')}; {_label(given)} is no event class"
    return f"{head}, not {given!r}"


@dataclass(frozen=True, slots=True)
class Hook:
    """What to call for an event.

    Attributes:
        call: the handler, takes the event.
        is_async: whether it is an `async def` (a plain one may still return an awaitable).
        mode: "queued", "gate" or "inline".
        replayable: an inline handler that may see a step again.
        thread: to be called in a thread.
        label: what messages call it.
    """

    call: Callable[[Any], Any]
    is_async: bool
    mode: Mode
    replayable: bool = False
    thread: bool = False
    label: str = ""


def is_async(handler: object) -> bool:
    """Whether calling `handler` gives a coroutine: `async def`, also as method, partial or an object's `__call__`."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.iscoroutinefunction(handler):
        return True
    return not inspect.isroutine(handler) and inspect.iscoroutinefunction(_called(handler))


def _called(handler: object) -> object:
    """The function that runs when an object is called."""
    return getattr(type(handler), "__call__", handler)  # noqa: B004


def _label(handler: object) -> str:
    while isinstance(handler, functools.partial):
        handler = handler.func
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return name.rpartition("<locals>.")[2] or name


def check_handler(handler: object, what: str) -> Callable[[Any], Any]:
    """`handler`, if it can be called with an event.

    Raises:
        TypeError: it cannot; the message says what to write instead.
    """
    if inspect.iscoroutine(handler):
        handler.close()  # else a "never awaited" warning follows the error
        raise TypeError(f"{what} takes the function itself, not what it returned; drop the () after it")
    if inspect.isasyncgen(handler) or inspect.isgenerator(handler):
        raise TypeError(f"{what} takes a function of the event; a generator cannot be called")
    if isinstance(handler, type):
        if issubclass(handler, Event):
            raise TypeError(f"{what}: the handler goes last; {handler.__name__} is an event class")
        raise TypeError(f"{what}: {handler.__name__} is a class; give an object of it, or a function")
    if not callable(handler):
        if hasattr(handler, "on_epoch_end"):
            raise TypeError(
                f"{what} takes a function; a callback such as {type(handler).__name__} goes into "
                "callbacks=[…] of fit or compile"
            )
        raise TypeError(f"{what} takes a handler, as in `async def handler(event): …`, not {handler!r}")
    inner: object = handler
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inner if inspect.isroutine(inner) else _called(inner)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise TypeError(f"{what}: {_label(handler)} has a `yield` in it, so calling it does nothing; a handler returns")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # some builtins have none
        return handler
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"{what}: a handler takes one argument, the event, as in `async def handler(event): …`; "
            f"{_label(handler)} takes {signature}"
        ) from None
    return handler


def handler_hook(handler: object, how: How, what: str) -> Hook:
    """The checked handler with what its options make of it."""
    call = check_handler(handler, what)
    awaited = is_async(call)
    if awaited and how.inline:
        raise TypeError(f"{what}: inline=True is for plain functions, compute cannot await; {_label(call)} is async")
    if awaited and how.thread:
        raise TypeError(f"{what}: thread=True is for plain functions; {_label(call)} is async and needs the loop")
    return Hook(call, awaited, how.mode, how.replayable, how.thread, how.name or _label(call))


# --- the handle ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberStats:
    """What became of the events for one subscriber.

    Of the events that passed its filters each is delivered, dropped, cancelled, queued, or in its handler's hands.

    Attributes:
        name: of the subscriber.
        mode: "queued", "gate" or "inline"; a callback with gates among its hooks is a "gate".
        delivered: events that its handler returned from, or raised at.
        dropped: events that its overflow policy dropped.
        queued: events that wait now.
        cancelled: events that waited, or were in the handler's hands, when it was cancelled.
        errors: exceptions of the handler and of `where=`, timeouts included.
        seconds: spent in the handler, waiting included.
        max_lag: the longest time in seconds from an event's `time` to its handler.
        busy_for: seconds since the handler got the event it has in hand, None if it has none.
        where: file, line and function at which the handler is suspended, None if it is not.
        snapshots: models held by the events that wait and the one in hand.
    """

    name: str
    mode: Mode
    delivered: int = 0
    dropped: int = 0
    queued: int = 0
    cancelled: int = 0
    errors: int = 0
    seconds: float = 0.0
    max_lag: float = 0.0
    busy_for: float | None = None
    where: str | None = None
    snapshots: int = 0

    def __add__(self, other: SubscriberStats) -> SubscriberStats:
        """Both together, for a subscriber that is served in several places."""
        busy = [b for b in (self.busy_for, other.busy_for) if b is not None]
        return SubscriberStats(
            name=self.name,
            mode=self.mode,
            delivered=self.delivered + other.delivered,
            dropped=self.dropped + other.dropped,
            queued=self.queued + other.queued,
            cancelled=self.cancelled + other.cancelled,
            errors=self.errors + other.errors,
            seconds=self.seconds + other.seconds,
            max_lag=max(self.max_lag, other.max_lag),
            busy_for=max(busy) if busy else None,
            where=self.where or other.where,
            snapshots=self.snapshots + other.snapshots,
        )


class Subscription:
    """One subscriber. `cancel()`, or leaving its `with` block, ends it; an event in its handler's hands is finished.

    Attributes:
        kinds: the event classes it gets, with their subclasses.
        how: its options.
        name: what statistics and messages call it.
        source: the handler, or the callback.
        is_stream: whether somebody iterates over it instead of having a handler called.
        only_batches: whether `every=` thins batch events alone, as for a callback, whose epochs all count.
    """

    def __init__(
        self,
        hooks: Mapping[type[Event], Hook],
        how: How,
        name: str,
        *,
        source: object = None,
        is_stream: bool = False,
        only_batches: bool = False,
        on_cancel: Callable[[Subscription], None] | None = None,
    ) -> None:
        self.kinds = tuple(hooks)
        self.how = how
        self.name = name
        self.source = source
        self.is_stream = is_stream
        self.only_batches = only_batches
        self.mailboxes: list[Mailbox] = []
        self._hooks = dict(hooks)
        self._found: dict[type[Event], Hook | None] = {}
        self._on_cancel = on_cancel
        self._cancelled = False
        self._waker: Callable[[Mailbox], None] | None = None
        modes = {hook.mode for hook in hooks.values()}
        self.mode: Mode = "gate" if "gate" in modes else "queued" if "queued" in modes else "inline"
        self._past = SubscriberStats(name=name, mode=self.mode)

    @property
    def cancelled(self) -> bool:
        """Whether it has been cancelled."""
        return self._cancelled

    def handler_for(self, kind: type[Event]) -> Hook | None:
        """What to call for events of this class, None if it does not get them."""
        try:
            return self._found[kind]
        except KeyError:
            hook = next((self._hooks[base] for base in kind.__mro__ if base in self._hooks), None)
            self._found[kind] = hook
            return hook

    def cancel(self) -> None:
        """End it: what waits is not delivered, gates that wait for it are released. May be called twice, anywhere."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._on_cancel is not None:
            self._on_cancel(self)
        for mailbox in list(self.mailboxes):
            mailbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()

    def statistics(self) -> SubscriberStats:
        """What became of its events so far, in all places together."""
        total = self._past
        for mailbox in list(self.mailboxes):
            total = total + mailbox.statistics()
        return total

    def _joined(self, mailbox: Mailbox) -> None:
        self.mailboxes.append(mailbox)
        if self._waker is not None:
            self._waker(mailbox)

    def _left(self, mailbox: Mailbox) -> None:
        if mailbox in self.mailboxes:
            self.mailboxes.remove(mailbox)
            self._past = self._past + mailbox.statistics()

    def __repr__(self) -> str:
        def told() -> str:
            kinds = ", ".join(kind.__name__ for kind in self.kinds)
            changed = [
                f"{f.name}={getattr(self.how, f.name)!r}"
                for f in fields(self.how)
                if f.name not in ("gate", "inline", "name", "where") and getattr(self.how, f.name) != f.default
            ]
            if self.how.where is not None:
                changed.append(f"where={line(_label(self.how.where))}")
            state = ", cancelled" if self._cancelled else ""
            wanted = ", ".join([kinds, self.mode, *changed])
            return f"<Subscription {line(self.name, 80)}: {wanted}; {', '.join(figures(self.statistics()))}{state}>"

        return guarded("Subscription", told)
