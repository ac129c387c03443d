"""Each optimizer and each of their options, against what Keras 3.15.1 computes (`make_keras_optimizers.py`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import Callback, EpochEnd, ProcessExecutor, Sequential, load_model, modelfile
from asyncfit.callbacks import BackupAndRestore, SwapEMAWeights
from asyncfit.layers import Dense, Input
from asyncfit.nn import losses, optimizers
from asyncfit.nn.arrays import Array
from asyncfit.nn.learner import Learner
from asyncfit.nn.network import Network

DATA = Path(__file__).parents[1] / "data"
with np.load(DATA / "keras_optimizers.npz") as file:
    ARRAYS = dict(file)
TOLD: dict[str, dict[str, Any]] = json.loads(str(ARRAYS["told"]))
X, Y = ARRAYS["x"], ARRAYS["y"]
FILES = sorted({name.split("/")[0] for name in ARRAYS if "/onward/" in name})
KERAS = os.environ.get("KERAS_PYTHON")


def several(case: str, what: str) -> list[Array]:
    found: list[Array] = []
    while (array := ARRAYS.get(f"{case}/{what}/{len(found)}")) is not None:
        found.append(array)
    return found


def made(case: str, **settings: Any) -> optimizers.Optimizer:
    optimizer = optimizers.KINDS[TOLD[case]["class_name"]](**TOLD[case]["settings"] | settings)
    if case == "spared":
        optimizer.exclude_from_weight_decay(["bias"])
    return optimizer


def learner_of(case: str) -> Learner:
    network = Network([Input((5,)), Dense(6, activation="tanh"), Dense(2)], seed=0)
    network.set_weights(several(case, "before"))
    return Learner(network, loss=losses.get("mse"), optimizer=made(case))


def epoch(learner: Learner) -> float:
    total = 0.0
    for begin in range(0, len(X), 8):
        part = slice(begin, begin + 8)
        total += learner.train_batch(X[part], Y[part], None)["loss"] * len(X[part])
    return total / len(X)


@pytest.mark.parametrize("case", TOLD)
def test_training_gives_what_keras_gives(case: str) -> None:
    learner = learner_of(case)
    assert [epoch(learner) for _ in range(3)] == pytest.approx(TOLD[case]["losses"], rel=2e-5)
    learner.end_fit()
    for ours, keras in zip(learner.network.get_weights(), several(case, "after"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", TOLD)
def test_its_variables_are_keras_s_in_keras_s_order(case: str) -> None:
    learner = learner_of(case)
    for _ in range(3):
        epoch(learner)
    iteration, _, *slots = several(case, "optimizer")
    ours = learner.optimizer_slots()
    assert learner.optimizer.batches == iteration
    names = [path.rsplit("/", 1)[-1].rsplit("_", 1)[-1] for path, _ in TOLD[case]["variables"][2:]]
    found = [name.rsplit("/", 1)[-1].rsplit("_", 1)[-1] for name, _ in ours]
    assert found == [{"variable": "product"}.get(name, name) for name in names]
    for (name, slot), keras in zip(ours, slots, strict=True):
        np.testing.assert_allclose(slot, keras, rtol=5e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("case", TOLD)
def test_the_config_is_keras_s(case: str) -> None:
    theirs = TOLD[case]["config"]
    ours = made(case).get_config()
    assert ours.keys() == theirs.keys() - {"loss_scale_factor"}
    del ours["name"]  # (Keras makes `rm_sprop` out of it)
    for name, value in ours.items():
        assert value == (pytest.approx(theirs[name], rel=1e-6) if isinstance(value, float) else theirs[name]), name
    again = optimizers.get({"class_name": TOLD[case]["class_name"], "config": theirs})
    assert again.get_config() == made(case).get_config()


@pytest.mark.anyio
@pytest.mark.parametrize("case", FILES)
async def test_training_goes_on_from_keras_s_file(case: str) -> None:
    model = await load_model(DATA / f"keras_optimizer_{case}.h5")
    for ours, keras in zip(model.get_weights(), several(case, "after"), strict=True):
        assert ours.tobytes() == keras.tobytes()
    await model.fit(X, Y, batch_size=8, shuffle=False)
    for ours, keras in zip(model.get_weights(), several(case, "onward"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5)


def compiled(case: str) -> Sequential:
    model = Sequential([Input((5,)), Dense(6, activation="tanh"), Dense(2)], seed=1)
    model.compile(made(case), "mse")
    return model


@pytest.mark.anyio
@pytest.mark.parametrize("case", FILES)
async def test_a_saved_model_goes_on_with_the_same_bits(case: str, tmp_path: Path) -> None:
    model = compiled(case)
    await model.fit(X, Y, batch_size=8, epochs=3)
    await model.save(tmp_path / "m.h5")
    again = await load_model(tmp_path / "m.h5")
    one, two = model.state(), again.state()
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert repr(again.optimizer) == repr(model.optimizer)
    history = (await model.fit(X, Y, batch_size=8, epochs=2, seed=9)).history
    assert (await again.fit(X, Y, batch_size=8, epochs=2, seed=9)).history == history


class Stops(Callback):
    def on_epoch_end(self, event: EpochEnd) -> None:
        if event.epoch == 1:
            event.stop("shut down", resumable=True)


@pytest.mark.anyio
@pytest.mark.parametrize("case", ["everything", "ema", "nadam"])
async def test_each_executor_and_a_resumed_run_end_with_the_same_bits(case: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"batch_size": 8, "epochs": 4}
    straight = compiled(case)
    await straight.fit(X, Y, **how)
    if case == "everything":
        apart = compiled(case)
        async with ProcessExecutor() as executor:
            await apart.fit(X, Y, executor=executor, **how)
        assert [w.tobytes() for w in apart.get_weights()] == [w.tobytes() for w in straight.get_weights()]
    first = compiled(case)
    await first.fit(X, Y, callbacks=[BackupAndRestore(tmp_path, save_freq=1), Stops()], **how)
    second = compiled(case)
    await second.fit(X, Y, callbacks=[BackupAndRestore(tmp_path, save_freq=1)], **how)
    assert [w.tobytes() for w in second.get_weights()] == [w.tobytes() for w in straight.get_weights()]


@pytest.mark.anyio
async def test_the_averages_are_the_weights_at_the_end_and_best_weights_win() -> None:
    model = compiled("ema")
    await model.fit(X, Y, batch_size=8, epochs=2)
    assert model.state()["params"].tobytes() == model.state()["optimizer/average"].tobytes()


@pytest.mark.anyio
async def test_swapping_takes_the_optimizers_average() -> None:
    model, plain = compiled("ema"), compiled("ema")
    swap = SwapEMAWeights(swap_on_epoch=True)
    await model.fit(X, Y, batch_size=8, epochs=2, callbacks=[swap])
    await plain.fit(X, Y, batch_size=8, epochs=2)
    assert swap.averaged is not None
    ends = [m.get_weights() for m in (model, plain)] + [swap.averaged.get_weights()]
    for one, two, three in zip(*ends, strict=True):
        assert one.tobytes() == two.tobytes() == three.tobytes()


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.timeout(600)
def test_keras_reads_each_of_them_and_trains_on_with_the_same_losses(tmp_path: Path) -> None:
    assert KERAS is not None
    for case in FILES:
        learner, path = learner_of(case), tmp_path / f"{case}.h5"
        for _ in range(3):
            epoch(learner)
        training, iteration = modelfile.training_config(learner), learner.optimizer.iterations
        for file in (path, path.with_suffix(".weights.h5")):
            modelfile.write(modelfile.saved(learner.network, learner, training, learner.state()), file)
        expected = {
            "x": X.tolist(), "y": Y.tolist(), "predictions": learner.predict(X).tolist(), "batch_size": 8,
            "iteration": iteration, "losses": [epoch(learner) for _ in range(2)],
        }  # fmt: skip
        Path(f"{path}.json").write_text(json.dumps(expected))
    done = subprocess.run(
        [KERAS, str(DATA / "check_keras_reads_all.py"), str(tmp_path), "5e-5"],
        env={"KERAS_BACKEND": "torch", **os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("losses: largest difference") == len(FILES)
