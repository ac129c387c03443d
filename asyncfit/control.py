"""What stands behind `event.stop()`, `event.set_learning_rate()` and the like, for each way of getting an event."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, SupportsFloat

from .errors import GateReleased, InvalidInput
from .events import CheckpointFailed, CheckpointSaved, Event
from .mailbox import Mailbox, handling
from .protocol import Decision, Interest, StopAsked, Update
from .snapshot import Snapshot

__all__ = ["GateControl", "LateControl", "Owner", "checked_event", "checked_rate", "checked_reason", "named"]


LARGEST = 3.4e38
"""Beyond it a rate is infinite as soon as a network stores it in float32."""


def checked_rate(value: object) -> float:
    """A learning rate as a float.

    Raises:
        InvalidInput: it is no finite number of at least 0.
    """
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if isinstance(value, bool | str | bytes) or not 0 <= rate <= LARGEST:
        raise InvalidInput(f"a learning rate is a finite number of at least 0 and at most {LARGEST:.1e}, not {value!r}")
    return rate


ANYBODYS = (CheckpointSaved, CheckpointFailed)
"""Events of asyncfit's own that anybody may publish: anybody may write files."""


def checked_event(what: str, event: object) -> Event:
    """What a user may publish in a run: an event of a class of their own, or one of `ANYBODYS`."""
    if not isinstance(event, Event):
        raise TypeError(f"{what} takes an event, not {event!r}")
    if type(event).__module__ == Event.__module__ and not isinstance(event, ANYBODYS):
        raise TypeError(f"{event.type} is published by the run itself; subclass af.Event for events of your own")
    return event


def checked_reason(reason: object) -> str:
    """A reason, which must be text."""
    if not isinstance(reason, str):
        raise TypeError(f"a reason is text, not {reason!r}")
    return reason


def _checked_logs(logs: Mapping[str, object]) -> dict[str, float]:
    checked: dict[str, float] = {}
    for name, value in logs.items():
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            checked[name] = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise InvalidInput(f"add_logs({name}=…) takes numbers, not {value!r}") from None
    return checked


class LateControl:
    """For those who hold no gate: a stop is a request from outside, and nothing else is possible."""

    def __init__(
        self,
        stop: Callable[[StopAsked], None],
        cancel: Callable[[str], object],
        publish: Callable[[Event], None],
        start_soon: Callable[[Callable[..., Awaitable[object]], tuple[Any, ...], Mailbox | None, bool], None],
    ) -> None:
        self._stop, self._cancel, self._publish, self._start_soon = stop, cancel, publish, start_soon

    def stop(self, reason: str, resumable: bool, who: str = "run") -> None:
        mailbox = handling.get()
        who = who if mailbox is None else mailbox.name
        self._stop(StopAsked(who, checked_reason(reason), bool(resumable)))

    def cancel(self, reason: str) -> None:
        self._cancel(checked_reason(reason))

    def publish(self, event: Event) -> None:
        self._publish(event)

    def start_soon(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], wait: bool) -> None:
        self._start_soon(function, args, handling.get(), wait)

    def _refuse(self, what: str) -> GateReleased:
        return GateReleased(
            f"{what} must be asked for while a gate holds the event: subscribe with gate=True (a Callback's epoch, "
            "validation and train hooks are gates), and ask before the handler returns"
        )

    def learning_rate(self) -> float:
        raise self._refuse("learning_rate")

    def set_learning_rate(self, value: float) -> None:
        raise self._refuse("set_learning_rate()")

    def set_weights(self, snapshot: object) -> None:
        raise self._refuse("set_weights()")

    def restore_at_end(self, snapshot: object, default: bool) -> None:
        raise self._refuse("restore_at_end()")

    def show_model(self, snapshot: object) -> None:
        raise self._refuse("show_model()")

    def add_logs(self, logs: Mapping[str, SupportsFloat]) -> None:
        raise self._refuse("add_logs()")


class GateControl:
    """For one handler that holds one event: gathers what it asks for, until it is released.

    Attributes:
        decision: what was asked for so far.
    """

    __slots__ = ("_late", "_model", "_name", "_rate", "_schedule", "decision", "released")

    def __init__(
        self, name: str, late: LateControl, model: object, schedule: str | None, rate: Callable[[], float]
    ) -> None:
        self.decision = Decision()
        self.released = False
        self._name = name
        self._late = late
        self._model = model
        self._schedule = schedule
        self._rate = rate

    def stop(self, reason: str, resumable: bool) -> None:
        if self.released:
            self._late.stop(reason, resumable, self._name)
        else:
            self.decision.stops.append(StopAsked(self._name, checked_reason(reason), bool(resumable)))

    def cancel(self, reason: str) -> None:
        self._late.cancel(reason)

    def learning_rate(self) -> float:
        if self.released:
            return self._late.learning_rate()
        asked = self.decision.rate
        return self._rate() if asked is None else float(asked.value)

    def set_learning_rate(self, value: float) -> None:
        rate = checked_rate(value)
        if self._schedule is not None:
            raise InvalidInput(self._schedule)
        if self.released:
            self._late.set_learning_rate(value)
        self.decision.rate = Update(self._name, rate)

    def set_weights(self, snapshot: object) -> None:
        state = self._state_of(snapshot, "set_weights")
        if self.released:
            self._late.set_weights(snapshot)
        self.decision.weights = state

    def restore_at_end(self, snapshot: object, default: bool) -> None:
        state = self._state_of(snapshot, "restore_at_end")
        if self.released:
            self._late.restore_at_end(snapshot, default)
        if default:
            self.decision.fallback = state
        else:
            self.decision.restore = state

    def show_model(self, snapshot: object) -> None:
        self._state_of(snapshot, "show_model")
        if self.released:
            self._late.show_model(snapshot)
        self.decision.view = snapshot

    def add_logs(self, logs: Mapping[str, SupportsFloat]) -> None:
        checked = _checked_logs(logs)
        if self.released:
            self._late.add_logs(logs)
        self.decision.logs.update(checked)

    def publish(self, event: Event) -> None:
        self._late.publish(event)

    def start_soon(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], wait: bool) -> None:
        self._late.start_soon(function, args, wait)

    def _state_of(self, snapshot: Any, what: str) -> Update:
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"{what}() takes a snapshot, such as an event.model of this run, not {snapshot!r}")
        if snapshot._model is not self._model:
            raise InvalidInput(f"{what}() takes a snapshot of the model that is trained, not one of another model")
        return Update(self._name, snapshot._state, snapshot.step)


@dataclass
class Owner:
    """What the run lets its delivery do."""

    answered: Callable[[Event, Decision, BaseException | None], None]
    failed: Callable[[BaseException], None]
    also_failed: Callable[[BaseException], None]
    publish: Callable[[Event], None]
    on_loop: Callable[[Callable[[], object]], None]
    crashed: Callable[[BaseException], None]
    interrupted: Callable[[], None]
    throttle: Callable[[bool], None]
    listen: Callable[[Interest], None]
    late: LateControl
    model: Any = None
    schedule: str | None = None
    rate: Callable[[Update | None], float] = lambda asked: 0.0
    """The rate that holds at the boundary which is open, if gates of a lower order have asked for this one."""

    @classmethod
    def elsewhere(cls, schedule: str | None, tell: Callable[[str, Any], None]) -> Self:
        """Of inline handlers in another process: there is neither loop nor ledger, but `tell` brings word to both."""

        def nowhere(*_: object) -> None:
            pass

        def no_task(*_: object) -> None:
            raise RuntimeError("start_soon() needs the run's loop, and this handler runs in a process without one")

        late = LateControl(
            stop=lambda asked: tell("stop", asked),
            cancel=lambda reason: tell("cancel", reason),
            publish=lambda event: tell("publish", event),
            start_soon=no_task,
        )
        return cls(
            answered=nowhere, failed=nowhere, also_failed=nowhere, publish=late.publish, on_loop=nowhere,
            crashed=nowhere, interrupted=nowhere, throttle=nowhere, listen=nowhere, late=late, schedule=schedule,
        )  # fmt: skip


def named(event: Event) -> str:
    """What messages call an event: `EpochEnd(epoch 3) of run 1f0c`."""
    numbers = [f"{name} {getattr(event, name)}" for name in ("epoch", "step") if hasattr(event, name)]
    return f"{event.type}({', '.join(numbers)}) of run {event.run_id}"
