"""Learning rate schedules against Keras 3.15.1 (`make_keras_schedules.py`), in training, files and resumed runs."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import Callback, EpochEnd, ProcessExecutor, Sequential, inline, load_model, modelfile
from asyncfit.callbacks import BackupAndRestore, LearningRateScheduler, ReduceLROnPlateau
from asyncfit.errors import BadFile, InvalidInput
from asyncfit.layers import Dense, Input
from asyncfit.nn import losses, optimizers, schedules
from asyncfit.nn.learner import Learner
from asyncfit.nn.network import Network
from asyncfit.nn.schedules import CosineDecay, ExponentialDecay, LearningRateSchedule, PiecewiseConstantDecay

DATA = Path(__file__).parents[1] / "data"
TOLD = json.loads((DATA / "keras_schedules.json").read_text())
X, Y = (np.array(TOLD[name], np.float32) for name in "xy")
KERAS = os.environ.get("KERAS_PYTHON")


def made(name: str, settings: dict[str, Any]) -> LearningRateSchedule:
    return schedules.KINDS[name](**settings)


@pytest.mark.parametrize("number", range(len(TOLD["rates"])))
def test_rates_are_those_of_keras(number: int) -> None:
    name, settings, rates = TOLD["rates"][number]
    schedule = made(name, settings)
    for step, rate in zip(TOLD["steps"], rates, strict=True):
        if (name, settings.get("t_mul"), step) == ("CosineDecayRestarts", 1.5, 25):
            continue  # 10 + 15: there Keras's float32 says that the restart comes a step later
        assert schedule(step) == pytest.approx(rate, rel=2e-5, abs=1e-8), step
    assert all(np.float32(schedule(step)) == schedule(step) for step in TOLD["steps"])  # as it is stored
    again = schedules.get(schedules.config(schedule))
    assert again is not None
    assert (type(again), again.get_config()) == (type(schedule), schedule.get_config())
    assert pickle.loads(pickle.dumps(schedule)).get_config() == copy.deepcopy(schedule).get_config()
    assert repr(schedule).startswith(f"{name}(")


def optimizer_of(case: str) -> optimizers.Optimizer:
    told = TOLD["trained"][case]
    return optimizers.KINDS[told["optimizer"]](learning_rate=made(*told["schedule"]), **told["settings"])


def learner_of(case: str) -> Learner:
    network = Network([Input((3,)), Dense(4, activation="tanh"), Dense(2)], seed=0)
    network.set_weights([np.array(w, np.float32) for w in TOLD["trained"][case]["before"]])
    return Learner(network, loss=losses.get("mse"), optimizer=optimizer_of(case))


def epoch(learner: Learner) -> float:
    total = 0.0
    for begin in range(0, len(X), 4):
        part = slice(begin, begin + 4)
        total += learner.train_batch(X[part], Y[part], None)["loss"] * len(X[part])
    return total / len(X)


@pytest.mark.parametrize("case", TOLD["trained"])
def test_training_gives_what_keras_gives(case: str) -> None:
    told, learner = TOLD["trained"][case], learner_of(case)
    assert [epoch(learner) for _ in range(3)] == pytest.approx(told["losses"], rel=2e-5)
    assert learner.learning_rate == pytest.approx(told["rate"], rel=1e-5)
    for ours, keras in zip(learner.network.get_weights(), told["after"], strict=True):
        np.testing.assert_allclose(ours, keras, rtol=3e-4, atol=2e-5)  # (high rates: differences grow)


@pytest.mark.anyio
@pytest.mark.parametrize("case", TOLD["trained"])
async def test_training_goes_on_from_keras_s_file(case: str, tmp_path: Path) -> None:
    told = TOLD["trained"][case]
    model = await load_model(DATA / f"keras_schedule_{case}.h5")
    assert model.learning_rate == pytest.approx(told["rate"], rel=1e-5)
    await model.save(tmp_path / "ours.h5")
    for one in (model, await load_model(tmp_path / "ours.h5")):
        await one.fit(X, Y, batch_size=4, shuffle=False)
        for ours, keras in zip(one.get_weights(), told["onward"], strict=True):
            np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5)


def compiled(schedule: Any, seed: int = 1) -> Sequential:
    model = Sequential([Input((3,)), Dense(2)], seed=seed)
    model.compile(optimizers.Adam(schedule), "mse")
    return model


class Stops(Callback):
    def on_epoch_end(self, event: EpochEnd) -> None:
        if event.epoch == 1:
            event.stop("shut down", resumable=True)


@pytest.mark.anyio
async def test_each_executor_and_a_resumed_run_end_with_the_same_bits(tmp_path: Path) -> None:
    how: dict[str, Any] = {"batch_size": 4, "epochs": 4}
    straight = compiled(CosineDecay(0.1, 12))
    history = await straight.fit(X, Y, **how)
    assert history.history["learning_rate"] == [CosineDecay(0.1, 12)(step) for step in (5, 10, 15, 20)]
    apart = compiled(CosineDecay(0.1, 12))
    async with ProcessExecutor() as executor:
        await apart.fit(X, Y, executor=executor, **how)
    assert apart.state()["params"].tobytes() == straight.state()["params"].tobytes()
    first = compiled(CosineDecay(0.1, 12))
    await first.fit(X, Y, callbacks=[BackupAndRestore(tmp_path, save_freq=1), Stops()], **how)
    other = compiled(CosineDecay(0.1, 13))
    with pytest.raises((InvalidInput, BadFile), match=r"decay_steps|learning_rate"):
        await other.fit(X, Y, callbacks=[BackupAndRestore(tmp_path, save_freq=1)], **how)
    second = compiled(CosineDecay(0.1, 12))
    await second.fit(X, Y, callbacks=[BackupAndRestore(tmp_path, save_freq=1)], **how)
    assert second.state()["params"].tobytes() == straight.state()["params"].tobytes()


class Sets(Callback):
    def on_epoch_end(self, event: EpochEnd) -> None:
        event.set_learning_rate(0.5)


class SetsInline(Callback):
    @inline
    def on_epoch_end(self, event: EpochEnd) -> None:
        event.set_learning_rate(0.5)


FOLLOWS = r"the learning rate follows CosineDecay\(initial_learning_rate=0.1, decay_steps=12.*give it a number instead"


@pytest.mark.anyio
async def test_the_rate_of_a_schedule_is_read_only() -> None:
    model = compiled(CosineDecay(0.1, 12))
    assert model.optimizer is not None
    for callback in (ReduceLROnPlateau(), LearningRateScheduler(lambda epoch: 0.1)):
        with pytest.raises(InvalidInput, match=rf"{type(callback).__name__} cannot be used here: {FOLLOWS}"):
            await model.fit(X, Y, callbacks=[callback])
    with pytest.raises(InvalidInput, match=FOLLOWS):
        model.optimizer.learning_rate = 0.5
    with pytest.raises(InvalidInput, match=FOLLOWS):
        model.learning_rate = 0.5
    for asks in (Sets(), SetsInline()):
        with pytest.raises(InvalidInput, match=FOLLOWS):
            await model.fit(X, Y, callbacks=[asks])
    async with model.fit(X, Y) as run:
        with pytest.raises(InvalidInput, match=FOLLOWS):
            run.set_learning_rate(0.5)


def test_a_schedule_acts_from_the_first_step_and_counts_steps() -> None:
    seen: list[int] = []

    class Notes(LearningRateSchedule):
        def __call__(self, step: int) -> float:
            seen.append(step)
            return float(0.5**step)

    optimizer = optimizers.SGD(Notes())
    w, g = np.zeros(1, np.float32), np.ones(1, np.float32)
    optimizer.start(1, w.dtype)
    step = optimizer.bind(w, g)
    seen.clear()
    for expected in (-1.0, -1.5, -1.75):
        step()
        assert w[0] == expected
    assert seen == [0, 1, 2]
    assert optimizer.learning_rate == 0.125


class Halves(LearningRateSchedule):
    def __init__(self, first: float) -> None:
        self.first = first

    def __call__(self, step: int) -> float:
        rate: float = self.first / 2**step
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"first": self.first}


@pytest.mark.anyio
async def test_an_own_schedule_is_kept_in_files_by_its_name(tmp_path: Path) -> None:
    model = compiled(Halves(0.5))
    await model.fit(X, Y, batch_size=4)
    await model.save(tmp_path / "m.h5")
    again = await load_model(tmp_path / "m.h5", custom_objects={"Halves": Halves})
    assert again.optimizer is not None
    assert repr(again.optimizer) == "Adam(learning_rate=Halves(first=0.5))"
    assert again.learning_rate == 0.5 / 2**5
    with pytest.raises(BadFile, match="Halves"):
        await load_model(tmp_path / "m.h5")
    profile = await model.profile(X, Y)
    assert "Adam" in str(profile)
    assert model.learning_rate == 0.5 / 2**5


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: ExponentialDecay(0.1, 0, 0.9), r"ExponentialDecay\(decay_steps=…\) must be above 0"),
    (lambda: ExponentialDecay(-0.1, 1, 0.9), r"initial_learning_rate=…\) must be finite and at least 0"),
    (lambda: schedules.InverseTimeDecay(0.1, -1, 0.9), r"InverseTimeDecay\(decay_steps=…\)"),
    (lambda: PiecewiseConstantDecay([1, 2], [0.1, 0.2]), "one value more than boundaries, not 2 for 2"),
    (lambda: PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]), "must ascend"),
    (lambda: PiecewiseConstantDecay(3, [0.1]), "must be a list of numbers, not 3"),  # type: ignore[arg-type]
    (lambda: schedules.CosineDecayRestarts(0.1, 10, t_mul=0.5), "t_mul"),
    (lambda: CosineDecay("fast", 10), "must be a number"),  # type: ignore[arg-type]
    (lambda: optimizers.Adam(CosineDecay), r"takes a schedule, as in CosineDecay\(…\)"),  # type: ignore[arg-type]
    (lambda: optimizers.Adam(lambda step: 0.1), "takes a number or a schedule, not a function"),  # type: ignore[arg-type]
    (lambda: optimizers.Adam(Halves(-1.0)), "gives no learning rate for step 0, but -1.0"),
    (lambda: optimizers.Ftrl(CosineDecay(0.0, 10)), "gives no learning rate for step 0"),
    (lambda: schedules.get({"class_name": "CosineDecay", "config": {"decay_stepz": 3}}), "did you mean 'decay_steps'"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_settings_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.timeout(600)
def test_keras_reads_each_of_them_and_trains_on_with_the_same_losses(tmp_path: Path) -> None:
    assert KERAS is not None
    for case in TOLD["trained"]:
        learner, path = learner_of(case), tmp_path / f"{case}.h5"
        for _ in range(2):
            epoch(learner)
        training, iteration = modelfile.training_config(learner), learner.optimizer.iterations
        for file in (path, path.with_suffix(".weights.h5")):
            modelfile.write(modelfile.saved(learner.network, learner, training, learner.state()), file)
        expected = {
            "x": X.tolist(), "y": Y.tolist(), "predictions": learner.predict(X).tolist(), "batch_size": 4,
            "iteration": iteration, "losses": [epoch(learner) for _ in range(2)],
        }  # fmt: skip
        Path(f"{path}.json").write_text(json.dumps(expected))
    done = subprocess.run(
        [KERAS, str(DATA / "check_keras_reads_all.py"), str(tmp_path), "5e-5"],
        env={"KERAS_BACKEND": "torch", **os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("losses: largest difference") == len(TOLD["trained"])
