"""Which way is better, what is missing, and that a callback starts afresh."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers, metrics
from asyncfit.callbacks.monitor import MonitoringCallback
from asyncfit.testing import Scripted
from tests.run.helpers import X, Y


class Follows(MonitoringCallback):
    """Counts improvements."""

    keeps: ClassVar[Mapping[str, type]] = {"best": float, "count": int}
    best: float | None
    count: int

    def __init__(self, monitor: str = "val_loss", mode: Any = "auto", **how: Any) -> None:
        super().__init__(monitor, mode, **how)

    def reset(self) -> None:
        self.best, self.count = None, 0

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        value = self.monitored(event.logs, "nothing is counted")
        if value is not None and self.improves(value, self.best):
            self.best = value
            self.count += 1
            self.say("%d improvements", self.count)


def fit(callback: af.Callback, model: Any = None, validation_data: Any = (X, Y)) -> None:
    model = model or Scripted(loss=[3, 2, 2.5, 1], val_loss=[1, 2, 3, 4], accuracy=[0.1, 0.2, 0.1, 0.3])
    trainer = af.Trainer(model)
    trainer.fit(X, Y, epochs=4, batch_size=2, validation_data=validation_data, callbacks=callback).blocking()


def network(*given: Any) -> af.Sequential:
    model = af.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=list(given))
    return model


@pytest.mark.parametrize(("monitor", "count"), [("loss", 3), ("val_loss", 1), ("accuracy", 3), ("val_accuracy", 1)])
def test_the_name_tells(monitor: str, count: int) -> None:
    callback = Follows(monitor)
    assert callback.direction == ("min" if "loss" in monitor else "max")
    model = Scripted(loss=[3, 2, 2.5, 1], val_loss=[1, 2, 3, 4], accuracy=[0.1, 0.2, 0.1, 0.3], val_accuracy=[1])
    fit(callback, model)
    assert callback.count == count


def test_mode_tells() -> None:
    up = Follows("loss", "max")
    fit(up)
    assert up.count == 1
    assert up.best == 3


def test_a_direction_that_nobody_can_tell_is_refused_when_the_run_begins() -> None:
    model = Scripted(loss=[1], f1=[0.5])
    with pytest.raises(af.InvalidInput, match=r'Follows cannot tell .*monitor="val_f1" .*mode="min" or mode="max"'):
        fit(Follows("val_f1"), model)
    assert model.weights == 0, "before any batch"
    fit(Follows("val_f1", "max"), model)


def test_the_metrics_of_a_model_tell() -> None:
    model = network(metrics.MeanSquaredError(name="accuracy"), metrics.BinaryAccuracy(name="hits"), "mae", "mae")
    for monitor, direction in [("accuracy", "min"), ("val_hits", "max"), ("mae_1", "min"), ("val_loss", "min")]:
        callback = Follows(monitor)
        model.fit(X, Y, callbacks=callback, validation_data=(X, Y)).blocking()
        assert callback.direction == direction
        assert callback.count == 1
    with pytest.raises(af.InvalidInput, match=r"the model has only loss, accuracy, hits, mae, mae_1"):
        model.fit(X, Y, callbacks=Follows("val_binary_accuracy")).blocking()


@pytest.mark.parametrize(("monitor", "meant"), [("val_acc", "val_accuracy"), ("acc", "accuracy"), ("los", "loss")])
def test_a_monitor_that_is_nearly_there_is_guessed(monitor: str, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    model = network("accuracy")
    with pytest.raises(af.InvalidInput, match=rf"did you mean '{meant}'\? Else give mode="):
        model.fit(X, Y, callbacks=Follows(monitor), validation_data=(X, Y)).blocking()
    model.fit(X, Y, callbacks=Follows(monitor, "max"), validation_data=(X, Y)).blocking()
    assert caplog.records[-1].getMessage().endswith(f"; did you mean {meant!r}?")


def test_one_object_serves_models_with_other_metrics() -> None:
    callback: Any = Follows("hits")
    network(metrics.BinaryAccuracy(name="hits")).fit(X, Y, callbacks=callback).blocking()
    assert callback.direction == "max"
    network(metrics.MeanSquaredError(name="hits")).fit(X, Y, callbacks=callback).blocking()
    assert callback.direction == "min"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"monitor": 3}, "monitor=…"),
        ({"monitor": ""}, "monitor=…"),
        ({"mode": "mim"}, r"Follows: unknown mode 'mim'; did you mean 'min'\?"),
        ({"min_delta": "much"}, "min_delta"),
        ({"min_delta": float("nan")}, "min_delta"),
        ({"verbose": "yes"}, "verbose"),
    ],
)
def test_bad_input_is_refused_at_construction(how: dict[str, Any], error: str) -> None:
    with pytest.raises(af.InvalidInput, match=error):
        Follows(**how)


def test_a_name_is_text() -> None:
    with pytest.raises(TypeError, match="name=…"):
        Follows(name=3)
    assert Follows(name="mine").label == "mine"
    assert Follows().label == "Follows"


def test_a_missing_monitor_is_logged_once_a_run_with_what_there_is(caplog: pytest.LogCaptureFixture) -> None:
    callback = Follows("val_loss")
    for _ in range(2):
        caplog.clear()
        fit(callback, validation_data=None)
        assert [record.getMessage() for record in caplog.records] == [
            'Follows: monitor="val_loss" is not in the logs, so nothing is counted; they have loss, accuracy, '
            "learning_rate"
        ]


def test_verbose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncfit")
    fit(Follows("loss"))
    assert not caplog.records
    fit(Follows("loss", verbose=1, name="mine"))
    assert [record.getMessage() for record in caplog.records] == [f"mine: {n} improvements" for n in (1, 2, 3)]


def test_it_starts_afresh_unless_a_state_was_loaded() -> None:
    callback = Follows("loss")
    fit(callback)
    fit(callback)
    assert callback.state_dict() == {"best": 1.0, "count": 3}
    other = Follows("loss")
    assert other.state_dict() == {"count": 0}
    other.load_state_dict({"best": 2.0, "count": 10})
    fit(other)
    assert other.state_dict() == {"best": 1.0, "count": 11}, "a run that goes on"
    fit(other, Scripted(loss=[5]))
    assert other.state_dict() == {"best": 5.0, "count": 1}, "and one that does not"
    with pytest.raises(af.InvalidInput, match=r"unknown entry 'bset'; did you mean 'best'\?"):
        other.load_state_dict({"bset": 1})
    with pytest.raises(af.InvalidInput, match=r"takes what state_dict gave, not \[\]"):
        other.load_state_dict([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "best", "delta", "down", "up"),
    [
        (1.0, 1.0, 0.0, False, False),
        (0.1, np.float64(np.float32(0.1)), 0.0, False, False),  # apart in float64, the same in float32
        (1.0, 1.0 + 1e-9, 0.0, False, False),
        (1.0, 1.0 + 1e-6, 0.0, True, False),
        (float("nan"), 1.0, 0.0, False, False),
        (1.0, float("nan"), 0.0, False, False),
        (float("inf"), 3.4e38, 0.0, False, True),
        (1e39, float("inf"), 0.0, False, False),  # infinite in float32
        (0.9, 1.0, 0.2, False, False),
        (0.9, 1.0, -0.05, True, False),
        (1.1, 1.0, 0.05, False, True),
        (1.0 + 2**-23, 1.0, 2**-24, False, False),  # one step of float32, less half of it, is none
    ],
)
def test_improvements_are_those_of_float32(value: float, best: float, delta: float, down: bool, up: bool) -> None:
    assert Follows("loss", "min", min_delta=delta).improves(value, best) is down
    assert Follows("loss", "max", min_delta=delta).improves(value, best) is up
    assert Follows("loss").improves(value, None)
