"""Makes `keras_regularizers.npz` and `keras_regularized.h5`: what penalties on weights and outputs do in Keras 3.15.1.

`KERAS_BACKEND=torch python tests/data/make_keras_regularizers.py`

Each case trains a small model for three epochs without shuffling, 20 samples in batches of 8 (the last one has 4),
and keeps: configs, initial weights, losses by epoch, final weights, what evaluate says. The file is the case `file`,
as saved after training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

HERE = Path(__file__).parent


def cases() -> dict[str, tuple[list[Any], str]]:
    layers, r = keras.layers, keras.regularizers
    dense = layers.Dense
    return {
        "kernel l1": ([dense(6, "tanh", kernel_regularizer="l1"), dense(2)], "mse"),
        "kernel l2": ([dense(6, "tanh", kernel_regularizer=r.L2(0.03)), dense(2)], "mse"),
        "both, both": (
            [dense(6, "tanh", kernel_regularizer=r.L1L2(0.01, 0.02), bias_regularizer=r.L1L2(0.03, 0.04)), dense(2)],
            "mse",
        ),
        "rows": ([dense(6, "tanh", kernel_regularizer=r.OrthogonalRegularizer(0.2)), dense(2)], "mse"),
        "columns": (
            [dense(6, "tanh", kernel_regularizer=r.OrthogonalRegularizer(0.2, "columns")), dense(2)],
            "mse",
        ),
        "activity": ([dense(6, "relu", activity_regularizer=r.L1L2(0.1, 0.2)), dense(2)], "mse"),
        "activity, wide": ([dense(70, "tanh", activity_regularizer=r.L2(0.1)), dense(2)], "mse"),
        "activity, last": ([dense(6, "tanh"), dense(2, "sigmoid", activity_regularizer="l2")], "binary_crossentropy"),
        "layer": ([dense(6, "tanh"), layers.ActivityRegularization(l1=0.02, l2=0.1), dense(2)], "mse"),
        "layer, last": ([dense(6, "tanh"), dense(2), layers.ActivityRegularization(l2=0.1)], "mse"),
        "frozen": (
            [dense(6, kernel_regularizer="l2", activity_regularizer="l1", trainable=False), dense(2)],
            "mse",
        ),
        "file": (
            [
                dense(6, "relu", kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer=r.L1L2(0.1, 0.2)),
                layers.ActivityRegularization(l2=0.1),
                dense(3, kernel_regularizer=r.OrthogonalRegularizer(0.1, mode="columns")),
                dense(2),
            ],
            "mse",
        ),
    }


def main() -> None:
    arrays: dict[str, Any] = {}
    told: dict[str, Any] = {}
    rng = np.random.default_rng(31)
    x, y = rng.standard_normal((20, 5)).astype(np.float32), rng.random((20, 2)).astype(np.float32)
    w = (rng.random(20) * 2).astype(np.float32)
    arrays |= {"x": x, "y": y, "w": w}
    for case in cases():
        keras.utils.set_random_seed(3)
        stack, loss = cases()[case]
        model = keras.Sequential([keras.Input((5,)), *stack])
        model.compile(keras.optimizers.SGD(0.05), loss)
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{case}/before/{i}"] = weight
        history = model.fit(x, y, sample_weight=w, batch_size=8, epochs=3, shuffle=False, verbose=0).history
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{case}/after/{i}"] = weight
        evaluated = model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0)
        told[case] = {"config": model.get_config(), "loss": loss, "losses": history["loss"], "evaluated": evaluated}
        if case == "file":
            model.save(HERE / "keras_regularized.h5")
    arrays["cases"] = np.array(json.dumps(told))
    np.savez_compressed(HERE / "keras_regularizers.npz", **arrays)


if __name__ == "__main__":
    main()
