"""`SwapEMAWeights`: a moving average of the weights beside those that are trained."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..callback import inline
from ..errors import InvalidInput
from ..events import BatchEnd, EpochBegin, EpochEnd, TrainBegin, TrainEnd
from ..front import keywords_checked
from ..nn.naming import number
from ..reading import Reader
from ..snapshot import Snapshot
from .base import StatefulCallback
from .files import off_loop

__all__ = ["SwapEMAWeights"]

Array = npt.NDArray[Any]
OPTIMIZERS = "optimizer/average"
"""Where a state has the average that an optimizer keeps."""


class SwapEMAWeights(StatefulCallback):
    """Average the weights over the batches, and leave the model with the average when training ends.

    After each batch `average = momentum * average + (1 - momentum) * weights`; after the first batch of a run it is
    the weights. It is what Keras's optimizers do with `use_ema=True`. The weights that are trained are never touched:
    nothing is swapped in and out, and the run's trajectory is that without this callback. Weights that are not trained
    stay as they are.

    An optimizer with `use_ema=True` averages by itself: then its average is taken, made with its `ema_momentum`.

    At the end of the run the model gets the average, unless another callback asks for other weights, such as
    `EarlyStopping(restore_best_weights=True)`. `averaged` is a snapshot of the model with the average as of the newest
    epoch's end, to predict, evaluate and save.

    Its cost is a pass over the weights for each batch, in the thread that trains, and a copy of them for each epoch.
    The average follows training inside the worker, which cannot send it from a process of its own: this is for
    `executor="thread"`.

    Args:
        swap_on_epoch: at the end of each epoch let the callbacks behind it see the average as `event.model`:
            `ModelCheckpoint` saves it, `EarlyStopping` restores it.
        momentum: how much of the average stays at each batch, from 0 to 1.
        validation_data: `(x, y)` or `(x, y, sample_weight)`: the average is evaluated on it at the end of each epoch,
            and the `val_` figures of the logs are those of the average. (Without it they are the trained weights'.)
        name: what statistics and messages call it.

    Attributes:
        averaged: the snapshot; None before the first epoch has ended.

    Raises:
        InvalidInput: an argument cannot be used; when the run begins, if the model is not one of layers.
    """

    order = -100
    """Before all others, so that they find the average."""
    keeps: ClassVar[Mapping[str, type]] = {"average": np.ndarray, "step": int}
    average: Array | None
    step: int | None

    @keywords_checked
    def __init__(
        self, swap_on_epoch: bool = False, *, momentum: float = 0.99, validation_data: Any = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(swap_on_epoch, bool):
            raise InvalidInput(
                f"SwapEMAWeights(swap_on_epoch=…) is True or False, not {swap_on_epoch!r}; "
                "momentum= is how much of the average stays"
            )
        self.swap_on_epoch = swap_on_epoch
        self.momentum = number("SwapEMAWeights(momentum=…)", momentum, least=0.0)
        if self.momentum > 1:
            raise InvalidInput(f"SwapEMAWeights(momentum=…) is from 0 to 1, not {momentum!r}")
        if validation_data is not None and not (isinstance(validation_data, tuple) and len(validation_data) in (2, 3)):
            raise InvalidInput("SwapEMAWeights(validation_data=…) is (x, y) or (x, y, sample_weight)")
        self.validation_data = validation_data
        self.averaged: Snapshot | None = None
        self._lock = threading.Lock()  # the average is made in compute and read elsewhere
        self._running = self._given = False
        self._at: dict[int, Array] = {}
        self._part: Array = np.empty(0)
        super().__init__(name=name)

    def reset(self) -> None:
        """Forget the average."""
        self.average, self.step = None, None
        self._at = {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            at = self._at
            super().load_state_dict(state)
            if self._running:  # work was undone: this is no state for the next run
                self._loaded = False
                self._at = {step: average for step, average in at.items() if step <= (self.step or 0)}

    def on_train_begin(self, event: TrainBegin) -> None:
        super().on_train_begin(event)
        if not isinstance(event.model._model, Reader):
            raise InvalidInput(
                f"{self.label} is for models of layers: {event.params.get('trainable')} has a state, of which nobody "
                "knows what weights are"
            )
        self._running, self.averaged = True, None
        self.step, self._at = None, {}  # each run counts its own batches
        self._given = OPTIMIZERS in event.model._state

    @inline(replayable=True)
    def on_batch_end(self, event: BatchEnd) -> None:
        if self._given:
            return
        weights: Array = event.model.network.params  # type: ignore[attr-defined]  # inline: the live model
        with self._lock:
            if self.average is None or self.average.shape != weights.shape:
                self.average = weights.copy()
            else:
                if self._part.shape != weights.shape or self._part.dtype != weights.dtype:
                    self._part = np.empty_like(weights)
                momentum = weights.dtype.type(self.momentum)
                np.multiply(weights, weights.dtype.type(1) - momentum, out=self._part)
                self.average *= momentum
                self.average += self._part
            self.step = event.step + 1

    @inline(replayable=True)
    def on_epoch_begin(self, event: EpochBegin) -> None:
        """Keep what the end of the epoch before has to show: compute works ahead."""
        with self._lock:
            if self.average is not None and self.step is not None:
                self._at[self.step] = self.average.copy()

    def _as_of(self, model: Snapshot) -> Array | None:
        """The average as it was at the end of an epoch, of which this is the model; in a thread."""
        if self._given:
            return np.array(model._state[OPTIMIZERS])
        step = model.step
        with self._lock:
            found = self._at.get(step)
            if found is None and self.step == step and self.average is not None:
                found = self.average.copy()
            self._at = {later: average for later, average in self._at.items() if later > step}
        return found

    async def on_epoch_end(self, event: EpochEnd) -> None:
        average = await off_loop(self._as_of, event.model)
        if average is None:  # no batch yet
            return
        average.flags.writeable = False
        model = event.model
        self.averaged = averaged = model._of_same_model({**model._state, "params": average}, model.step, model.epoch)
        event.restore_at_end(averaged, default=True)
        if self.swap_on_epoch:
            event.show_model(averaged)
        if self.validation_data is not None and event.complete:
            x, y, *weight = self.validation_data
            weights = {"sample_weight": weight[0]} if weight else {}
            figures = await averaged.evaluate(x, y, return_dict=True, **weights)
            event.add_logs(**{f"val_{figure}": value for figure, value in figures.items()})

    def on_train_end(self, event: TrainEnd) -> None:
        self._running = False
