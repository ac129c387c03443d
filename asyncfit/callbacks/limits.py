"""Callbacks that end a run from outside, to be continued: `TimeLimit` and `StopOnSignal`."""

from __future__ import annotations

import contextvars
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio

from ..errors import InvalidInput
from ..events import TrainBegin
from ..front import keywords_checked
from ..nn.naming import number
from .base import DECIDES, ShippedCallback

__all__ = ["StopOnSignal", "TimeLimit"]


class TimeLimit(ShippedCallback):
    """Stop the run, to be continued, when its time is up: before compute's next batch, `resumable=True`.

    The clock starts at `TrainBegin` and does not stop for anything: a validation, a gate that takes its time, a pause.
    A run that goes on after a stop has the whole time again.

    Args:
        seconds: that the run may take.
        name: what messages call it.
    """

    order = DECIDES
    gates = "none"

    @keywords_checked
    def __init__(self, seconds: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.seconds = number("TimeLimit(seconds=…)", seconds)
        if self.seconds <= 0:
            raise InvalidInput(f"TimeLimit(seconds=…) must be more than 0, not {seconds!r}")

    def on_train_begin(self, event: TrainBegin) -> None:
        event.start_soon(self._expire, event, wait=False)

    async def _expire(self, event: TrainBegin) -> None:
        await anyio.sleep(self.seconds)
        event.stop(f"the time limit of {self.seconds:g} s is reached", resumable=True)


class StopOnSignal(ShippedCallback):
    """Stop the run, to be continued, when the process gets a signal; cancel it at the second one.

    From `TrainBegin` to the end of the run the signals go to the runs that have such a callback, to all of them if
    there are several. A third one goes where it went before. In the end the handlers that were there are put back.

    The run must be in the main thread, the only one in which Python handles signals.

    Args:
        signals: such as `signal.SIGUSR1`; SIGINT and SIGTERM if none is given.
        name: what messages call it.
    """

    order = DECIDES

    @keywords_checked
    def __init__(self, *signals: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.signals = tuple(dict.fromkeys(map(_checked, signals))) or (signal.SIGINT, signal.SIGTERM)

    async def on_train_begin(self, event: TrainBegin) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                f"{self.label}: Python handles signals in the main thread only, and this run is in thread "
                f"{threading.current_thread().name!r}; let the main thread call run.stop(…), or run the loop there"
            )
        ready = anyio.Event()
        event.start_soon(self._watch, event, ready, wait=False)
        await ready.wait()

    async def _watch(self, event: TrainBegin, ready: anyio.Event) -> None:
        """Get the signals until the run's tasks are cancelled, which is the last that happens to them."""
        watch = _Watch(event)
        try:
            for number in self.signals:
                _watches.add(number, watch)
            ready.set()
            await anyio.sleep_forever()
        finally:
            for number in self.signals:
                _watches.remove(number, watch)


def _checked(given: object) -> signal.Signals:
    try:
        found = signal.Signals(given)  # type: ignore[arg-type]
        if isinstance(given, bool) or found in (getattr(signal, "SIGKILL", None), getattr(signal, "SIGSTOP", None)):
            raise ValueError
    except ValueError:
        raise InvalidInput(
            f"StopOnSignal takes signals that can be handled, such as signal.SIGTERM, not {given!r}"
        ) from None
    return found


class _Watch:
    """One run that the signals go to."""

    def __init__(self, event: TrainBegin) -> None:
        self._event = event
        self._context = contextvars.copy_context()  # in which the request is the callback's own
        self._count = 0

    def tell(self, number: signal.Signals) -> bool:
        """Let the run know; False if it has heard all that it can make use of. It happens amid any line of code."""
        self._count += 1
        if self._count == 1:
            self._context.copy().run(self._event.stop, f"{number.name} was received", resumable=True)
        elif self._count == 2:
            self._context.copy().run(self._event.cancel, f"{number.name} was received")
        return self._count <= 2


class _Watches:
    """All runs in this process that signals go to; one handler of ours for each signal. Main thread only."""

    def __init__(self) -> None:
        self._watches: dict[int, tuple[_Watch, ...]] = {}
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def add(self, number: int, watch: _Watch) -> None:
        present = self._watches.get(number, ())
        self._watches[number] = (*present, watch)
        if signal.getsignal(number) is not _handle:
            self._before[number] = signal.signal(number, _handle)

    def remove(self, number: int, watch: _Watch) -> None:
        left = self._watches[number] = tuple(w for w in self._watches.get(number, ()) if w is not watch)
        if not left and signal.getsignal(number) is _handle:  # else somebody put a handler over ours, who knows why
            before = self._before.pop(number)
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def handle(self, number: int, frame: FrameType | None) -> None:
        told = [watch.tell(signal.Signals(number)) for watch in self._watches.get(number, ())]
        if any(told):
            return
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        elif before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_watches = _Watches()
_handle = _watches.handle
