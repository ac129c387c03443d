"""Our callbacks, in runs of ours, decide what Keras's own decided: on each of the sequences in keras_callbacks.json.gz.

`tests/data/make_keras_callbacks.py` made the file with Keras 3.15.1, and says what is in it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit.callbacks import EarlyStopping, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN
from asyncfit.testing import LoopbackExecutor, Scripted

FILE = Path(__file__).parents[1] / "data" / "keras_callbacks.json.gz"
ERRORS: dict[str | None, type[Exception]] = {"ValueError": af.InvalidInput, "RuntimeError": RuntimeError}
"""What we raise where Keras raises."""


@cache
def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(FILE.read_bytes()))[name]
    assert len(found) >= 300
    return found


class Script(Scripted):
    """Keeps its rate in float32, as optimizers do, and counts its batches; `losses` are those of each batch."""

    def __init__(self, *, losses: list[float] | None = None, **scripts: Any) -> None:
        super().__init__(**{"loss": [0.5]} | scripts)
        self.losses = losses
        self.batches = 0

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        logs = super().train_batch(x, y)
        self.batches += 1
        return logs if self.losses is None else {"loss": self.losses[self.batches - 1]}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, float(np.float32(value)) if name == "learning_rate" else value)


def train(model: Script, *callbacks: af.Callback, epochs: int, batches: int = 1, **how: Any) -> af.History:
    x = np.zeros((batches, 1))
    return af.Trainer(model).fit(
        x, x, batch_size=1, epochs=epochs, callbacks=callbacks, executor=LoopbackExecutor(), lookahead=1, **how
    ).blocking()  # fmt: skip


def monitored(case: dict[str, Any]) -> tuple[Script, dict[str, Any]]:
    """A model whose logs are those of the case, and what `fit` needs for it."""
    monitor, values = case["params"]["monitor"], case["values"]
    how: dict[str, Any] = {"epochs": len(values)}
    model = Script(**{monitor: [0.0 if value is None else value for value in values]})
    if monitor == "val_loss":
        validated = [epoch for epoch, value in enumerate(values, 1) if value is not None]
        if validated:
            how |= {"validation_data": (np.zeros((1, 1)),) * 2, "validation_freq": validated}
    else:
        model = Script(**{monitor: values})
        if monitor.startswith("val_"):
            how["validation_data"] = (np.zeros((1, 1)),) * 2
    return model, how


def differences(name: str, decide: Callable[[dict[str, Any]], tuple[Any, Any]]) -> list[Any]:
    """The cases in which ours and theirs are not the same, number first."""
    found = []
    for number, case in enumerate(cases(name)):
        ours, theirs = decide(case)
        if repr(ours) != repr(theirs):
            found.append((number, case.get("params", case), "ours", ours, "theirs", theirs))
    return found


def raised(case: dict[str, Any], run: Callable[[], object]) -> bool:
    """Whether Keras raised in this case; then so must we."""
    if case["error"] is None:
        run()
        return False
    with pytest.raises(ERRORS[case["error"]]):
        run()
    return True


def test_early_stopping() -> None:
    def decide(case: dict[str, Any]) -> tuple[Any, Any]:
        model, how = monitored(case)
        callback = EarlyStopping(**case["params"])
        if raised(case, lambda: train(model, callback, **how)):
            return model.batches, 0  # Keras finds out after the first epoch, we before it
        restored = None if case["restored"] is None else case["restored"] + 1.0
        left = restored if restored is not None else float(case["ended"])
        ours = (model.batches, float(model.weights[0]), callback.best_epoch, callback.wait, callback.best_model_epoch)
        return ours, (case["ended"], left, case["best_epoch"], case["wait"], case["restored"])

    assert not differences("EarlyStopping", decide)


def test_reduce_on_plateau() -> None:
    def decide(case: dict[str, Any]) -> tuple[Any, Any]:
        model, how = monitored(case)
        model.learning_rate = case["rate"]
        callback = ReduceLROnPlateau(**case["params"])
        used: list[float] = []  # by each epoch; theirs are those that hold after it
        if raised(case, lambda: used.extend(train(model, callback, **how).history["learning_rate"])):
            return model.batches, 0
        ours = ([*used, model.learning_rate], callback.wait, callback.cooldown_counter)
        return ours, ([float(np.float32(case["rate"])), *case["rates"]], case["wait"], case["cooldown"])

    assert not differences("ReduceLROnPlateau", decide)


def schedule(plan: dict[str, Any], *, awaited: bool) -> Callable[..., Any]:
    kinds: dict[str, Callable[[float], Any]] = {
        "float": float, "float32": np.float32, "float64": np.float64, "int": lambda rate: 1, "bool": lambda rate: True,
        "str": str, "None": lambda rate: None, "array": lambda rate: np.array([rate]), "float16": np.float16,
    }  # fmt: skip
    made = kinds[plan["type"]]

    def by_table(epoch: int) -> Any:
        return (made if epoch >= plan["from"] else float)(plan["table"][epoch])

    def by_rate(epoch: int, rate: float) -> Any:
        return (made if epoch >= plan["from"] else float)(rate * plan["times"])

    async def awaited_by_table(epoch: int) -> Any:
        return by_table(epoch)

    async def awaited_by_rate(epoch: int, rate: float) -> Any:
        return by_rate(epoch, rate)

    if awaited:
        return awaited_by_table if "table" in plan else awaited_by_rate
    return by_table if "table" in plan else by_rate


@pytest.mark.parametrize("awaited", [False, True])
def test_scheduler(awaited: bool) -> None:
    def decide(case: dict[str, Any]) -> tuple[Any, Any]:
        model = Script()
        model.learning_rate = case["rate"]
        callback = LearningRateScheduler(schedule(case["plan"], awaited=awaited))
        trainer_history: list[float] = []

        def run() -> None:
            bus = af.EventBus()
            bus.subscribe(af.EpochEnd, lambda event: trainer_history.append(event.logs["learning_rate"]))
            train(model, callback, epochs=case["epochs"], bus=bus)

        raised(case, run)
        return (model.batches, trainer_history), (case["ended"], case["rates"])

    assert not differences("LearningRateScheduler", decide)


def test_terminate_on_nan() -> None:
    def decide(case: dict[str, Any]) -> tuple[Any, Any]:
        losses = case["losses"]
        model = Script(losses=[loss for epoch in losses for loss in epoch])
        callback = TerminateOnNaN(raise_error=case["raise_error"])
        raised(case, lambda: train(model, callback, epochs=len(losses), batches=len(losses[0])))
        # where Keras raises in a hook, the batch is not counted there
        return model.batches, case["steps"] + (case["error"] is not None)

    assert not differences("TerminateOnNaN", decide)
