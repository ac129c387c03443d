"""What Keras makes of averages of the weights: optimizers with `use_ema=True`, and `SwapEMAWeights`. Keras 3.15.1.

::

    KERAS_BACKEND=torch python tests/data/make_keras_ema.py

`keras_ema.json`: `x`, `y`, `xv`, `yv`, `batch_size`, `epochs`, and `cases`: `optimizer`, `momentum`, `swap_on_epoch`,
`first` (the weights before), `last` (the weights after `fit`), `val_loss` (of each epoch), `seen` (the weights that a
callback behind `SwapEMAWeights` finds in the model at the end of each epoch), and `plain`, the last weights without
an average.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

BATCH, EPOCHS = 4, 3


def made(name: str, **ema: Any) -> Any:
    return keras.optimizers.Adam(0.05, **ema) if name == "adam" else keras.optimizers.SGD(0.1, momentum=0.9, **ema)


def weights(model: Any) -> list[Any]:
    return [w.tolist() for w in model.get_weights()]


def main() -> None:
    rng = np.random.default_rng(5)
    x, y, xv, yv = (rng.normal(size=size).astype(np.float32) for size in ((14, 3), (14, 2), (6, 3), (6, 2)))
    how: dict[str, Any] = {
        "batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0, "validation_data": (xv, yv)
    }  # fmt: skip
    cases = []
    for optimizer, momentum, swap in [
        ("adam", 0.9, False), ("adam", 0.9, True), ("sgd", 0.99, False), ("sgd", 0.5, True), ("sgd", 0.0, False),
        ("adam", 1.0, False),
    ]:  # fmt: skip
        keras.utils.set_random_seed(8)
        layers = keras.layers
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="tanh"), layers.Dense(2)])
        first = model.get_weights()
        seen: list[Any] = []
        sees = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs, m=model, s=seen: s.append(weights(m)))
        model.compile(made(optimizer, use_ema=True, ema_momentum=momentum), "mse")
        callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=swap), sees]
        history = model.fit(x, y, callbacks=callbacks, **how)
        case = {"optimizer": optimizer, "momentum": momentum, "swap_on_epoch": swap, "seen": seen}
        case |= {"first": [w.tolist() for w in first], "last": weights(model), "val_loss": history.history["val_loss"]}
        model.set_weights(first)
        model.compile(made(optimizer), "mse")
        model.fit(x, y, **how)
        cases.append({**case, "plain": weights(model)})
    data = {"x": x.tolist(), "y": y.tolist(), "xv": xv.tolist(), "yv": yv.tolist(), "batch_size": BATCH}
    told = {"keras": keras.__version__, **data, "epochs": EPOCHS, "cases": cases}
    Path(__file__).with_name("keras_ema.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
