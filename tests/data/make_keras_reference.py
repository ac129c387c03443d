"""Makes `keras_reference.npz`: what Keras 3 computes, for the parity tests. Needs Keras 3.15; not run in CI.

`KERAS_BACKEND=torch python tests/data/make_keras_reference.py`

Each case trains a small model for three epochs without shuffling, 20 samples in batches of 8 (the last one has 4),
and keeps: initial weights, losses and metrics by epoch, final weights, predictions, optimizer variables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"class": "SGD", "learning_rate": 0.1},
    "momentum": {"class": "SGD", "learning_rate": 0.05, "momentum": 0.9},
    "nesterov": {"class": "SGD", "learning_rate": 0.05, "momentum": 0.8, "nesterov": True},
    "rmsprop": {"class": "RMSprop", "learning_rate": 0.01},
    "rmsprop_momentum": {"class": "RMSprop", "learning_rate": 0.01, "rho": 0.8, "momentum": 0.5},
    "rmsprop_centered": {"class": "RMSprop", "learning_rate": 0.01, "momentum": 0.5, "centered": True},
    "adam": {"class": "Adam", "learning_rate": 0.02},
    "adamw": {"class": "AdamW", "learning_rate": 0.02, "weight_decay": 0.1},
}
LOSSES: dict[str, tuple[str, dict[str, Any], str, int, str]] = {
    # loss, settings, last activation, units, kind of target
    "mse": ("MeanSquaredError", {}, "linear", 2, "numbers"),
    "mae": ("MeanAbsoluteError", {}, "linear", 2, "numbers"),
    "mse_tanh": ("MeanSquaredError", {}, "tanh", 1, "flat"),
    "mse_softmax": ("MeanSquaredError", {}, "softmax", 3, "onehot"),
    "bce": ("BinaryCrossentropy", {}, "sigmoid", 1, "flat01"),
    "bce_column": ("BinaryCrossentropy", {}, "sigmoid", 1, "bits"),
    "bce_many": ("BinaryCrossentropy", {}, "sigmoid", 3, "bits"),
    "bce_soft": ("BinaryCrossentropy", {"label_smoothing": 0.2}, "sigmoid", 2, "shares"),
    "bce_logits": ("BinaryCrossentropy", {"from_logits": True}, "linear", 1, "bits"),
    "bce_softmax": ("BinaryCrossentropy", {}, "softmax", 3, "onehot"),
    "cce": ("CategoricalCrossentropy", {}, "softmax", 3, "onehot"),
    "cce_smooth": ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "softmax", 3, "onehot"),
    "cce_logits": ("CategoricalCrossentropy", {"from_logits": True}, "linear", 3, "onehot"),
    "cce_sigmoid": ("CategoricalCrossentropy", {}, "sigmoid", 3, "onehot"),
    "scce": ("SparseCategoricalCrossentropy", {}, "softmax", 3, "labels"),
    "scce_column": ("SparseCategoricalCrossentropy", {}, "softmax", 3, "labels_column"),
    "scce_logits": ("SparseCategoricalCrossentropy", {"from_logits": True}, "linear", 3, "labels"),
    "scce_sigmoid": ("SparseCategoricalCrossentropy", {}, "sigmoid", 3, "labels"),
}
ACTIVATIONS = (
    "linear", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softmax", "softplus", "gelu", "silu"
)  # fmt: skip


def targets(kind: str, units: int, rng: np.random.Generator, rows: int) -> np.ndarray[Any, Any]:
    labels = rng.integers(0, max(units, 2), rows)
    made = {
        "numbers": rng.standard_normal((rows, units)),
        "flat": rng.standard_normal(rows),
        "flat01": labels,
        "bits": rng.integers(0, 2, (rows, units)),
        "shares": rng.random((rows, units)),
        "onehot": np.eye(max(units, 2))[labels],
        "labels": labels,
        "labels_column": labels[:, None],
    }[kind]
    return made.astype(np.int64 if "labels" in kind else np.float32)


def cases() -> list[dict[str, Any]]:
    base = {"optimizer": "sgd", "loss": "mse", "hidden": "relu", "weighted": False, "shape": [5]}
    found = [base | {"optimizer": name} for name in OPTIMIZERS]
    found += [base | {"optimizer": name, "loss": "bce", "weighted": True, "hidden": "tanh"} for name in OPTIMIZERS]
    found += [base | {"loss": name, "weighted": weighted} for name in LOSSES for weighted in (False, True)]
    found += [base | {"hidden": name} for name in ACTIVATIONS]
    found += [base | {"shape": [2, 3]}, base | {"shape": [4, 3], "sequence": True}]
    return found


def main() -> None:
    arrays: dict[str, Any] = {}
    described = []
    for number, case in enumerate(cases()):
        keras.utils.set_random_seed(number)
        rng = np.random.default_rng(number)
        loss, settings, last, units, kind = LOSSES[case["loss"]]
        optimizer = dict(OPTIMIZERS[case["optimizer"]])
        body = [keras.Input(case["shape"])]
        if case.get("sequence"):
            body += [keras.layers.Dense(4, activation=case["hidden"]), keras.layers.Flatten()]
        elif len(case["shape"]) > 1:
            body += [keras.layers.Flatten()]
        body += [
            keras.layers.Dense(6, activation=case["hidden"], bias_initializer="uniform"),
            keras.layers.Dense(4, use_bias=False),
            keras.layers.Activation("tanh"),
            keras.layers.Dense(units, activation=last),
        ]
        model = keras.Sequential(body)
        metrics = ["mae", "mse"] if kind in ("numbers", "flat") else ["accuracy"]
        model.compile(
            getattr(keras.optimizers, optimizer.pop("class"))(**optimizer),
            getattr(keras.losses, loss)(**settings),
            metrics=metrics,
        )
        x = rng.standard_normal((20, *case["shape"])).astype(np.float32)
        y = targets(kind, units, rng, 20)
        w = rng.random(20).astype(np.float32) * 2 if case["weighted"] else None
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{number}/before/{i}"] = weight
        history = model.fit(x, y, sample_weight=w, batch_size=8, epochs=3, shuffle=False, verbose=0).history
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{number}/after/{i}"] = weight
        for i, variable in enumerate(model.optimizer.variables):
            arrays[f"{number}/optimizer/{i}"] = keras.ops.convert_to_numpy(variable)
        arrays |= {f"{number}/x": x, f"{number}/y": y, f"{number}/predictions": model.predict(x, verbose=0)}
        if w is not None:
            arrays[f"{number}/w"] = w
        evaluated = model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0, return_dict=True)
        described.append(
            case
            | {"metrics": metrics, "history": history, "evaluated": evaluated, "units": units, "last": last}
            | {"loss_class": loss, "loss_settings": settings, "optimizer_settings": OPTIMIZERS[case["optimizer"]]}
            | {"config": model.get_config(), "slots": [v.path for v in model.optimizer.variables]}
        )
    arrays["cases"] = np.array(json.dumps(described))
    np.savez_compressed(Path(__file__).with_name("keras_reference.npz"), **arrays)


if __name__ == "__main__":
    main()
