"""Makes `keras_fit.json`: what Keras's `fit` and `evaluate` report for one small network. Keras 3.15.1 made it.

::

    KERAS_BACKEND=torch python tests/data/make_keras_fit.py

The file holds `keras` (the version), `x`, `xv` (inputs, for validation), `kinds` and `cases`. `kinds`, by name: `loss`,
`metrics`, `optimizer` (`{"class_name", "config"}`), `units` and `activation` of the last layer, `weights` (the initial
ones, in the order of `get_weights`), `y`, `yv` (targets). `cases`, by name: `kind`, `fit` (the keywords; "weights" and
"validation" stand for one weight a row and for `(xv, yv)`), `history` (one value an epoch), and `evaluate` (after it,
on `xv`, `yv`, in batches of 7, as a dict). All with `shuffle=False`. The network is
Dense(5, tanh), Dense(units, activation) on 4 features.
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
    "plain": ("regression", {"epochs": 3, "batch_size": 8}),
    "default_batches": ("binary", {"epochs": 2}),
    "validation_split": ("regression", {"epochs": 3, "batch_size": 8, "validation_split": 0.3}),
    "validation_data": ("sparse", {"epochs": 3, "batch_size": 8, "validation_data": "validation"}),
    "validation_batches": (
        "binary",
        {
            "epochs": 3,
            "batch_size": 8,
            "validation_data": "validation",
            "validation_batch_size": 3,
            "validation_steps": 2,
        },
    ),
    "validation_freq": (
        "regression",
        {"epochs": 5, "batch_size": 8, "validation_data": "validation", "validation_freq": 2},
    ),
    "validation_epochs": (
        "binary",
        {"epochs": 4, "batch_size": 8, "validation_split": 0.2, "validation_freq": [1, 4]},
    ),
    "class_weight": ("sparse", {"epochs": 3, "batch_size": 8, "class_weight": {"0": 1.0, "1": 5.0, "2": 0.5}}),
    "class_weight_one_hot": ("one_hot", {"epochs": 3, "batch_size": 8, "class_weight": {"0": 2.0, "2": 0.25}}),
    "sample_weight": ("regression", {"epochs": 3, "batch_size": 8, "sample_weight": "weights"}),
    "sample_weight_and_split": (
        "binary",
        {"epochs": 3, "batch_size": 8, "sample_weight": "weights", "validation_split": 0.25},
    ),
    "initial_epoch": ("one_hot", {"epochs": 5, "batch_size": 8, "initial_epoch": 3}),
    "steps_per_epoch": ("regression", {"epochs": 3, "batch_size": 10, "steps_per_epoch": 2}),
}


def kinds(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    labels = [rng.integers(0, 3, n) for n in (60, 20)]
    bits = [rng.integers(0, 2, (n, 1)) for n in (60, 20)]
    numbers = [rng.normal(size=(n, 2)).astype(np.float32) for n in (60, 20)]
    found: dict[str, tuple[str, list[str], Any, int, str, list[Any]]] = {
        "regression": ("mean_squared_error", ["mean_absolute_error"], keras.optimizers.SGD(0.1, momentum=0.9), 2,
                       "linear", numbers),
        "binary": ("binary_crossentropy", ["accuracy"], keras.optimizers.RMSprop(0.01), 1, "sigmoid", bits),
        "sparse": ("sparse_categorical_crossentropy", ["accuracy"], keras.optimizers.Adam(0.02), 3, "softmax", labels),
        "one_hot": ("categorical_crossentropy", [], keras.optimizers.AdamW(0.02), 3, "softmax",
                    [np.eye(3)[n] for n in labels]),
    }  # fmt: skip
    return {
        name: {
            "loss": loss,
            "metrics": metrics,
            "optimizer": {"class_name": type(optimizer).__name__, "config": optimizer.get_config()},
            "units": units,
            "activation": activation,
            "y": ys[0].tolist(),
            "yv": ys[1].tolist(),
        }
        for name, (loss, metrics, optimizer, units, activation, ys) in found.items()
    }


def main() -> None:
    rng = np.random.default_rng(31)
    keras.utils.set_random_seed(31)
    x, xv = (rng.normal(size=(n, 4)).astype(np.float32).round(3) for n in (60, 20))
    weights = rng.uniform(0.1, 3.0, 60).astype(np.float32).round(3)
    all_kinds = kinds(rng)
    cases = {}
    for case, (kind, given) in CASES.items():
        keras.backend.clear_session()
        of = all_kinds[kind]
        y, yv = np.array(of["y"]), np.array(of["yv"])
        dense = keras.layers.Dense
        model = keras.Sequential(
            [keras.Input((4,)), dense(5, activation="tanh"), dense(of["units"], activation=of["activation"])]
        )
        if "weights" in of:
            model.set_weights([np.array(w, np.float32) for w in of["weights"]])
        else:
            of["weights"] = [w.tolist() for w in model.get_weights()]
        model.compile(
            optimizer=keras.optimizers.deserialize(of["optimizer"]), loss=of["loss"], metrics=list(of["metrics"])
        )
        how = {**given}
        how |= {"sample_weight": weights} if "sample_weight" in given else {}
        how |= {"validation_data": (xv, yv)} if "validation_data" in given else {}
        if "class_weight" in given:
            how["class_weight"] = {int(c): w for c, w in given["class_weight"].items()}
        history = model.fit(x, y, shuffle=False, verbose=0, **how).history
        told = model.evaluate(xv, yv, batch_size=7, verbose=0, return_dict=True)
        cases[case] = {"kind": kind, "fit": given, "history": history, "evaluate": told}
    for of in all_kinds.values():
        of["optimizer"]["config"].pop("name")
    out = {"keras": keras.__version__, "x": x.tolist(), "xv": xv.tolist(), "weights": weights.tolist()}
    (HERE / "keras_fit.json").write_text(json.dumps({**out, "kinds": all_kinds, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
