"""Brings a run's events to its subscribers: a mailbox and a task for each, gates in groups, inline handlers, time.

The ledger decides what is published and asked; this file decides who gets it. One `Delivery` serves one run. All of
it happens on the run's loop, but for `Inline`, which compute calls in its own thread.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import anyio
import anyio.abc

from .bus import EventBus
from .callback import Callback
from .control import GateControl, Owner, named
from .events import (
    BatchBegin,
    BatchEnd,
    EpochBegin,
    EpochEnd,
    Event,
    SubscriberFailed,
    TrainBegin,
    TrainEnd,
    ValidationBegin,
    ValidationEnd,
)
from .inline_port import Inline
from .mailbox import Mailbox, clock
from .protocol import Decision, Interest
from .roster import Entry
from .saving import Savings, kept_copy
from .streams import EventStream
from .subscriptions import SubscriberStats, Subscription
from .tasks import take_back, was_interrupted

__all__ = ["HELD", "Delivery"]

HELD = (5.0, 30.0, 300.0)
"""A gate that has held its event for so many seconds is logged, with where its handler is suspended."""

PAST = 1000
"""Of so many subscribers that are gone `run.subscribers` still has the figures."""

BOUNDARY = (TrainBegin, EpochBegin, ValidationBegin, ValidationEnd, EpochEnd)

_logger = logging.getLogger("asyncfit")


class Delivery:
    """The subscribers of one run. A `Home` of their mailboxes and a `Listener` of the bus."""

    def __init__(self, owner: Owner, subscriptions: Iterable[Subscription], bus: EventBus | None) -> None:
        self._owner = owner
        self._bus = bus
        self.thread = threading.get_ident()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._boxes: dict[Subscription, Mailbox] = {}
        self._order: list[Subscription] = []
        self._streams: dict[Subscription, weakref.ref[EventStream[Any]]] = {}
        self._past: list[Subscription] = []
        self._queued: dict[type[Event], list[Mailbox]] = {}
        self._gates: dict[type[Event], list[Mailbox]] = {}
        self._round: _Round | None = None
        self._full: set[Mailbox] = set()
        self._timer_due = anyio.Event()
        self._looks: dict[Callable[[], object], tuple[float, float]] = {}  # how often each is due, and when
        self._over = False
        self.savings: Savings | None = None
        self.inline = Inline(owner)
        for subscription in subscriptions:
            self._add(subscription)
        if bus is not None:
            for subscription in bus.subscriptions:
                self._add(subscription)
            bus._attach(self)

    # --- who listens -------------------------------------------------------------------------------------------------

    def _add(self, subscription: Subscription) -> None:
        if subscription in self._order or subscription.cancelled:
            return
        self._order.append(subscription)
        if any(hook.mode != "inline" for hook in subscription._hooks.values()):
            box = Mailbox(subscription, self)
            self._boxes[subscription] = box
            self._start(box)
        self._changed()

    def subscribed(self, subscription: Subscription) -> None:
        """A subscription came to the bus, or to the run."""
        if not self._over:
            self._add(subscription)
            self._owner.listen(self.interest())

    def unsubscribed(self, subscription: Subscription) -> None:
        """One was cancelled; its mailbox closes itself."""
        if subscription in self._order:
            self._order.remove(subscription)
            self._past.append(subscription)
            if len(self._past) > PAST:  # a service streams a long run to many, one after the other
                oldest = self._past.pop(0)
                self._boxes.pop(oldest, None)
                self._streams.pop(oldest, None)
        self._changed()
        if not self._over:
            self._owner.listen(self.interest())

    def _changed(self) -> None:
        self._queued.clear()
        self._gates.clear()
        self.inline.changed([s for s in self._order if any(h.mode == "inline" for h in s._hooks.values())])
        self._timer_due.set()

    def _route(self, kind: type[Event]) -> None:
        queued: list[Mailbox] = []
        gates: list[Mailbox] = []
        for subscription in self._order:
            hook = subscription.handler_for(kind)
            box = self._boxes.get(subscription)
            if hook is not None and box is not None and hook.mode != "inline":
                (gates if hook.mode == "gate" else queued).append(box)
        self._queued[kind], self._gates[kind] = queued, gates

    def gated(self, kind: type[Event]) -> bool:
        """Whether somebody gates this kind of event now."""
        if kind not in self._gates:
            self._route(kind)
        return bool(self._gates[kind])

    def every(self, kind: type[Event]) -> int:
        """Every so many of these events somebody listens to, by `every=`; 0 if nobody does."""
        wanted = 0
        for subscription in self._order:
            hook = subscription.handler_for(kind)
            if hook is not None and hook.mode != "inline":
                wanted = math.gcd(wanted, subscription.how.every)
        return wanted

    def interest(self) -> Interest:
        """What compute has to report and to hold for those who listen now, and for those who save."""
        heard = self._heard()
        return heard if self.savings is None else self.savings.interest(heard)

    def _heard(self) -> Interest:
        boundary = begin = snapshot_boundary = snapshot_end = validation = inline = lockstep = False
        inline_batch = {BatchBegin: False, BatchEnd: False}
        hold = {BatchBegin: 0, BatchEnd: 0}
        tell = {BatchBegin: 0, BatchEnd: 0}
        snapshot_batch = 0
        for subscription in self._order:
            how = subscription.how
            hooks = [(kind, subscription.handler_for(kind)) for kind in (*BOUNDARY, BatchBegin, BatchEnd, TrainEnd)]
            for kind, hook in hooks:
                if hook is None:
                    continue
                if hook.mode == "inline":
                    if not self.inline.serves(subscription):
                        continue
                    inline = True
                    if kind is BatchBegin or kind is BatchEnd:
                        inline_batch[kind] = True
                    lockstep |= not hook.replayable
                    continue
                if kind is TrainEnd:
                    snapshot_end |= hook.mode == "gate" or how.snapshots
                elif kind is BatchBegin or kind is BatchEnd:
                    mine = hold if hook.mode == "gate" else tell
                    mine[kind] = math.gcd(mine[kind], how.every)
                    if how.snapshots and kind is BatchEnd:
                        snapshot_batch = math.gcd(snapshot_batch, how.every)
                else:
                    boundary |= hook.mode == "gate" and kind is not TrainBegin
                    begin |= hook.mode == "gate" and kind is TrainBegin
                    snapshot_boundary |= how.snapshots
                    validation |= kind is ValidationBegin
        return Interest(
            hold_boundary=boundary,
            hold_begin=begin,
            hold_batch_begin=hold[BatchBegin],
            hold_batch_end=hold[BatchEnd],
            batch_begin=math.gcd(hold[BatchBegin], tell[BatchBegin]),
            batch_end=math.gcd(hold[BatchEnd], tell[BatchEnd]),
            validation_begin=validation,
            snapshot_boundary=snapshot_boundary,
            snapshot_batch=snapshot_batch,
            snapshot_end=snapshot_end,
            inline=inline,
            inline_batch_begin=inline_batch[BatchBegin],
            inline_batch_end=inline_batch[BatchEnd],
            lockstep=lockstep,
        )

    def statistics(self) -> list[SubscriberStats]:
        """One entry for each that is or was subscribed in this run."""
        return [self._statistics(subscription) for subscription in (*self._order, *self._past)]

    def entries(self) -> list[Entry]:
        """The same with who it is: those that are gone last."""
        here, gone = tuple(self._order), tuple(self._past)
        return [Entry(s, self._statistics(s), place >= len(here)) for place, s in enumerate((*here, *gone))]

    def _statistics(self, subscription: Subscription) -> SubscriberStats:
        box, inline = self._boxes.get(subscription), self.inline.statistics(subscription)
        if box is None:  # neither, when another thread asks while it comes or goes
            return inline or SubscriberStats(name=subscription.name, mode=subscription.mode)
        return box.statistics() if inline is None else box.statistics() + inline

    def collect(
        self,
        known: Mapping[str, Any],
        done: Callable[[dict[str, Mapping[str, Any]], BaseException | None], None],
    ) -> Callable[[], list[str]]:
        """Call `done` with the states of all callbacks, each as it is behind the events that it was given so far.

        Args:
            known: those that were taken elsewhere, by name.
            done: gets the states by name, and what a callback raised instead of giving its own.

        Returns:
            what tells, until then, who has not come so far, and where its handler is suspended.
        """
        states: dict[str, Mapping[str, Any]] = {}
        errors: list[BaseException] = []
        asked = [
            (subscription.name, subscription.source, self._boxes[subscription])
            for subscription in self._order
            if isinstance(subscription.source, Callback) and subscription in self._boxes
            if subscription.name not in known and type(subscription.source).state_dict is not Callback.state_dict
        ]
        left = {name: box for name, _, box in asked}

        def finish() -> None:
            found = {**states, **known}
            done({s.name: found[s.name] for s in self._order if found.get(s.name)}, next(iter(errors), None))

        def reached(name: str, callback: Callback) -> None:
            try:
                states[name] = kept_copy(callback.state_dict(), name)
            except Exception as error:
                error.add_note(f"in state_dict of {name}, which a checkpoint needs")
                errors.append(error)
            del left[name]
            if not left:
                finish()

        for name, callback, box in asked:
            box.put_marker(functools.partial(reached, name, callback))
        if not asked:
            finish()
        return lambda: [f"{name} ({box.where() or 'it is behind with its events'})" for name, box in left.items()]

    def settling(self) -> list[Callable[[], Awaitable[None]]]:
        """What waits for the files that callbacks are writing."""
        found = (getattr(subscription.source, "settled", None) for subscription in self._order)
        return [settled for settled in found if inspect.iscoroutinefunction(settled)]

    # --- what the ledger wants ---------------------------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Give `event` to all who are not asked about it, and to gates that did not hold it."""
        kind = event.__class__
        if kind not in self._queued:
            self._route(kind)
        queued, gates = self._queued[kind], self._gates[kind]  # whoever comes or goes meanwhile
        if getattr(event, "_model", None) is None:
            for box in queued:
                box.put(event)
        else:
            bare = None
            for box in queued:
                if box.subscription.how.snapshots:
                    box.put(event)
                else:
                    bare = bare or event._replace()._attach(self._owner.late, None)
                    box.put(bare)
        if gates:
            asked = self._round.asked if self._round is not None and self._round.seq == event.seq else ()
            for box in gates:
                if box not in asked:
                    box.put(event)

    def ask(self, event: Event) -> None:
        """Ask the gates of `event`, group after group; `Owner.answered` gets one merged decision."""
        if event.__class__ not in self._gates:
            self._route(event.__class__)
        self._round = _Round(self, event, self._gates[event.__class__])
        self._timer_due.set()
        self._round.advance()

    def abandon(self) -> None:
        """The run no longer waits for the gates that are out."""
        if self._round is not None:
            self._round.release()

    # --- tasks and time ----------------------------------------------------------------------------------------------

    def serve(self, tasks: anyio.abc.TaskGroup) -> None:
        """From now on each subscriber has its task."""
        self._tasks = tasks
        for box in self._boxes.values():
            self._start(box)
        tasks.start_soon(self._watch, name="asyncfit: timer")

    def _start(self, box: Mailbox) -> None:
        if self._tasks is not None and box.pumped:
            self._tasks.start_soon(self._pump, box, name=f"asyncfit: {box.name}")

    async def _pump(self, box: Mailbox) -> None:
        try:
            await box.pump()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # what no handler may raise, such as SystemExit
            self._owner.crashed(error)

    async def _watch(self) -> None:
        """End deliveries that are overdue, and tell of gates that hold for long: one task, asleep until then."""
        while True:
            now = clock()
            due = now + 3600.0
            for box in list(self._boxes.values()):
                if box.overdue(now):
                    box.expire()
                due = min(due, box.next_check(now))
            if self._round is not None:
                due = min(due, self._round.report_long(now))
            due = min(due, self._look(now))
            self._timer_due = anyio.Event()
            try:
                with anyio.move_on_after(max(0.0, due - now)):
                    await self._timer_due.wait()
            except BaseException as error:
                if not was_interrupted(error):
                    raise
                take_back()
                self._owner.interrupted()

    def look(self, each: Callable[[], object], every_s: float) -> None:
        """Call `each` every so many seconds, also while no event comes: it shows the run to somebody."""
        self._looks[each] = (every_s, 0.0)
        self._timer_due.set()

    def last_look(self) -> None:
        """The run has ended, and can be seen so."""
        self._look(math.inf)
        self._looks.clear()

    def _look(self, now: float) -> float:
        """Call who is due; when the next one will be."""
        for each, (every_s, due) in list(self._looks.items()):
            if now >= due:
                try:
                    each()
                except Exception:
                    _logger.warning("a display of the run failed, and is updated no more", exc_info=True)
                    del self._looks[each]
                else:
                    self._looks[each] = (every_s, now + every_s)
        return min((due for _, due in self._looks.values()), default=math.inf)

    async def drain(self) -> None:
        """Nothing more will come: wait until every task has delivered what it has. Streams are not waited for."""
        self._over = True
        for box in list(self._boxes.values()):
            box.end()
        for stream in self.streams():
            stream.finish()
        for box in list(self._boxes.values()):
            if box.pumped:
                await box.drained()

    def close(self) -> list[str]:
        """Deliver nothing more; streams end with what they have. Returns the names of those who still had something."""
        self._over = True
        for stream in self.streams():
            stream.finish()
        late = [box.name for box in self._boxes.values() if box.pumped and not box.idle]
        for box in list(self._boxes.values()):
            if box.pumped:
                box.close()
        if self._bus is not None:
            self._bus._detach(self)
            self._bus = None
        self._round = None  # and the model that it holds
        return late

    # --- streams of the run ------------------------------------------------------------------------------------------

    def add_stream(self, subscription: Subscription, stream: EventStream[Any]) -> None:
        if self._over:
            stream.finish()
        else:
            self._streams[subscription] = weakref.ref(stream)
            self.subscribed(subscription)

    def streams(self) -> list[EventStream[Any]]:
        return [s for s in (ref() for ref in self._streams.values()) if s is not None]

    def close_streams(self) -> None:
        """The block of the run is left: whoever still iterates has come to the end."""
        for stream in self.streams():
            stream.close()

    # --- what mailboxes tell -----------------------------------------------------------------------------------------

    def failed(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        """A handler raised where no gate is held: the run fails, as of now."""
        if mailbox.subscription.is_stream:
            ref = self._streams.get(mailbox.subscription)
            stream = None if ref is None else ref()
            if stream is not None:
                stream.fail(error)
                return
        self._owner.failed(error)

    def report_failure(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        if not isinstance(event, SubscriberFailed):  # else one that fails at these would never come to rest
            self._owner.publish(SubscriberFailed(name=mailbox.name, error=error))

    def interrupted(self, mailbox: Mailbox) -> None:
        self._owner.interrupted()

    def on_full(self, mailbox: Mailbox, full: bool) -> None:
        before = bool(self._full)
        (self._full.add if full else self._full.discard)(mailbox)
        if bool(self._full) != before:
            self._owner.throttle(full)

    def closed(self, mailbox: Mailbox) -> None:
        if mailbox.subscription in self._order and not self._over:
            self.unsubscribed(mailbox.subscription)


class _Round:
    """One event on its way through its gates: group after group by `order`."""

    def __init__(self, delivery: Delivery, event: Event, boxes: list[Mailbox]) -> None:
        self._delivery = delivery
        self._event = event
        self._model = getattr(event, "_model", None)
        self.seq = event.seq
        self._place = {box: place for place, box in enumerate(boxes)}
        self._groups = [
            [box for box in boxes if box.subscription.how.order == order]
            for order in sorted({box.subscription.how.order for box in boxes})
        ]
        self._out: dict[Mailbox, GateControl] = {}
        self._done: list[tuple[int, Decision]] = []
        self._errors: list[tuple[int, BaseException]] = []
        self._decision = Decision()
        self.asked: set[Mailbox] = set()
        self._since = clock()
        self._told = 0
        self._active = True

    def advance(self) -> None:
        """Start the next group; when there is none, answer."""
        while self._active and not self._out:
            for _, decision in sorted(self._done, key=lambda entry: entry[0]):
                self._decision.merge(decision)
            if self._done and self._decision.logs:
                logs = type(self._event.logs)({**self._event.logs, **self._decision.logs})  # type: ignore[attr-defined]
                self._event = self._event._replace(logs=logs)
            self._model = self._model if self._decision.view is None else self._decision.view
            self._done = []
            if self._errors or not self._groups:
                self._finish()
                return
            owner = self._delivery._owner
            rate = functools.partial(owner.rate, self._decision.rate)
            for box in self._groups.pop(0):
                control = GateControl(box.name, owner.late, owner.model, owner.schedule, rate)
                event = self._event._replace()._attach(control, self._model)
                self.asked.add(box)
                if box.put_gate(event, self._answered) is not None:
                    self._out[box] = control

    def _answered(self, box: Mailbox, error: BaseException | None) -> None:
        control = self._out.pop(box, None)
        if control is None:
            return
        control.released = True
        if not self._active:
            if error is not None:
                self._delivery._owner.also_failed(error)
            return
        if error is not None:
            self._errors.append((self._place[box], error))
        else:
            self._done.append((self._place[box], control.decision))
        if not self._out:
            self.advance()

    def _finish(self) -> None:
        self._active = False
        errors = [error for _, error in sorted(self._errors, key=lambda entry: entry[0])]
        if errors:
            for group in self._groups:  # they do not start, and hear of it no other way
                self.asked.update(group)
        self._delivery._owner.answered(self._event, self._decision, errors[0] if errors else None)
        for other in errors[1:]:
            self._delivery._owner.also_failed(other)
        self._event, self._model = self._event._replace(), None  # the next round may be far off

    def release(self) -> None:
        self._active = False
        for control in self._out.values():
            control.released = True

    def report_long(self, now: float) -> float:
        """Log if a gate has held for long; when to look again."""
        if not self._active or self._told >= len(HELD):
            return math.inf
        held = now - self._since
        if held >= HELD[self._told]:
            while self._told < len(HELD) and held >= HELD[self._told]:
                self._told += 1
            for box in self._out:
                where = box.where() or (
                    "its iteration has not gone on; close() it if it will not"
                    if box.subscription.is_stream
                    else "waiting for its turn behind earlier events"
                )
                _logger.warning("%s holds %s for %.0f s now: %s", box.name, named(self._event), held, where)
        return self._since + HELD[self._told] if self._told < len(HELD) else math.inf
