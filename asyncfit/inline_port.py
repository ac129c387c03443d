"""Inline handlers: plain functions that compute calls in its own thread, at the event, on the live model."""

from __future__ import annotations

import contextvars
import copy
import logging
from collections.abc import Mapping
from typing import Any

from .callback import Callback
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
)
from .mailbox import clock
from .protocol import Decision
from .subscriptions import Filter, Hook, SubscriberStats, Subscription

__all__ = ["Inline", "InlineControl", "check_inline"]

AFTERWARDS = (
    TrainEnd,
    StopRequested,
    LearningRateChanged,
    WeightsRestored,
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


def check_inline(subscription: Subscription) -> None:
    """Refuse inline handlers for events that do not happen in compute: nobody would ever call them."""
    for kind in subscription.kinds:
        hook = subscription.handler_for(kind)
        if hook is not None and hook.mode == "inline" and issubclass(kind, AFTERWARDS):
            raise InvalidInput(
                f"{hook.label}: {kind.__name__} does not happen in compute, so it cannot be handled inline; "
                "subscribe to it without inline"
            )


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
        self._owner = owner
        self._table = _Table([])
        self._known: dict[Subscription, _InlineSubscriber] = {}

    def changed(self, subscriptions: list[Subscription]) -> None:
        """These have inline hooks now."""
        for subscription in subscriptions:
            if subscription not in self._known:
                self._known[subscription] = _InlineSubscriber(subscription)
        self._table = _Table([self._known[s] for s in subscriptions])

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

    def _failed(self, subscription: Subscription, error: Exception) -> None:
        _logger.error("%s failed", subscription.name, exc_info=error)
        self._owner.publish(SubscriberFailed(name=subscription.name, error=error))
        if subscription.how.on_error == "detach":
            table = self._table
            self._table = _Table([s for s in table.subscribers if s.subscription is not subscription])
            self._owner.on_loop(subscription.cancel)

    def state(self) -> dict[Subscription, Any]:
        """What replayable callbacks keep, so that it can be put back when work is undone."""
        return {s: copy.deepcopy(dict(s.source.state_dict())) for s in self._stateful()}  # type: ignore[attr-defined]

    def load_state(self, state: Mapping[Subscription, Any]) -> None:
        for subscription in self._stateful():
            if subscription in state:
                subscription.source.load_state_dict(copy.deepcopy(state[subscription]))  # type: ignore[attr-defined]

    def _stateful(self) -> list[Subscription]:
        subscriptions = [s.subscription for s in self._table.subscribers]
        return [s for s in subscriptions if isinstance(s.source, Callback)]

    def statistics(self, subscription: Subscription) -> SubscriberStats | None:
        """The figures of its inline handlers, None if it has none."""
        found = self._known.get(subscription)
        return None if found is None else found.statistics()
