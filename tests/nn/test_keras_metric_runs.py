"""Whole trainings with many metrics, epoch by epoch as Keras reports them; files of them, both ways."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import Sequential, callbacks, load_model, losses, metrics
from asyncfit.nn.arrays import Array

DATA = Path(__file__).parents[1] / "data"
RUNS: list[dict[str, Any]] = json.loads((DATA / "keras_metrics.json").read_text())["runs"]
KERAS = os.environ.get("KERAS_PYTHON")


def bias(y_true: Array, y_pred: Array) -> Any:
    return (y_pred - y_true).mean(-1)


def arrays(run: dict[str, Any]) -> tuple[Array, Array, Array | None]:
    w = run["w"]
    return np.array(run["x"], np.float32), np.array(run["y"]), None if w is None else np.array(w, np.float32)


def opened(path: Path) -> Sequential:
    return load_model(path, custom_objects={"bias": bias}).blocking()


@pytest.mark.parametrize("run", RUNS, ids=[run["file"] for run in RUNS])
def test_a_training_that_keras_set_up_reports_what_keras_reports(run: dict[str, Any], tmp_path: Path) -> None:
    model = opened(DATA / run["file"])
    x, y, w = arrays(run)
    half = len(x) // 2
    log = callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(
        x[:half], y[:half], sample_weight=None if w is None else w[:half], batch_size=8, epochs=3, shuffle=False,
        validation_data=(x[half:], y[half:], None if w is None else w[half:]), callbacks=log,
    ).blocking().history  # fmt: skip
    history.pop("learning_rate")
    assert history.keys() == run["history"].keys()
    for key, values in run["history"].items():
        np.testing.assert_allclose(history[key], values, rtol=1e-4, atol=2e-5, err_msg=key)
    figures = model.evaluate(x, y, sample_weight=w, batch_size=8, return_dict=True).blocking()
    assert figures.keys() == run["evaluate"].keys()
    for key, value in run["evaluate"].items():
        np.testing.assert_allclose(figures[key], value, rtol=1e-4, atol=2e-5, err_msg=key)
    assert set(run["history"]) <= set((tmp_path / "log.csv").read_text().splitlines()[0].split(","))


@pytest.mark.parametrize("run", RUNS, ids=[run["file"] for run in RUNS])
def test_settings_survive_a_file_of_ours(run: dict[str, Any], tmp_path: Path) -> None:
    model = opened(DATA / run["file"])
    model.save(tmp_path / "m.h5").blocking()
    again = opened(tmp_path / "m.h5")
    assert repr(again._compiled("").metrics) == repr(model._compiled("").metrics)
    assert repr(again._compiled("").weighted_metrics) == repr(model._compiled("").weighted_metrics)
    x, y, w = arrays(run)
    one = again.evaluate(x, y, sample_weight=w, return_dict=True).blocking()
    assert one == model.evaluate(x, y, sample_weight=w, return_dict=True).blocking()


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
def test_keras_reads_them_out_of_a_file_of_ours(tmp_path: Path) -> None:
    assert KERAS is not None
    model, path = opened(DATA / RUNS[0]["file"]), tmp_path / "m.h5"
    more: list[Any] = [
        losses.BinaryCrossentropy(label_smoothing=0.2), metrics.IoU(2, [1], sparse_y_pred=True, name="ones"),
        metrics.AUC(thresholds=[0.6, 0.2], multi_label=True, label_weights=[1.0, 3.0], name="areas"), "accuracy",
        metrics.AUC(name="auc", curve="PR", num_thresholds=30), metrics.F1Score("macro"), metrics.R2Score(), bias,
        losses.Huber(delta=0.2), "log_cosh", losses.BinaryFocalCrossentropy(gamma=1.0), losses.CosineSimilarity(),
        metrics.MeanSquaredError("mse"), metrics.SpecificityAtSensitivity(0.6, name="most"), "kl_divergence",
    ]  # fmt: skip
    weighted: list[Any] = [
        metrics.AUC(name="auc", curve="PR", num_thresholds=30),
        bias,
        metrics.Precision(top_k=1, name="best"),
    ]
    model.compile("sgd", "binary_crossentropy", more, weighted_metrics=weighted)
    model.save(path).blocking()
    x, y, w = arrays(RUNS[0])
    assert w is not None
    Path(f"{path}.json").write_text(json.dumps({"x": x.tolist(), "y": y.tolist(), "w": w.tolist()}))
    script = str(DATA / "check_keras_reads_metrics.py")
    ran = subprocess.run([KERAS, script, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(Path(f"{path}.found.json").read_text())["evaluate"]
    figures = model.evaluate(x, y, sample_weight=w, batch_size=8, return_dict=True).blocking()
    assert figures.keys() == found.keys()
    for key, value in found.items():
        np.testing.assert_allclose(figures[key], value, rtol=1e-4, atol=2e-5, err_msg=key)
