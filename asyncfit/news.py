"""The layer and model callbacks: `LayerCreated` and `ModelCompiled`, kept by a model for all who come to know it.

Both belong to no run, and often happen before anybody can listen. So a model keeps them, and each callback gets each of
them once, in order: plain hooks as soon as the model knows the callback, async ones (and those with `thread=True`)
before the `TrainBegin` of its first run. A bus that a run is given is told in the same way.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread

from .bus import EventBus
from .callback import Callback, subscription_of
from .errors import SubscriberTimeout
from .events import Event, ModelCompiled
from .subscriptions import Hook, Subscription

__all__ = ["News"]

_logger = logging.getLogger("asyncfit")


class _Party:
    """What one callback, or bus, was told: all up to number `told`, and what `waiting` has for it can be awaited."""

    def __init__(self, whose: object, forget: Callable[[], None]) -> None:
        self.told = -1
        self.waiting: list[tuple[Hook, Event, Awaitable[Any] | None]] = []
        self.detached = False
        self.ref: Any
        try:
            self.ref = weakref.ref(whose, lambda _: forget())
        except TypeError:  # a class with __slots__: then it stays known
            self.ref = lambda: whose


class News:
    """What happened to one model outside of runs, and who has heard of it."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Event]] = []
        self._number = 0
        self._parties: dict[int, _Party] = {}

    def happened(self, event: Event, callbacks: Iterable[Callback] = ()) -> None:
        """Keep `event` (of compilations the newest only), and tell those who are known already."""
        if isinstance(event, ModelCompiled):
            self._kept = [(n, kept) for n, kept in self._kept if not isinstance(kept, ModelCompiled)]
        self._kept.append((self._number, event))
        self._number += 1
        self.introduce(callbacks)

    def introduce(self, callbacks: Iterable[Callback]) -> list[Callback]:
        """Call the plain hooks for what they have not heard of; what `on_error="detach"` has taken out is left out."""
        return [callback for callback in callbacks if self._tell(subscription_of(callback))]

    def _tell(self, subscription: Subscription) -> bool:
        party = self._party(subscription.source)
        for number, event in list(self._kept):
            hook = subscription.handler_for(event.__class__)
            if number <= party.told or party.detached:
                continue
            party.told = number
            if hook is None:
                continue
            if hook.is_async or hook.thread:
                party.waiting.append((hook, event, None))
                continue
            try:
                answer = hook.call(event)
            except Exception as error:
                self._failed(party, subscription, hook, event, error)
                continue
            if inspect.isawaitable(answer):
                party.waiting.append((hook, event, answer))
        return not party.detached

    async def catch_up(self, subscription: Subscription) -> None:
        """Tell a callback all that it has not heard of; before its run publishes anything."""
        self._tell(subscription)
        party = self._party(subscription.source)
        while party.waiting and not party.detached:
            hook, event, answer = party.waiting.pop(0)
            try:
                if answer is not None:
                    await answer
                elif hook.thread:
                    await anyio.to_thread.run_sync(hook.call, event)
                else:
                    await _within(subscription, hook, event)
            except Exception as error:
                self._failed(party, subscription, hook, event, error)

    async def publish_on(self, bus: EventBus) -> None:
        """Publish on a bus what it has not heard of."""
        party = self._party(bus)
        for number, event in list(self._kept):
            if number > party.told:
                party.told = number
                await bus.publish(event)

    def _failed(self, party: _Party, subscription: Subscription, hook: Hook, event: Event, error: Exception) -> None:
        how = subscription.how
        if how.on_error == "raise":
            error.add_note(f"in {hook.label}, at {event.type}")
            raise error
        _logger.error("%s failed at %s", hook.label, event.type, exc_info=error)
        if how.on_error == "detach":
            party.detached = True
            party.waiting.clear()
            subscription.cancel()

    def _party(self, whose: object) -> _Party:
        key = id(whose)
        party = self._parties.get(key)
        if party is None or party.ref() is not whose:
            party = self._parties[key] = _Party(whose, lambda: self._forget(key))
        return party

    def _forget(self, key: int) -> None:
        party = self._parties.get(key)
        if party is not None and party.ref() is None:  # else another has the number by now
            del self._parties[key]


async def _within(subscription: Subscription, hook: Hook, event: Event) -> None:
    seconds = subscription.how.timeout
    if seconds is None:
        await hook.call(event)
        return
    with anyio.move_on_after(seconds) as scope:
        await hook.call(event)
    if scope.cancelled_caught:
        raise SubscriberTimeout(subscription.name, seconds, f"{hook.label}, at {event.type}")
