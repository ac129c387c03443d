"""Callbacks that end a run by what it brings: `EarlyStopping` and `TerminateOnNaN`, deciding as Keras's do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..callback import inline
from ..events import BatchEnd, EpochEnd, TrainBegin, WeightsRestored
from ..front import keywords_checked
from ..nn.naming import number, whole
from ..snapshot import Snapshot
from .base import DECIDES, ShippedCallback, flag
from .monitor import Mode, MonitoringCallback

__all__ = ["EarlyStopping", "TerminateOnNaN"]

BEST = "best_model:"
"""In front of the names of the best model's state, in `state_dict`."""


class EarlyStopping(MonitoringCallback):
    """Stop when a figure of the logs no longer gets better, and put the best epoch's weights back if asked to.

    It decides as Keras's does, at the end of each complete epoch: one that beats the best so far by more than
    `min_delta` is the new best, and, if there is a `baseline` and the figure beats that too, or if there is none, the
    count of epochs in vain begins anew. When the count comes to `patience` the run stops; 0 and 1 mean the same, and
    the very first epoch never stops a run. An epoch without the figure counts for nothing; the first such one is
    logged.

    With `restore_best_weights=True` the model ends with the best epoch's weights whenever the run completes or is
    stopped, by whomever; after a cancellation or an error it stays as it is.

    Args:
        monitor: a key of the logs.
        min_delta: how much better counts as better; its sign does not matter.
        patience: epochs in vain that are one too many.
        verbose: 1 logs when it stops and restores.
        mode: "min" if less is better, "max" if more is, "auto" to go by the monitor.
        baseline: what must be beaten for the patience to begin anew.
        restore_best_weights: whether the model ends with the weights of the best epoch.
        start_from_epoch: epochs before it, counted from 0, are ignored.
        name: what messages call it.

    Attributes:
        wait: epochs in vain so far.
        best, best_epoch: the best figure and its epoch, counted from 0; None before the first.
        stopped_epoch: the epoch, counted from 0, at whose end it stopped the run; None if it did not.
    """

    order = DECIDES
    keeps: ClassVar[Mapping[str, type]] = {
        "wait": int,
        "best": float,
        "best_epoch": int,
        "best_model_step": int,
        "best_model_epoch": int,
    }
    wait: int
    best: float | None
    best_epoch: int | None
    stopped_epoch: int | None
    best_model_step: int | None
    best_model_epoch: int | None

    @keywords_checked
    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: Mode = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta, name=name, verbose=verbose)
        self.patience = whole("EarlyStopping(patience=…)", patience, least=0)
        self.baseline = None if baseline is None else number("EarlyStopping(baseline=…)", baseline)
        self.restore_best_weights = flag("EarlyStopping(restore_best_weights=…)", restore_best_weights)
        self.start_from_epoch = whole("EarlyStopping(start_from_epoch=…)", start_from_epoch, least=0)

    def reset(self) -> None:
        self.wait = 0
        self.best = self.best_epoch = self.stopped_epoch = None
        self.best_model_step = self.best_model_epoch = None
        self._best_model: Snapshot | None = None
        self._best_state: dict[str, Any] = {}  # of a run that this one goes on with, until it is a snapshot again
        self._asked = False  # that run knows of it

    def state_dict(self) -> dict[str, Any]:
        state = self._best_state if self._best_model is None else self._best_model.state()
        return super().state_dict() | {BEST + name: value for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({name: value for name, value in state.items() if not name.startswith(BEST)})
        for name, value in state.items():
            if name.startswith(BEST):
                if isinstance(value, np.ndarray):
                    value = value.copy()
                    value.flags.writeable = False
                self._best_state[name.removeprefix(BEST)] = value

    def on_train_begin(self, event: TrainBegin) -> None:
        super().on_train_begin(event)
        self._asked = event.params.get("resumed") is not None

    def on_epoch_end(self, event: EpochEnd) -> None:
        if self._best_state:
            step, epoch = self.best_model_step or 0, self.best_model_epoch or 0
            self._best_model = event.model._of_same_model(self._best_state, step, epoch)
            self._best_state = {}
            if not self._asked:  # else the checkpoint says it, and others may have asked for something since
                event.restore_at_end(self._best_model)
        if not event.complete:
            return
        value = self.monitored(event.logs, "this epoch decides nothing")
        if value is None or event.epoch < self.start_from_epoch:
            return
        better = self.improves(value, self.best)
        if self.restore_best_weights and (better or self._best_model is None):
            self._best_model = event.model
            self.best_model_step, self.best_model_epoch = event.model.step, event.epoch
            event.restore_at_end(event.model)
        self.wait += 1
        if better:
            self.best, self.best_epoch = value, event.epoch
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and event.epoch > 0:
            self.stopped_epoch = event.epoch
            event.stop(f"{self.monitor} has not improved for {self.wait} epoch{'s' * (self.wait != 1)}")
            best = "none" if self.best_epoch is None else f"{self.best:g}, in epoch {self.best_epoch + 1}"
            self.say("stops after epoch %d, the best %s is %s", event.epoch + 1, self.monitor, best)

    def on_weights_restored(self, event: WeightsRestored) -> None:
        if self.restore_best_weights and event.source_step == self.best_model_step:
            self.say("the weights of epoch %d are back", (self.best_model_epoch or 0) + 1)


class TerminateOnNaN(ShippedCallback):
    """Stop at the very batch whose loss is NaN or infinite.

    It looks at each batch where it is computed, so no further batch is trained.

    Args:
        raise_error: let the run fail with a `RuntimeError` instead, after which the model is as that batch left it.
        name: what messages call it.
    """

    order = DECIDES
    portable = True

    @keywords_checked
    def __init__(self, raise_error: bool = False, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.raise_error = flag("TerminateOnNaN(raise_error=…)", raise_error)

    @inline(replayable=True)
    def on_batch_end(self, event: BatchEnd) -> None:
        loss = event.logs["loss"]
        if math.isfinite(loss):
            return
        message = f"the loss is {loss} in batch {event.batch} of epoch {event.epoch} (both from 0)"
        if self.raise_error:
            raise RuntimeError(message)
        event.stop(message)
