"""Keras reads penalties and constraints out of a file of ours, and trains on with the same losses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import Sequential, load_model
from asyncfit.constraints import MaxNorm, MinMaxNorm
from asyncfit.errors import BadFile
from asyncfit.layers import ActivityRegularization, Dense, Input, Layer
from asyncfit.nn.arrays import Array
from asyncfit.nn.workspace import Place
from asyncfit.regularizers import L1L2, OrthogonalRegularizer, Regularizer

DATA = Path(__file__).parents[1] / "data"
KERAS = os.environ.get("KERAS_PYTHON")
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((32, 5)).astype(np.float32), RNG.random((32, 2)).astype(np.float32)
HOW: dict[str, Any] = {"batch_size": 8, "shuffle": False}


def made() -> Sequential:
    stack = [
        Input(5),
        Dense(6, "relu", kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer=L1L2(0.1, 0.2)),
        ActivityRegularization(l2=0.1),
        Dense(4, kernel_regularizer=OrthogonalRegularizer(0.1, "columns"), kernel_constraint=MaxNorm(0.7, 0)),
        Dense(3, kernel_constraint=MinMaxNorm(0.6, 0.8, 0.5, [0]), bias_constraint="non_neg"),
        Dense(2, kernel_constraint="unit_norm", bias_initializer="ones"),
    ]
    model = Sequential(stack, seed=5)
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=2, **HOW).blocking()
    return model


def test_a_file_keeps_them(tmp_path: Path) -> None:
    model, path = made(), tmp_path / "m.h5"
    model.save(path).blocking()
    again = load_model(path).blocking()
    assert again.get_config() == model.get_config()
    assert again.evaluate(X, Y).blocking() == model.evaluate(X, Y).blocking()
    assert again.fit(X, Y, **HOW).blocking().history == model.fit(X, Y, **HOW).blocking().history


class Nearness(Regularizer):
    """(1 − Σ x)²."""

    def __call__(self, x: Array) -> float:
        return float((1 - x.sum()) ** 2)

    def gradient(self, x: Array) -> Array:
        return np.full_like(x, 2 * (x.sum() - 1))


class Twice(Layer):
    """y = 2x."""

    def plan(self, at: Place) -> None:
        at.forward.append(lambda: np.multiply(at.x, 2, at.y))
        if (dy := at.dy) is not None and at.dx is not None:
            at.backward.append(lambda: np.multiply(dy, 2, at.dx))


def halves(w: Array) -> Array:
    found: Array = np.round(w * 2) / 2
    return found


def test_what_is_your_own_is_read_by_its_name(tmp_path: Path) -> None:
    stack = [Input(5), Dense(4, kernel_regularizer=Nearness(), kernel_constraint=halves), Twice(), Dense(2)]
    model, path = Sequential(stack, seed=1), tmp_path / "m.h5"
    model.compile("sgd", "mse")
    model.fit(X, Y, **HOW).blocking()
    model.save(path).blocking()
    own = {"Nearness": Nearness, "halves": halves, "Twice": Twice}
    again = load_model(path, custom_objects=own).blocking()
    assert again.evaluate(X, Y).blocking() == model.evaluate(X, Y).blocking()
    assert again.fit(X, Y, **HOW).blocking().history == model.fit(X, Y, **HOW).blocking().history
    for name in own:
        with pytest.raises(BadFile, match=name):
            load_model(path, custom_objects={n: one for n, one in own.items() if n != name}).blocking()


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
def test_keras_reads_them_and_trains_on_with_the_same_losses(tmp_path: Path) -> None:
    assert KERAS is not None
    model, path = made(), tmp_path / "m.h5"
    model.save(path).blocking()
    expected = {
        "x": X.tolist(), "y": Y.tolist(), "predictions": model.predict(X).blocking().tolist(), "batch_size": 8,
        "iteration": 8, "losses": model.fit(X, Y, epochs=3, **HOW).blocking().history["loss"],
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(expected))
    command = [KERAS, str(DATA / "check_keras_reads.py"), str(path)]
    environment = {"KERAS_BACKEND": "torch", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "losses" in done.stdout
