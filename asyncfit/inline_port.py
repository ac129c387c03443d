"""Inline handlers: plain functions that compute calls in its own thread, at the event, on the live model."""

from __future__ import annotations

import contextvars
import copy
import dataclasses
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .callback import Callback, subscription_of
from .control import GateControl, Owner, named
from .errors import InvalidInput
from .events import (
    CheckpointFailed,
    CheckpointSaved,
    EvaluateBatchEnd,
    EvaluateBegin,
    EvaluateEnd,
    Event,
    LearningRateChanged,
    PredictBatchEnd,
    PredictBegin,
    PredictEnd,
    RunPaused,
    RunResumed,
    StopRequested,
    SubscriberFailed,
    TrainEnd,
    WeightsRestored,
    WorkerRestarted,
)
from .executors.memory import check_portable
from .mailbox import clock
from .protocol import Decision
from .subscriptions import Filter, Hook, SubscriberStats, Subscription

__all__ = ["Inline", "InlineControl", "check_inline", "for_process"]

AFTERWARDS = (
    TrainEnd,
    StopRequested,
    LearningRateChanged,
    WeightsRestored,
    WorkerRestarted,
    CheckpointSaved,
    CheckpointFailed,
    RunPaused,
    RunResumed,
    EvaluateBegin,
    EvaluateBatchEnd,
    EvaluateEnd,
    PredictBegin,
    PredictBatchEnd,
    PredictEnd,
)
"""What the run publishes, and compute never sees; and the events of a pass, which has no live model to look at."""

_logger = logging.getLogger("asyncfit")


def check_inline(subscription: Subscription, *, remote: bool = False) -> None:
    """Refuse inline handlers that nobody would ever call: events that do not happen in compute, and other processes.

    Args:
        remote: compute is in another process; a callback that is `portable` may go there.
    """
    for kind in subscription.kinds:
        hook = subscription.handler_for(kind)
        if hook is None or hook.mode != "inline":
            continue
        if issubclass(kind, AFTERWARDS):
            raise InvalidInput(
                f"{hook.label}: {kind.__name__} does not happen in compute, so it cannot be handled inline; "
                "subscribe to it without inline"
            )
        if remote and not _portable(subscription):
            raise InvalidInput(
                f"{hook.label} is inline, so it runs in compute, but that is in a process of its own and the handler "
                "lives in this one: make it a gate, or use executor='thread'. (A callback whose hooks may run on a "
                "copy there says so with portable = True)"
            )


def for_process(subscription: Subscription) -> Subscription:
    """The subscription for a run whose compute is elsewhere: inline hooks that cannot go there become gates.

    What they decide is the same; compute waits for them.
    """
    inline = any(hook.mode == "inline" for hook in subscription._hooks.values())
    if not inline or not _portable(subscription):
        return subscription
    try:
        check_portable(subscription.source)
        return subscription
    except Exception:  # a lambda among its settings, say
        hooks = {
            kind: dataclasses.replace(hook, mode="gate") if hook.mode == "inline" else hook
            for kind, hook in subscription._hooks.items()
        }
        return Subscription(hooks, subscription.how, subscription.name, source=subscription.source)


def _portable(subscription: Subscription) -> bool:
    return isinstance(subscription.source, Callback) and bool(getattr(subscription.source, "portable", False))


class InlineControl(GateControl):
    """For inline handlers: compute does what they ask for when they have returned."""

    __slots__ = ()

    def restore_at_end(self, snapshot: object, default: bool) -> None:
        raise TypeError(
            "restore_at_end() is for gates: an inline handler runs in compute, which does not decide the end"
        )

    def show_model(self, snapshot: object) -> None:
        raise TypeError("show_model() is for gates: inline handlers and those after them see the live model")


class _InlineSubscriber:
    """One subscription's inline handlers: what filters them, where they run, and the figures."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.filter = Filter.of(subscription.how, subscription.only_batches)
        self.context = contextvars.copy_context()
        self.delivered = 0
        self.errors = 0
        self.seconds = 0.0

    def statistics(self) -> SubscriberStats:
        return SubscriberStats(
            name=self.subscription.name,
            mode="inline",
            delivered=self.delivered,
            errors=self.errors,
            seconds=self.seconds,
        )


class _Table:
    """The inline subscribers at one time: compute reads it while the loop may put another one in its place."""

    def __init__(self, subscribers: list[_InlineSubscriber]) -> None:
        self.subscribers = subscribers
        self._found: dict[type[Event], list[tuple[_InlineSubscriber, Hook]]] = {}

    def handlers(self, kind: type[Event]) -> list[tuple[_InlineSubscriber, Hook]]:
        found = self._found.get(kind)
        if found is None:
            pairs = [(s, s.subscription.handler_for(kind)) for s in self.subscribers]
            found = self._found[kind] = [(s, hook) for s, hook in pairs if hook is not None and hook.mode == "inline"]
        return found


class Inline:
    """The port through which compute calls inline handlers, in its own thread, on the live model."""

    def __init__(self, owner: Owner) -> None:
        self.trainable: Any = None
        self.run_id = ""
        self.attempt = 0
        self.tell: Callable[[Any], object] = lambda told: None
        """In another process: what brings word to this port's original."""
        self._owner = owner
        self._table = _Table([])
        self._known: dict[Subscription, _InlineSubscriber] = {}
        self.remote = False
        """Compute is in another process: what is subscribed from now on cannot go there any more."""
        self._refused: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._all: list[_InlineSubscriber] = []  # those whose copies have been elsewhere
        self._parcelled: list[_InlineSubscriber] = []  # and those whose are there now
        self._before: list[tuple[int, int, float]] = []  # their figures before

    def changed(self, subscriptions: list[Subscription]) -> None:
        """These have inline hooks now."""
        for subscription in subscriptions:
            if subscription in self._known or subscription in self._refused:
                continue
            if self.remote:
                self._refused.add(subscription)
                _logger.warning(
                    "%s is inline, but compute of run %s is in a process of its own and has begun: it will not be "
                    "called. Subscribe it without inline, or use executor='thread'",
                    subscription.name, self.run_id,
                )  # fmt: skip
            else:
                self._known[subscription] = _InlineSubscriber(subscription)
        self._table = _Table([self._known[s] for s in subscriptions if s in self._known])

    def serves(self, subscription: Subscription) -> bool:
        """Whether its inline handlers are called."""
        return subscription in self._known

    def call(self, kind: type[Event], now: float, values: Mapping[str, Any], replay: bool) -> Decision | None:
        handlers = self._table.handlers(kind)
        if not handlers:
            return None
        owner, decision = self._owner, Decision()
        made: Any = kind
        for subscriber, hook in handlers:
            event = made(run_id=self.run_id, attempt=self.attempt, time=now, **values)
            control = InlineControl(subscriber.subscription.name, owner.late, owner.model, owner.schedule, self._rate)
            event._attach(control, self.trainable)
            object.__setattr__(event, "_replay", replay)
            try:
                if subscriber.filter is not None and not subscriber.filter.passes(event):
                    continue
                began = clock()
                try:
                    subscriber.context.run(hook.call, event)
                finally:
                    subscriber.seconds += clock() - began
                    subscriber.delivered += 1
            except BaseException as error:
                error.add_note(f"in {hook.label}, inline, at {named(event)}")
                subscriber.errors += 1
                if subscriber.subscription.how.on_error == "raise" or not isinstance(error, Exception):
                    raise
                self._failed(subscriber.subscription, error)
            finally:
                control.released = True
            decision.merge(control.decision)
        asked = decision.stops or decision.rate or decision.weights or decision.logs
        return decision if asked else None

    def _rate(self) -> float:
        return float(self.trainable.learning_rate)

    def _failed(self, subscription: Subscription, error: Any) -> None:
        _logger.error("%s failed", subscription.name, exc_info=error)
        self._owner.publish(SubscriberFailed(name=subscription.name, error=error))
        if subscription.how.on_error == "detach":
            table = self._table
            self._table = _Table([s for s in table.subscribers if s.subscription is not subscription])
            self._owner.on_loop(subscription.cancel)

    # --- in another process ---

    def names(self) -> frozenset[str]:
        """Of those whose handlers are called: one that failed may have been taken out."""
        return frozenset(s.subscription.name for s in self._table.subscribers)

    def parcel(self, names: frozenset[str] | None = None) -> Inline | None:
        """A port for copies of these callbacks, which can be pickled; None without any. `take` hears of them.

        Args:
            names: for the second time: of those that are still called.
        """
        self._all = self._all or self._table.subscribers
        self._parcelled = [s for s in self._all if names is None or s.subscription.name in names]
        self._before = [(s.delivered, s.errors, s.seconds) for s in self._parcelled]
        if not self._parcelled:
            return None
        port = Inline(Owner.elsewhere(self._owner.schedule, lambda what, value: None))
        port.run_id, port.attempt = self.run_id, self.attempt
        port.changed([s.subscription for s in self._parcelled])
        return port

    def __reduce__(self) -> tuple[Any, ...]:
        callbacks = [(s.subscription.source, s.subscription.name) for s in self._table.subscribers]
        return _unpacked, (callbacks, self.run_id, self.attempt, self._owner.schedule)

    def take(self, told: tuple[str, Any]) -> None:
        """What a handler elsewhere has brought about."""
        what, value = told
        late = self._owner.late
        if what == "stop":
            late.stop(value.reason, value.resumable, value.who)
        elif what == "cancel":
            late.cancel(value)
        elif isinstance(value, SubscriberFailed):
            found = next((s for s in self._parcelled if s.subscription.name == value.name), None)
            if found is not None:
                self._failed(found.subscription, value.error)
        else:
            late.publish(value)

    def figures(self) -> list[tuple[int, int, float]]:
        """Deliveries, errors and seconds of each, for `take_figures`."""
        return [(s.delivered, s.errors, s.seconds) for s in self._known.values()]

    def take_figures(self, figures: Iterable[tuple[int, int, float]]) -> None:
        """The figures of the copies, to be added to those of earlier copies."""
        for subscriber, before, (delivered, errors, seconds) in zip(
            self._parcelled, self._before, figures, strict=True
        ):
            subscriber.delivered, subscriber.errors = before[0] + delivered, before[1] + errors
            subscriber.seconds = before[2] + seconds

    # --- what replayable handlers keep ---

    def state(self) -> dict[Subscription, Any]:
        """What replayable callbacks keep, so that it can be put back when work is undone."""
        return {s: copy.deepcopy(dict(s.source.state_dict())) for s in self._stateful()}  # type: ignore[attr-defined]

    def kept(self) -> dict[str, Mapping[str, Any]]:
        """The same by name, of all that have a memory: for a checkpoint."""
        states = ((s.name, copy.deepcopy(dict(s.source.state_dict()))) for s in self._stateful())  # type: ignore[attr-defined]
        return {name: state for name, state in states if state}

    def load_state(self, state: Mapping[Subscription, Any]) -> None:
        for subscription in self._stateful():
            if subscription in state:
                subscription.source.load_state_dict(copy.deepcopy(state[subscription]))  # type: ignore[attr-defined]

    def load_kept(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Put back what `kept` gave."""
        for subscription in self._stateful():
            if subscription.name in kept:
                subscription.source.load_state_dict(copy.deepcopy(kept[subscription.name]))  # type: ignore[attr-defined]

    def _stateful(self) -> list[Subscription]:
        subscriptions = [s.subscription for s in self._table.subscribers]
        return [s for s in subscriptions if isinstance(s.source, Callback)]

    def statistics(self, subscription: Subscription) -> SubscriberStats | None:
        """The figures of its inline handlers, None if it has none."""
        found = self._known.get(subscription)
        return None if found is None else found.statistics()


def _unpacked(callbacks: list[tuple[Callback, str]], run_id: str, attempt: int, schedule: str | None) -> Inline:
    """A port in another process."""

    def tell(what: str, value: Any) -> None:
        port.tell((what, value))

    port = Inline(Owner.elsewhere(schedule, tell))
    port.run_id, port.attempt = run_id, attempt
    port.changed([subscription_of(callback, name) for callback, name in callbacks])
    return port
