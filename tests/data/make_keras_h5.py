"""Makes the reference files that Keras wrote, and what Keras computes with them. Keras 3.15.1 made these.

::

    KERAS_BACKEND=torch python tests/data/make_keras_h5.py

`keras_<case>.h5`
    A Sequential, compiled and trained for a few steps, as `model.save` writes it; the case `kinds` was never
    compiled and has the other activations.
`keras_h5.npz`
    `x` (32, 4, 3), the input of all cases; `<case>_y`; `<case>_predictions`, of the model in the file;
    `<case>_after`, the predictions once training went on (not for `kinds`).
`keras_h5.json`
    `keras` (the version), `batch_size`, `epochs`, and under `cases` for each but `kinds`: `loss` and `optimizer`
    (names), `iteration` (the steps before the file was written), `losses` and `metrics` (`{name: [...]}`): one
    value an epoch, when training goes on from the file, with `x`, `y`, that batch size and `shuffle=False`.

Training went on in the process that wrote the file. Dropout has the rate 0 where a model trains, for its masks
are another library's own, and 0.3 in `kinds`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent
BATCH, EPOCHS = 8, 3


def cases(rng: np.random.Generator) -> dict[str, tuple[Any, str, list[str], int, str, Any]]:
    """By name: optimizer, loss, metrics, units and activation of the last layer, targets."""
    optimizers = keras.optimizers
    labels = rng.integers(0, 3, 32)
    one_hot = np.eye(3, dtype=np.float32)[labels]
    numbers = rng.normal(size=(32, 2)).astype(np.float32)
    bits = rng.integers(0, 2, (32, 1)).astype(np.float32)
    sparse, accuracy = "sparse_categorical_crossentropy", ["accuracy"]
    nesterov = optimizers.SGD(0.05, momentum=0.8, nesterov=True)
    centered = optimizers.RMSprop(0.01, momentum=0.3, centered=True)
    amsgrad = optimizers.Adam(0.02, amsgrad=True)
    decayed = optimizers.AdamW(0.01, weight_decay=0.05)
    absolute = ["mean_absolute_error"]
    return {
        "sgd": (optimizers.SGD(0.1), "mean_squared_error", absolute, 2, "linear", numbers),
        "momentum": (optimizers.SGD(0.05, momentum=0.9), sparse, accuracy, 3, "softmax", labels),
        "nesterov": (nesterov, "mean_absolute_error", ["mean_squared_error"], 2, "linear", numbers),
        "rmsprop": (optimizers.RMSprop(0.005), "binary_crossentropy", accuracy, 1, "sigmoid", bits),
        "rmsprop_centered": (centered, "binary_crossentropy", accuracy, 1, "sigmoid", bits),
        "adam": (optimizers.Adam(0.01), "categorical_crossentropy", accuracy, 3, "softmax", one_hot),
        "adam_amsgrad": (amsgrad, "mean_squared_error", absolute, 2, "linear", numbers),
        "adamw": (decayed, sparse, accuracy, 3, "softmax", labels),
    }


def main() -> None:
    layers = keras.layers
    rng = np.random.default_rng(20)
    keras.utils.set_random_seed(20)
    x = rng.normal(size=(32, 4, 3)).astype(np.float32)
    arrays: dict[str, Any] = {"x": x}
    told: dict[str, Any] = {}
    for case, (optimizer, loss, metrics, units, activation, y) in cases(rng).items():
        keras.backend.clear_session()
        stack = [keras.Input((4, 3)), layers.Flatten(), layers.Dense(6), layers.Activation("relu")]
        stack += [layers.Dropout(0.0), layers.Dense(units, activation=activation)]
        model = keras.Sequential(stack)
        model.compile(optimizer=optimizer, loss=loss, metrics=metrics)
        model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
        model.save(HERE / f"keras_{case}.h5")
        arrays |= {f"{case}_y": y, f"{case}_predictions": model.predict(x, verbose=0)}
        iteration = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0).history
        arrays[f"{case}_after"] = model.predict(x, verbose=0)
        named = {"loss": loss, "optimizer": type(optimizer).__name__, "iteration": iteration}
        told[case] = {**named, "losses": history.pop("loss"), "metrics": history}
    keras.backend.clear_session()
    stack = [keras.Input((4, 3)), layers.Dense(5, activation="elu"), layers.Flatten()]
    for activation in ("leaky_relu", "tanh", "softplus", "gelu", "silu", "sigmoid", "softmax"):
        stack += [layers.Dense(4, activation=activation, use_bias=activation != "tanh")]
    model = keras.Sequential([*stack[:5], layers.Dropout(0.3), *stack[5:]], name="kinds")
    model.save(HERE / "keras_kinds.h5")
    arrays["kinds_predictions"] = model.predict(x, verbose=0)
    np.savez_compressed(HERE / "keras_h5.npz", **arrays)
    told = {"keras": keras.__version__, "batch_size": BATCH, "epochs": EPOCHS, "cases": told}
    (HERE / "keras_h5.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
