"""Where schedules are evaluated and what they cost; what is decided, `test_keras_decisions` knows."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.callbacks import EarlyStopping, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN
from asyncfit.testing import Scripted
from tests.run.helpers import Linear, X, Y, fit, until


def halves(epoch: int, rate: float) -> float:
    return rate * 0.5


class Counting(Scripted):
    """How many batches compute has begun, those that were undone included, and their rates."""

    def __init__(self, loss: list[float]) -> None:
        super().__init__(loss)
        self.rates: list[float] = []

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self.rates.append(self.learning_rate)
        return super().train_batch(x, y)


@pytest.mark.anyio
@pytest.mark.parametrize("beside", [(), (EarlyStopping("loss", patience=50),)])
async def test_a_plain_schedule_undoes_nothing(beside: tuple[af.Callback, ...]) -> None:
    model, threads = Counting([1.0]), set()

    def schedule(epoch: int, rate: float) -> float:
        threads.add(threading.get_ident())
        return halves(epoch, rate)

    await fit(model, epochs=20, callbacks=[*beside, LearningRateScheduler(schedule)], lookahead=1)
    assert model.rates == [0.01 * 0.5 ** (1 + n // 3) for n in range(60)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads, "in the worker"


@pytest.mark.anyio
@pytest.mark.parametrize("callback", [LearningRateScheduler(halves), TerminateOnNaN()])
async def test_compute_works_ahead_beside_those_that_are_evaluated_in_it(callback: af.Callback) -> None:
    model = Linear()

    class Waits(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 0:
                await until(lambda: model.batches > 3)

    await fit(model, epochs=3, callbacks=[Waits(), callback], lookahead=1)


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1])
async def test_an_async_schedule_is_awaited(lookahead: int) -> None:
    model, threads = Scripted([1.0]), set()

    async def schedule(epoch: int, rate: float) -> float:
        threads.add(threading.get_ident())
        return halves(epoch, rate)

    callback = LearningRateScheduler(schedule)
    history = await fit(model, epochs=4, callbacks=callback, lookahead=lookahead)
    assert history.history["learning_rate"] == [0.01 * 0.5 ** (1 + n) for n in range(4)]
    assert threads == {threading.get_ident()}


@pytest.mark.anyio
async def test_a_schedule_goes_on_from_what_a_plateau_left() -> None:
    """The plateau's reduction undoes the work ahead, and the schedule is asked anew."""
    model = Scripted([1.0])
    callbacks = [LearningRateScheduler(halves), ReduceLROnPlateau("loss", factor=0.1, patience=1)]
    history = await fit(model, epochs=3, callbacks=callbacks, lookahead=1)
    assert history.history["learning_rate"] == pytest.approx([0.005, 0.0025, 0.000125])


@pytest.mark.anyio
async def test_a_plateau_lowers_what_gates_before_it_set() -> None:
    class Sets(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.set_learning_rate(1.0)
            assert event.learning_rate == 1.0

    history = await fit(Scripted([1.0]), epochs=3, callbacks=[ReduceLROnPlateau("loss", patience=1), Sets()])
    assert history.history["learning_rate"] == [0.01, 1.0, 0.1]


@pytest.mark.anyio
async def test_facts_tell_who_changed_the_rate_and_not_that_it_stayed() -> None:
    seen: list[tuple[str, float, float]] = []
    bus = af.EventBus()
    bus.subscribe(af.LearningRateChanged, lambda event: seen.append((event.who, event.previous, event.value)))
    await fit(epochs=4, callbacks=LearningRateScheduler(lambda epoch: [0.01, 0.01, 0.5, 0.5][epoch]), bus=bus)
    assert seen == [("LearningRateScheduler", 0.01, 0.5)]


class Fixed(Linear):
    learning_rate = property(lambda self: 0.01)

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("callback", [LearningRateScheduler(halves), ReduceLROnPlateau("loss")])
def test_a_model_with_a_schedule_of_its_own_refuses_them_at_fit(callback: af.Callback) -> None:
    with pytest.raises(af.InvalidInput, match=f"{type(callback).__name__} cannot be used here: .* of its own"):
        af.Trainer(Fixed()).fit(X, Y, callbacks=callback)


@pytest.mark.parametrize(
    ("schedule", "match"),
    [
        (0.1, "takes a function of the epoch, and perhaps the rate, not 0.1"),
        (lambda: 0.1, r"calls schedule\(epoch\) or schedule\(epoch, rate\); .* takes \(\)"),
        (lambda a, b, c: 0.1, r"takes \(a, b, c\)"),
    ],
)
def test_what_cannot_be_called_is_refused_at_construction(schedule: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        LearningRateScheduler(schedule)


@pytest.mark.parametrize(
    ("schedule", "takes_rate"),
    [(lambda e: 0.1, False), (lambda e, r: r, True), (lambda e, r=0.3: r, True), ({0: 0.1}.get, True)],
)
def test_the_signature_tells_what_it_is_called_with(schedule: Callable[..., float], takes_rate: bool) -> None:
    assert LearningRateScheduler(schedule)._takes_rate is takes_rate


def test_what_it_returns_must_be_a_float() -> None:
    with pytest.raises(af.InvalidInput, match=r"LearningRateScheduler: schedule\(0\) must return a float, .* not 1"):
        fit(callbacks=LearningRateScheduler(lambda epoch: 1)).blocking()
    with pytest.raises(af.InvalidInput, match="finite number of at least 0"):
        fit(callbacks=LearningRateScheduler(lambda epoch: -0.1)).blocking()


@pytest.mark.parametrize(
    "how", [{"factor": 1.0}, {"factor": -0.1}, {"patience": -1}, {"cooldown": 0.5}, {"min_lr": -1}, {"min_delta": "a"}]
)
def test_bad_input_is_refused_at_construction(how: dict[str, Any]) -> None:
    with pytest.raises(af.InvalidInput, match=next(iter(how))):
        ReduceLROnPlateau(**how)


def test_verbose_tells(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncfit")
    plateau = ReduceLROnPlateau("loss", patience=1, verbose=1)
    fit(Scripted([1.0]), epochs=2, callbacks=[plateau, LearningRateScheduler(lambda epoch: 0.5, verbose=1)]).blocking()
    assert [record.getMessage() for record in caplog.records] == [
        "LearningRateScheduler: in epoch 1 the learning rate was 0.5",
        "ReduceLROnPlateau: after epoch 2 the learning rate is 0.05 instead of 0.5",
        "LearningRateScheduler: in epoch 2 the learning rate was 0.5",
    ]


async def awaited_halves(epoch: int, rate: float) -> float:
    return halves(epoch, rate)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("schedule", "executor"),
    [(halves, "thread"), (halves, "process"), (lambda epoch, rate: rate * 0.5, "process"), (awaited_halves, "thread")],
)
async def test_the_rates_that_are_told_are_those_of_the_epochs_that_were(
    schedule: Any, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Work ahead that is undone has asked the schedule too, and is no epoch."""
    caplog.set_level(logging.INFO, "asyncfit")

    class Decides(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 0:
                event.set_weights(event.model)  # so that the second epoch is trained anew
            if event.epoch == 2:
                event.stop("enough")

    model = af.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = LearningRateScheduler(schedule, verbose=1)
    await model.fit(X, Y, epochs=9, callbacks=[callback, Decides()], executor=executor, lookahead=1)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"LearningRateScheduler: in epoch {n} the learning rate was {np.float32(0.01) * 0.5**n:g}" for n in (1, 2, 3)
    ]


def test_it_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(LearningRateScheduler(halves, name="mine")))
    assert (copy.schedule, copy.name, copy.portable) == (halves, "mine", True)
