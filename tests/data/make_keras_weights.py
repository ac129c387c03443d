"""Makes the reference files of weights alone that Keras wrote. Keras 3.15.1 made these.

::

    KERAS_BACKEND=torch python tests/data/make_keras_weights.py

`keras_adam.weights.h5`, `keras_momentum.weights.h5`
    The weights of `model()`, compiled and trained for a few steps, as `model.save_weights` writes them.
`keras_plain.weights.h5`
    Those of the same layers, never compiled.
`keras_weights.json`
    `x` (16, 2, 3), `y`; under `cases` for each file `predictions`, and for those that were trained `iteration` and
    `losses`: one value an epoch, when training goes on with that batch size and `shuffle=False`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent
BATCH, EPOCHS = 4, 3


def model() -> Any:
    layers = keras.layers
    stack = [keras.Input((2, 3)), layers.Flatten(), layers.Dense(5, activation="tanh", name="first"), layers.Dropout(0)]
    stack += [layers.Dense(4, use_bias=False), layers.Activation("relu"), layers.Dense(2, name="head")]
    return keras.Sequential(stack, name="weighty")


def main() -> None:
    rng = np.random.default_rng(31)
    keras.utils.set_random_seed(31)
    x, y = rng.normal(size=(16, 2, 3)).astype(np.float32), rng.normal(size=(16, 2)).astype(np.float32)
    told: dict[str, Any] = {}
    optimizers = {"adam": keras.optimizers.Adam(0.02), "momentum": keras.optimizers.SGD(0.05, momentum=0.9)}
    for case, optimizer in {**optimizers, "plain": None}.items():
        keras.backend.clear_session()
        made = model()
        how: dict[str, Any] = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
        if optimizer is not None:
            made.compile(optimizer, "mse")
            made.fit(x, y, epochs=2, **how)
        made.save_weights(HERE / f"keras_{case}.weights.h5")
        told[case] = {"predictions": made.predict(x, verbose=0).tolist()}
        if optimizer is not None:
            told[case]["iteration"] = int(keras.ops.convert_to_numpy(optimizer.iterations))
            told[case]["losses"] = made.fit(x, y, epochs=EPOCHS, **how).history["loss"]
    reference = {"keras": keras.__version__, "x": x.tolist(), "y": y.tolist(), "batch_size": BATCH, "cases": told}
    (HERE / "keras_weights.json").write_text(json.dumps(reference) + "\n")


if __name__ == "__main__":
    main()
