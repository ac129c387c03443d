"""Makes `keras_constraints.npz` and `keras_constrained.h5`: what Keras 3.15.1 makes of constrained weights.

`KERAS_BACKEND=torch python tests/data/make_keras_constraints.py`

Each case trains a small model for three epochs without shuffling, 20 samples in batches of 8 (the last one has 4),
and keeps: configs, initial weights, losses by epoch, final weights. The file is the case `file`, after training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

HERE = Path(__file__).parent


def cases() -> dict[str, list[Any]]:
    layers, c = keras.layers, keras.constraints
    dense = layers.Dense
    return {
        "max norm": [dense(6, "tanh", kernel_constraint=c.MaxNorm(0.7)), dense(2)],
        "max norm of rows": [dense(6, "tanh", kernel_constraint=c.MaxNorm(0.7, axis=1)), dense(2)],
        "non neg": [dense(6, "tanh", kernel_constraint="non_neg", bias_constraint="non_neg"), dense(2)],
        "unit norm": [dense(6, "tanh", kernel_constraint="unit_norm", bias_constraint="unit_norm"), dense(2)],
        "unit norm of all": [dense(6, "tanh", kernel_constraint=c.UnitNorm(axis=[0, 1])), dense(2)],
        "min max norm": [dense(6, "tanh", kernel_constraint=c.MinMaxNorm(0.6, 0.8)), dense(2)],
        "min max norm, slowly": [dense(6, "tanh", kernel_constraint=c.MinMaxNorm(0.6, 0.8, rate=0.3)), dense(2)],
        "frozen": [dense(6, "tanh", kernel_constraint="unit_norm", trainable=False), dense(2)],
        "file": [
            dense(6, "relu", kernel_constraint=c.MaxNorm(0.7), bias_constraint="non_neg"),
            dense(4, kernel_constraint=c.MinMaxNorm(0.6, 0.8, rate=0.5, axis=[0])),
            dense(2, kernel_constraint="unit_norm"),
        ],
    }


def main() -> None:
    arrays: dict[str, Any] = {}
    told: dict[str, Any] = {}
    rng = np.random.default_rng(32)
    x, y = rng.standard_normal((20, 5)).astype(np.float32), rng.random((20, 2)).astype(np.float32)
    arrays |= {"x": x, "y": y}
    for case in cases():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((5,)), *cases()[case]])
        model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "mse")
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{case}/before/{i}"] = weight
        history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{case}/after/{i}"] = weight
        told[case] = {"config": model.get_config(), "losses": history["loss"]}
        if case == "file":
            model.save(HERE / "keras_constrained.h5")
    arrays["cases"] = np.array(json.dumps(told))
    np.savez_compressed(HERE / "keras_constraints.npz", **arrays)


if __name__ == "__main__":
    main()
