"""Makes `keras_optimizers.npz` and `keras_optimizer_*.h5`: what Keras 3.15.1 computes with each optimizer.

::

    KERAS_BACKEND=torch python tests/data/make_keras_optimizers.py

`keras_optimizers.npz`: `x` (20, 5), `y` (20, 2), `told` (JSON: by case `class_name`, `settings`, `losses` of three
epochs in batches of 8, without shuffling, `config`, and `variables`, the optimizer's as paths and shapes),
`<case>/before/<i>`, `<case>/after/<i>` (weights), `<case>/optimizer/<i>` (its variables).

`keras_optimizer_<case>.h5`: the trained model of some cases as `model.save` writes it, and in the npz
`<case>/onward/<i>`, the weights after another epoch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adamax": ("Adamax", {"learning_rate": 0.02}),
    "nadam": ("Nadam", {"learning_rate": 0.02, "beta_1": 0.8}),
    "adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "adagrad_zero": ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.0}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-4}),
    "lion": ("Lion", {"learning_rate": 0.01}),
    "ftrl": ("Ftrl", {"learning_rate": 0.1}),
    "ftrl_regularized": (
        "Ftrl",
        {"learning_rate": 0.1, "learning_rate_power": -0.7, "initial_accumulator_value": 0.2, "beta": 0.1,
         "l1_regularization_strength": 0.01, "l2_regularization_strength": 0.02,
         "l2_shrinkage_regularization_strength": 0.03},
    ),
    "clipnorm": ("Adam", {"learning_rate": 0.02, "clipnorm": 0.2}),
    "clipvalue": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "clipvalue": 0.05}),
    "global_clipnorm": ("RMSprop", {"learning_rate": 0.01, "global_clipnorm": 0.3}),
    "weight_decay": ("Nadam", {"learning_rate": 0.02, "weight_decay": 0.1}),
    "spared": ("AdamW", {"learning_rate": 0.02, "weight_decay": 0.5}),
    "ema": ("Adam", {"learning_rate": 0.05, "use_ema": True, "ema_momentum": 0.7}),
    "ema_overwritten": (
        "SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 2}
    ),
    "accumulated": ("Adam", {"learning_rate": 0.05, "gradient_accumulation_steps": 2, "weight_decay": 0.1}),
    "everything": (
        "Nadam",
        {"learning_rate": 0.05, "gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.6,
         "ema_overwrite_frequency": 3, "global_clipnorm": 0.5, "weight_decay": 0.05},
    ),
}  # fmt: skip
FILES = ("adamax", "nadam", "adagrad", "adadelta", "lion", "ftrl_regularized", "clipnorm", "ema", "everything")


def main() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 5)).astype(np.float32), rng.normal(size=(20, 2)).astype(np.float32)
    arrays: dict[str, Any] = {"x": x, "y": y}
    told = {}
    for case, (name, settings) in CASES.items():
        keras.backend.clear_session()
        keras.utils.set_random_seed(7)
        dense = keras.layers.Dense
        model = keras.Sequential([keras.Input((5,)), dense(6, activation="tanh"), dense(2, bias_initializer="uniform")])
        optimizer = getattr(keras.optimizers, name)(**settings)
        if case == "spared":
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        model.compile(optimizer, "mse")

        def keep(what: str, values: Any, case: str = case) -> None:
            arrays.update({f"{case}/{what}/{i}": value for i, value in enumerate(values)})

        keep("before", model.get_weights())
        how = {"batch_size": 8, "shuffle": False, "verbose": 0}
        losses = model.fit(x, y, epochs=3, **how).history["loss"]
        keep("after", model.get_weights())
        keep("optimizer", [keras.ops.convert_to_numpy(v) for v in optimizer.variables])
        told[case] = {"class_name": name, "settings": settings, "losses": losses, "config": optimizer.get_config()}
        told[case]["variables"] = [[v.path, list(v.shape)] for v in optimizer.variables]
        if case in FILES:
            model.save(HERE / f"keras_optimizer_{case}.h5")
            model.fit(x, y, epochs=1, **how)
            keep("onward", model.get_weights())
    arrays["told"] = np.array(json.dumps(told))
    np.savez_compressed(HERE / "keras_optimizers.npz", **arrays)


if __name__ == "__main__":
    main()
