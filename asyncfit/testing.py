"""For tests of programs that train: a model with a script, an executor without a thread, a check for your own model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .executors.loopback import LoopbackExecutor
from .pool import copy_state
from .protocol import State, Trainable

__all__ = ["LoopbackExecutor", "Scripted", "check_trainable"]


class Scripted:
    """A Trainable that learns nothing: its loss and metrics are those of a script, epoch by epoch.

    `Trainer(Scripted(loss=[3, 2, 1], val_loss=[3, 4, 5])).fit(x, y, epochs=3)` lets you test what your callbacks do at
    a loss that rises, a NaN, a plateau. After its end a script stays at its last value. Where a metric's script says
    None, the metric is missing in that epoch.

    Args:
        loss: of each epoch.
        val_loss: of each epoch's validation; the same as `loss` if left out.
        metrics: more of them, by name; those of the validation begin with `val_`.
    """

    def __init__(
        self, loss: Sequence[float], val_loss: Sequence[float] | None = None, **metrics: Sequence[float | None]
    ) -> None:
        scripts = {"loss": loss, **metrics} | ({} if val_loss is None else {"val_loss": val_loss})
        for name, values in scripts.items():
            if not len(values):
                raise ValueError(f"{name}=[] is empty; give at least one value")
            if name in ("loss", "val_loss") and None in values:
                raise ValueError(f"{name}={values!r}: a model always has a loss; None is for metrics")
        self._train = {name: list(values) for name, values in scripts.items() if not name.startswith("val_")}
        self._test = {name[4:]: list(values) for name, values in scripts.items() if name.startswith("val_")}
        if self._test:
            self._test.setdefault("loss", self._train["loss"])
        self.learning_rate = 0.01
        self.weights = np.zeros(1)
        self.epoch = 0

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self.weights += 1
        return _at(self._train, self.epoch)

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return _at(self._test or self._train, max(0, self.epoch - 1))

    def end_epoch(self) -> Mapping[str, float]:
        self.epoch += 1
        return {}

    def state(self) -> State:
        return {"weights": self.weights, "epoch": self.epoch, "learning_rate": self.learning_rate}

    def load_state(self, state: State) -> None:
        self.weights[:] = state["weights"]
        self.epoch, self.learning_rate = state["epoch"], state["learning_rate"]

    def clone(self) -> Scripted:
        twin = Scripted([0.0])
        twin._train, twin._test = self._train, self._test
        twin.load_state(self.state())
        return twin

    def predict(self, x: Any) -> Any:
        """The number of batches trained, for each row."""
        return np.full(len(x), self.weights[0])


def _at(script: Mapping[str, Sequence[float | None]], epoch: int) -> dict[str, float]:
    now = {name: values[min(epoch, len(values) - 1)] for name, values in script.items()}
    return {name: float(value) for name, value in now.items() if value is not None}


def check_trainable(trainable: Trainable, batches: Iterable[Sequence[Any]]) -> None:
    """Prove by replay that `state()` holds all that the next batch depends on, to the bit.

    The batches are trained on, the first state is put back, and they are trained on again: the numbers and the states
    must be the same. It trains the model; afterwards the first state is put back.

    Args:
        batches: tuples `(x, y)` or `(x, y, sample_weight)`.

    Raises:
        AssertionError: what is missing, and where it showed.
    """
    data = [tuple(batch) for batch in batches]
    assert data, "check_trainable needs at least one batch"
    for name, value in trainable.state().items():
        plain = isinstance(value, np.ndarray | np.generic | int | float | str)
        assert plain, f"state()[{name!r}] is a {type(value).__name__}; a state holds arrays, numbers and text"
    first, rate = copy_state(trainable.state()), trainable.learning_rate

    def replay(what: str) -> tuple[list[dict[str, float]], dict[str, Any]]:
        logs = []
        for number, batch in enumerate(data):
            rows = [np.asarray(part).tobytes() for part in batch]
            logs.append(_numbers(trainable.train_batch(*batch)))
            assert "loss" in logs[-1], f"{what}: train_batch must return at least a 'loss'"
            assert rows == [np.asarray(part).tobytes() for part in batch], (
                f"train_batch changed the rows of batch {number}: they are the user's own; work on a copy"
            )
        return logs, copy_state(trainable.state())

    once, after_once = replay("first pass")
    given = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in first.items()}
    trainable.load_state(given)
    _assert_same(trainable.state(), first, "state() after load_state(s) is not s")
    assert trainable.learning_rate == rate, "load_state must put the learning rate back: it is part of the state"
    twice, after_twice = replay("second pass")
    _assert_same(given, first, "load_state kept the arrays it was given and trained on them: it must copy")
    for number, (one, two) in enumerate(zip(once, twice, strict=True)):
        assert repr(one) == repr(two), (
            f"batch {number}, trained again from the same state, gave {two} instead of {one}: state() lacks something"
        )
    _assert_same(after_twice, after_once, "the same batches from the same state led to another state")
    trainable.load_state(after_once)
    test, again = (_numbers(trainable.test_batch(*data[0])) for _ in range(2))
    assert repr(test) == repr(again), f"test_batch twice on the same state gave {test} and {again}"
    _assert_same(trainable.state(), after_once, "test_batch changed the state")
    trainable.load_state(first)


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(logs[name]) for name in sorted(logs)}


def _assert_same(one: State, other: State, message: str) -> None:
    names = sorted(set(one) ^ set(other))
    assert not names, f"{message}; it differs in {', '.join(names)}"
    for name, value in one.items():
        a, b = np.asarray(value), np.asarray(other[name])
        equal = a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        assert equal, f"{message}; it differs in {name!r}"
