"""Convolutions, pooling and their like compute what Keras 3.15 computed (`tests/data/make_keras_convolution.py`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array
from asyncfit.nn.optimizers import SGD
from asyncfit.sequential import load_model
from tests.data.make_keras_convolution import CASES, FILE_SHAPE, data

DATA = Path(__file__).parents[1] / "data"
KERAS = os.environ.get("KERAS_PYTHON")
with np.load(DATA / "keras_convolution.npz") as file:
    ARRAYS = dict(file)
TOLD: dict[str, Any] = json.loads(str(ARRAYS["told"]))


def several(name: str, what: str) -> list[Array]:
    found: list[Array] = []
    while (array := ARRAYS.get(f"{name}/{what}/{len(found)}")) is not None:
        found.append(array)
    return found


@pytest.mark.parametrize("name", CASES)
def test_training_gives_what_keras_gives(name: str) -> None:
    network = Network.from_config(TOLD[name]["config"], seed=0)
    network.set_weights(several(name, "before"))
    assert [w.shape for w in network.get_weights()] == [w.shape for w in several(name, "before")]
    learner = Learner(network, loss="mse", optimizer=SGD(0.01))
    x, y = data(CASES[name][0])
    for loss in TOLD[name]["losses"]:
        parts = [learner.train_batch(x[part], y[part])["loss"] for part in (slice(4), slice(4, 6))]
        assert (4 * parts[0] + 2 * parts[1]) / 6 == pytest.approx(loss, rel=1e-4)
    for ours, keras in zip(network.get_weights(), several(name, "after"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.predict(x), ARRAYS[f"{name}/predictions"], rtol=1e-4, atol=1e-5)


@pytest.mark.anyio
async def test_a_file_of_keras_predicts_and_trains_on() -> None:
    model = await load_model(DATA / "keras_convolution.h5")
    x, y = data(FILE_SHAPE)
    np.testing.assert_allclose(await model.predict(x), TOLD["file"]["predictions"], rtol=1e-4, atol=1e-5)
    history = (await model.fit(x, y, batch_size=4, epochs=2, shuffle=False)).history
    assert history["loss"] == pytest.approx(TOLD["file"]["losses"], rel=1e-4)


@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
def test_keras_reads_what_is_written(tmp_path: Path) -> None:
    assert KERAS is not None
    model = load_model(DATA / "keras_convolution.h5").blocking()
    x, y = data(FILE_SHAPE)
    how: dict[str, Any] = {"batch_size": 4, "shuffle": False}
    model.fit(x, y, epochs=1, **how).blocking()
    path = tmp_path / "model.h5"
    model.save(path).blocking()
    expected = {
        "x": x.tolist(), "y": y.tolist(), "predictions": model.predict(x).blocking().tolist(), "batch_size": 4,
        "iteration": model.state()["optimizer/iteration"],
        "losses": model.fit(x, y, epochs=2, **how).blocking().history["loss"],
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(expected))
    done = subprocess.run(
        [KERAS, str(DATA / "check_keras_reads.py"), str(path), f"{path}.json", "1e-4"],
        env={"KERAS_BACKEND": "torch", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
