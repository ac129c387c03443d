"""A model as it was at one moment: `event.model`, and what `run.snapshot()` returns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .jobs import Job
from .protocol import Change, State

if TYPE_CHECKING:
    from .formats.saved_model import SavedModel

__all__ = ["Snapshot", "StateReader"]

Array = np.ndarray[Any, np.dtype[Any]]


class StateReader(Protocol):
    """What makes use of a state: the model that it was taken of. All of it may be called beside training."""

    def predict_from(self, state: State, x: Any, *, batch_size: int) -> Job[Array]: ...
    def evaluate_from(
        self, state: State, x: Any, y: Any, *, batch_size: int, sample_weight: Any, return_dict: bool
    ) -> Job[Any]: ...
    def save_from(self, state: State, path: str | os.PathLike[str]) -> Job[None]: ...
    def weights_from(self, state: State) -> list[Array]: ...
    def named_weights_from(self, state: State) -> dict[str, Array]: ...
    def file_of(self, state: State, change: Change | None) -> SavedModel | None:
        """For a checkpoint: a model that others can read, with the change made, if there is a format for it."""


class Snapshot:
    """One state of a model, immutable, valid as long as somebody holds it.

    Attributes:
        step: batches completed when it was taken.
        epoch: the epoch it was taken in or behind, from 0.
    """

    __slots__ = ("__weakref__", "_model", "_state", "epoch", "step")

    def __init__(self, state: State, step: int, epoch: int, model: StateReader) -> None:
        self._state = state
        self._model = model
        self.step = step
        self.epoch = epoch

    def predict(self, x: Any, *, batch_size: int = 32) -> Job[Array]:
        """The outputs for `x`, `(rows, *output_shape)`, with these weights."""
        return self._model.predict_from(self._state, x, batch_size=batch_size)

    def evaluate(
        self, x: Any, y: Any = None, *, batch_size: int = 32, sample_weight: Any = None, return_dict: bool = False
    ) -> Job[Any]:
        """Loss and metrics on other data, as `model.evaluate` returns them."""
        return self._model.evaluate_from(
            self._state, x, y, batch_size=batch_size, sample_weight=sample_weight, return_dict=return_dict
        )

    def save(self, path: str | os.PathLike[str]) -> Job[None]:
        """Write the model as it was to a file, whole or not at all; `.weights.h5` gets the weights alone."""
        return self._model.save_from(self._state, path)

    def get_weights(self) -> list[Array]:
        """Copies of the weights, in the order of `model.get_weights()`."""
        return self._model.weights_from(self._state)

    def named_weights(self) -> dict[str, Array]:
        """The same by their paths as Keras names them, such as "sequential/dense/kernel".

        Of a model of one's own: the arrays of its state, by their names there.
        """
        return self._model.named_weights_from(self._state)

    def state(self) -> Mapping[str, Any]:
        """All that the next batch would have depended on: read-only arrays, numbers, text."""
        return dict(self._state)

    def _of_same_model(self, state: State, step: int, epoch: int) -> Snapshot:
        """Another state of the model that this one is of, such as one that was kept in a file."""
        return Snapshot(state, step, epoch, self._model)

    def __repr__(self) -> str:
        size = sum(value.nbytes for value in self._state.values() if isinstance(value, np.ndarray))
        return f"<Snapshot at step {self.step}, epoch {self.epoch}, {size:,} bytes>"


class _Elsewhere:
    """What a callback might try on its model, as in Keras."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(self._message)

    def __set__(self, instance: object, value: object) -> None:
        raise AttributeError(self._message)


for _name, _way in {
    "compile": "no run may change how its model is compiled",
    "fit": "await the end of the run, then call model.fit(…) again",
    "optimizer": "event.learning_rate reads the rate, event.set_learning_rate(…) sets it",
    "set_weights": "event.set_weights(snapshot) lets the run go on with the weights of another one",
    "stop_training": "event.stop() stops the run",
}.items():  # not in the class, so that type checkers know nothing of them
    setattr(Snapshot, _name, _Elsewhere(f"a snapshot has no {_name}: {_way}"))
