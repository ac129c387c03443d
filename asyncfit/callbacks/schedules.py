"""Callbacks that set the learning rate: `ReduceLROnPlateau` and `LearningRateScheduler`, deciding as Keras's do."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from ..callback import Callback, inline
from ..errors import InvalidInput
from ..events import EpochBegin, EpochEnd
from ..front import keywords_checked
from ..nn.naming import number, whole
from ..subscriptions import is_async
from .base import DECIDES, ShippedCallback
from .monitor import Mode, MonitoringCallback

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau"]

Schedule = Callable[[int], float | Awaitable[float]] | Callable[[int, float], float | Awaitable[float]]


class ReduceLROnPlateau(MonitoringCallback):
    """Lower the learning rate when a figure of the logs no longer gets better.

    It decides as Keras's does, at the end of each complete epoch: after `patience` epochs in vain the rate becomes
    `rate * factor`, but not less than `min_lr`; then, for `cooldown` epochs, none counts as in vain. An epoch without
    the figure counts for nothing; the first such one is logged.

    Args:
        monitor: a key of the logs.
        factor: below 1.
        patience: epochs in vain that are one too many.
        verbose: 1 logs each reduction.
        mode: "min" if less is better, "max" if more is, "auto" to go by the monitor.
        min_delta: how much better counts as better; its sign does not matter.
        cooldown: epochs to wait after a reduction.
        min_lr: the lowest rate.
        name: what messages call it.

    Attributes:
        wait: epochs in vain so far.
        best: the best figure; None before the first.
        cooldown_counter: epochs of the cooldown that are left.
    """

    order = DECIDES
    sets_learning_rate = True
    keeps: ClassVar[Mapping[str, type]] = {"wait": int, "best": float, "cooldown_counter": int}
    wait: int
    best: float | None
    cooldown_counter: int

    @keywords_checked
    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta, name=name, verbose=verbose)
        self.factor = number("ReduceLROnPlateau(factor=…)", factor, least=0, below=1)
        self.patience = whole("ReduceLROnPlateau(patience=…)", patience, least=0)
        self.cooldown = whole("ReduceLROnPlateau(cooldown=…)", cooldown, least=0)
        self.min_lr = number("ReduceLROnPlateau(min_lr=…)", min_lr, least=0)

    def reset(self) -> None:
        self.wait = self.cooldown_counter = 0
        self.best = None

    def on_epoch_end(self, event: EpochEnd) -> None:
        if not event.complete:
            return
        value = self.monitored(event.logs, "the learning rate stays")
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            rate = event.learning_rate
            if self.wait >= self.patience and np.float32(rate) > np.float32(self.min_lr):
                lower = max(rate * self.factor, self.min_lr)
                event.set_learning_rate(lower)
                self.cooldown_counter, self.wait = self.cooldown, 0
                self.say("after epoch %d the learning rate is %g instead of %g", event.epoch + 1, lower, rate)


class LearningRateScheduler(ShippedCallback):
    """Set the learning rate at the beginning of each epoch to what a function says.

    A plain function is called in the worker, just before the epoch's first batch, so that compute need not wait for
    anybody; after a decision that undid work it may be asked for the same epoch again. An `async def` one is awaited,
    and the first batch waits for it.

    Args:
        schedule: `schedule(epoch)` or `schedule(epoch, rate)`, the epoch from 0, the rate that holds now. It returns a
            float, of Python or NumPy (32 or 64 bits).
        verbose: 1 logs, after each epoch, the rate that it had.
        name: what messages call it.

    Raises:
        TypeError: `schedule` cannot be called so.
    """

    order = DECIDES
    gates: Literal["epoch", "batch", "none"] = "none"  # the rate is set in compute, and the end of an epoch only told
    portable = True
    sets_learning_rate = True

    @keywords_checked
    def __init__(self, schedule: Schedule, verbose: int = 0, *, name: str | None = None) -> None:
        super().__init__(name=name, verbose=verbose)
        self._takes_rate = _takes_rate(schedule)
        self.schedule: Callable[..., Any] = schedule
        if is_async(schedule):
            self.gates = "epoch"
            self.on_epoch_begin = self._awaited  # type: ignore[method-assign]  # a gate in place of the inline hook
        if not self.verbose and type(self).on_epoch_end is LearningRateScheduler.on_epoch_end:
            self.on_epoch_end = types.MethodType(Callback.on_epoch_end, self)  # type: ignore[method-assign]

    @inline(replayable=True)
    def on_epoch_begin(self, event: EpochBegin) -> Awaitable[None] | None:
        self._set(event, self._asked(event))
        return None

    async def _awaited(self, event: EpochBegin) -> None:
        self._set(event, await self._asked(event))

    def _asked(self, event: EpochBegin) -> Any:
        return self.schedule(event.epoch, event.learning_rate) if self._takes_rate else self.schedule(event.epoch)

    def _set(self, event: EpochBegin, rate: object) -> None:
        if not isinstance(rate, float | np.float32 | np.float64):
            if inspect.iscoroutine(rate):
                rate.close()
            raise InvalidInput(
                f"{self.label}: schedule({event.epoch}{', rate' * self._takes_rate}) must return a float, "
                f"such as 0.01, not {rate!r}"
            )
        event.set_learning_rate(float(rate))

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Tell of the rate: not when it is set, which may be ahead, for an epoch that a stop prevents."""
        self.say("in epoch %d the learning rate was %g", event.epoch + 1, event.logs["learning_rate"])


def _takes_rate(schedule: object) -> bool:
    """Whether a schedule is called with the epoch and the rate, as against the epoch alone."""
    if not callable(schedule):
        raise TypeError(f"LearningRateScheduler takes a function of the epoch, and perhaps the rate, not {schedule!r}")
    try:
        signature = inspect.signature(schedule)
    except ValueError:  # some builtins have none
        return False
    for values in ((0, 0.1), (0,)):
        try:
            signature.bind(*values)
        except TypeError:
            continue
        return len(values) == 2
    raise TypeError(
        f"LearningRateScheduler calls schedule(epoch) or schedule(epoch, rate); {schedule!r} takes {signature}"
    )
