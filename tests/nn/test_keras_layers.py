"""Layers of all kinds: from the same weights and batches what Keras 3.15 computed, and files in both directions.

References: `tests/data/make_keras_layers.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import modelfile
from asyncfit.formats import keras_h5
from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array

DATA = Path(__file__).parents[1] / "data"
KERAS = os.environ.get("KERAS_PYTHON")

KERAS_FORGETS = {
    "adapted: all",
    "adapted: axes",
    "normal: layer, axes",
    "normal: unit, axes",
    "rectifiers: softmax, both",
}
"""Of an axis that is a list of several, or of none, Keras reads nothing, in HDF5 files of its own as well."""


def loaded(path: Path) -> dict[str, tuple[dict[str, Any], dict[str, Array]]]:
    with np.load(path) as file:
        arrays = dict(file)
    told = json.loads(str(arrays.pop("cases")))
    family = path.stem.removeprefix("keras_layers_")
    parts: dict[str, dict[str, Array]] = {case: {} for case in told}
    for name, array in arrays.items():
        case, what = name.rsplit("/", 1)
        parts[case][what] = array
    return {f"{family}: {case}": (told[case], parts[case]) for case in told}


CASES = {name: case for path in sorted(DATA.glob("keras_layers_*.npz")) for name, case in loaded(path).items()}


def file_of(case: str) -> keras_h5.SavedModel:
    return keras_h5.from_bytes(CASES[case][1]["h5"].tobytes(), name=case)


def learner_of(case: str) -> Learner:
    """As Keras's own file describes it, after training."""
    found = file_of(case)
    network = modelfile.restored(found, case, seed=0)
    settings = modelfile.settings(found, case)
    assert settings is not None
    learner = Learner(network, loss=settings.loss, optimizer=settings.optimizer, metrics=settings.metrics)
    modelfile.take_optimizer(learner, found, case)
    return learner


def set_flat(network: Network, flat: Array) -> None:
    shapes = [slot.shape for slot in network.slots]
    ends = np.cumsum([slot.size for slot in network.slots])
    network.set_weights([part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)])


def epoch(learner: Learner, x: Array, y: Array, *, train: bool) -> dict[str, float]:
    batch = learner.train_batch if train else learner.test_batch
    sums: dict[str, float] = {}
    for begin in range(0, len(x), 8):
        part = slice(begin, begin + 8)
        for name, value in batch(x[part], y[part]).items():
            sums[name] = sums.get(name, 0.0) + value * len(x[part])
    return {name: total / len(x) for name, total in sums.items()}


@pytest.mark.parametrize("case", CASES)
def test_training_gives_what_keras_gives(case: str) -> None:
    told, arrays = CASES[case]
    after = learner_of(case)
    sgd = {"class_name": "SGD", "config": after.optimizer.get_config()}
    learner = Learner(after.network.twin(), loss=after.loss, optimizer=sgd, metrics=after.metrics)
    weights = after.network.get_weights()
    np.testing.assert_allclose(after.predict(arrays["x"]), arrays["predictions"], rtol=1e-4, atol=2e-6)
    evaluated = epoch(after, arrays["x"], arrays["y"], train=False)
    assert evaluated == pytest.approx(told["evaluated"], rel=1e-4)
    if learner.random:
        return  # Keras draws other numbers
    set_flat(learner.network, arrays["before"])
    for i in range(3):
        logs = epoch(learner, arrays["x"], arrays["y"], train=True)
        assert logs == pytest.approx({name: values[i] for name, values in told["history"].items()}, rel=1e-4)
    for ours, keras in zip(learner.network.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_file_written_here_describes_the_same_model(case: str) -> None:
    learner = learner_of(case)
    network = learner.network
    written = keras_h5.to_bytes(modelfile.saved(network, learner, modelfile.training_config(learner), learner.state()))
    again = modelfile.restored(keras_h5.from_bytes(written, name="again"), "again")
    assert again.get_config() == network.get_config()
    x = CASES[case][1]["x"]
    np.testing.assert_array_equal(Learner(again, loss="mse").predict(x), learner.predict(x))


@pytest.mark.parametrize("case", CASES)
def test_the_summary_says_what_keras_says(case: str) -> None:
    told, _ = CASES[case]
    ours = "\n".join(file_network(case).summary_lines())
    assert cells(ours) == cells(told["summary"])
    for line in ("Trainable params", "Non-trainable params"):
        assert count(line, ours) == count(line, told["summary"])


def cells(summary: str) -> list[list[str]]:
    """The rows of the table."""
    return [[cell.strip() for cell in line.split("│")[1:4]] for line in summary.splitlines() if line.startswith("│")]


def count(title: str, summary: str) -> str:
    (line,) = (line.strip() for line in summary.splitlines() if line.strip().startswith(title))
    return line


def file_network(case: str) -> Network:
    return modelfile.restored(file_of(case), case)


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.timeout(600)
def test_keras_reads_what_is_written_and_trains_on_with_the_same_losses(tmp_path: Path) -> None:
    assert KERAS is not None
    for number, case in enumerate(CASES):
        learner, (_, arrays) = learner_of(case), CASES[case]
        if case in KERAS_FORGETS:
            continue
        path = tmp_path / f"{number}.h5"
        training = modelfile.training_config(learner)
        for file in (path, path.with_suffix(".weights.h5")):
            modelfile.write(modelfile.saved(learner.network, learner, training, learner.state()), file)
        expected = {
            "x": arrays["x"].tolist(), "y": arrays["y"].tolist(), "predictions": learner.predict(arrays["x"]).tolist(),
            "batch_size": 8, "iteration": learner.optimizer.iterations,
        }  # fmt: skip
        if not learner.random:
            expected["losses"] = [epoch(learner, arrays["x"], arrays["y"], train=True)["loss"] for _ in range(2)]
        Path(f"{path}.json").write_text(json.dumps(expected))
    done = subprocess.run(
        [KERAS, str(DATA / "check_keras_reads_all.py"), str(tmp_path)],
        env={"KERAS_BACKEND": "torch", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    for number, case in enumerate(CASES):
        if case not in KERAS_FORGETS:
            network, name = file_network(case), str(tmp_path / f"keras_{number}.weights.h5")
            matched = modelfile.matched_weights(network, modelfile.read_weights(name), name)
            for ours, theirs in zip(network.get_weights(), matched, strict=True):
                np.testing.assert_array_equal(ours, theirs)
