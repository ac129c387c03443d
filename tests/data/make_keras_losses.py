"""Makes `keras_losses.npz`: what Keras 3.15.1 computes with each loss and reduction. Not run in CI.

`KERAS_BACKEND=torch python tests/data/make_keras_losses.py`

Each case trains a small model for two epochs without shuffling, 20 samples in batches of 8 (the last one has 4), and
keeps: targets, sample weights, initial weights, losses by epoch, final weights, predictions. `values` are all arrays
behind each other, of the shapes that `told` has in this order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

CASES: list[tuple[str, dict[str, Any], str, int, str]] = [
    ("MeanAbsolutePercentageError", {}, "linear", 2, "numbers"),
    ("MeanSquaredLogarithmicError", {}, "softplus", 2, "counts"),
    ("Huber", {}, "linear", 2, "numbers"),
    ("Huber", {"delta": 0.3}, "linear", 1, "flat"),
    ("LogCosh", {}, "linear", 2, "numbers"),
    ("CosineSimilarity", {}, "linear", 3, "numbers"),
    ("Poisson", {}, "softplus", 2, "counts"),
    ("KLDivergence", {}, "softmax", 3, "shares"),
    ("Hinge", {}, "tanh", 1, "flat01"),
    ("Hinge", {}, "linear", 3, "signs"),
    ("SquaredHinge", {}, "linear", 2, "bits"),
    ("CategoricalHinge", {}, "linear", 3, "onehot"),
    ("BinaryFocalCrossentropy", {}, "sigmoid", 1, "bits"),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.4, "gamma": 3.0}, "sigmoid", 3, "bits"),
    ("BinaryFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.2, "gamma": 1.5}, "linear", 2, "bits"),
    ("CategoricalFocalCrossentropy", {}, "softmax", 3, "onehot"),
    ("CategoricalFocalCrossentropy", {"alpha": [0.2, 0.5, 0.9], "label_smoothing": 0.1}, "softmax", 3, "onehot"),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "gamma": 1.5}, "linear", 3, "onehot"),
    ("CategoricalFocalCrossentropy", {}, "sigmoid", 3, "onehot"),
    ("Dice", {}, "sigmoid", 3, "bits"),
    ("Dice", {"axis": 1}, "sigmoid", 3, "bits"),
    ("Tversky", {}, "sigmoid", 3, "bits"),
    ("Tversky", {"alpha": 0.3, "beta": 0.8, "axis": 1}, "sigmoid", 3, "bits"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1}, "softmax", 3, "labels"),
    ("SparseCategoricalCrossentropy", {"ignore_class": -1, "from_logits": True}, "linear", 3, "some labels"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1, "reduction": "sum"}, "softmax", 3, "labels"),
    *(
        (name, {"reduction": reduction} | more, last, units, kind)
        for reduction in ("sum", "mean", "mean_with_sample_weight")
        for name, more, last, units, kind in (
            ("MeanSquaredError", {}, "linear", 2, "numbers"),
            ("BinaryCrossentropy", {}, "sigmoid", 1, "bits"),
            ("CategoricalCrossentropy", {"from_logits": True}, "linear", 3, "onehot"),
            ("Dice", {}, "sigmoid", 3, "bits"),
            ("Tversky", {"axis": [1]}, "sigmoid", 3, "bits"),
        )
    ),
]
X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


def targets(kind: str, units: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    labels = rng.integers(0, max(units, 2), 20)
    made: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
        "numbers": lambda: rng.standard_normal((20, units)).astype(np.float32),
        "counts": lambda: rng.integers(0, 5, (20, units)).astype(np.float32),
        "flat": lambda: rng.standard_normal(20).astype(np.float32),
        "flat01": lambda: labels.astype(np.float32)[:, None],
        "bits": lambda: rng.integers(0, 2, (20, units)).astype(np.float32),
        "signs": lambda: rng.integers(0, 2, (20, units)).astype(np.float32) * 2 - 1,
        "shares": lambda: rng.dirichlet(np.ones(units), 20).astype(np.float32),
        "onehot": lambda: np.eye(units, dtype=np.float32)[labels],
        "labels": lambda: labels,
        "some labels": lambda: np.where(rng.random(20) < 0.3, -1, labels),
    }
    return made[kind]()


def main() -> None:
    arrays: dict[str, Any] = {}
    described = []
    for index, (name, settings, last, units, kind) in enumerate(CASES):
        for weighted in (False, True):
            number = 2 * index + weighted
            keras.utils.set_random_seed(number)
            rng = np.random.default_rng(number)
            model = keras.Sequential(
                [keras.Input([3]), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(units, activation=last)]
            )
            given = {key: tuple(v) if key == "axis" and isinstance(v, list) else v for key, v in settings.items()}
            loss = getattr(keras.losses, name)(**given)
            rate = 0.002 if settings.get("reduction") == "sum" or "Percentage" in name else 0.05
            model.compile(keras.optimizers.SGD(rate), loss)
            x, y = X, targets(kind, units, rng)
            w = rng.random(20).astype(np.float32) * 2 if weighted else None
            for i, weight in enumerate(model.get_weights()):
                arrays[f"{number}/before/{i}"] = weight
            history = model.fit(x, y, sample_weight=w, batch_size=8, epochs=2, shuffle=False, verbose=0).history
            for i, weight in enumerate(model.get_weights()):
                arrays[f"{number}/after/{i}"] = weight
            arrays |= {f"{number}/y": y, f"{number}/predictions": model.predict(x, verbose=0)}
            if w is not None:
                arrays[f"{number}/w"] = w
            evaluated = model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0)
            described.append(
                {"loss": name, "settings": settings, "last": last, "units": units, "rate": rate}
                | {"losses": history["loss"], "evaluated": evaluated, "config": loss.get_config()}
            )
    names = {name: np.shape(array) for name, array in arrays.items()}
    values = np.concatenate([np.ravel(array).astype(np.float32) for array in arrays.values()])
    told = np.array(json.dumps({"cases": described, "shapes": names}))
    np.savez_compressed(Path(__file__).with_name("keras_losses.npz"), told=told, values=values, x=X)


if __name__ == "__main__":
    main()
