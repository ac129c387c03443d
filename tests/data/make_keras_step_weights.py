"""Makes `keras_step_weights.json`: trainings of Keras 3.15.1 in which each step of a sequence has a weight.

::

    KERAS_BACKEND=torch python tests/data/make_keras_step_weights.py

With a mask Keras's backends disagree on weighted metrics: on torch the loss multiplies the mask, scaled, into the
weights in place, which the metrics after it see; on JAX metrics know of no mask. Those figures are no reference.

`x` (12, 5, 3), `labels` (12, 5), `numbers` (12, 5, 2), `weights` (12, 5), and `cases` by name:
`loss`, `units`, `activation`, `target` and `weight` (names of the above), `masked`, `before`, `after` (weights of the
network), `history` of three epochs in batches of 5 without shuffling, with the first four rows as validation data, and
`evaluated` on all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

CASES: dict[str, tuple[str, int, str, str, str, bool]] = {
    "labels": ("SparseCategoricalCrossentropy", 3, "softmax", "labels", "weights", False),
    "labels_masked": ("SparseCategoricalCrossentropy", 3, "softmax", "labels", "weights", True),
    "numbers": ("MeanSquaredError", 2, "linear", "numbers", "weights", False),
    "huber": ("Huber", 2, "linear", "numbers", "weights", True),
}


def main() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(12, 5, 3)).astype(np.float32)
    x[::3, 3:] = 0  # what Masking leaves out
    data: dict[str, Any] = {
        "labels": rng.integers(0, 3, (12, 5)), "numbers": rng.normal(size=(12, 5, 2)).astype(np.float32),
        "weights": rng.uniform(0, 2, (12, 5)).astype(np.float32),
    }  # fmt: skip
    cases = {}
    for case, (loss, units, activation, target, weight, masked) in CASES.items():
        keras.backend.clear_session()
        keras.utils.set_random_seed(3)
        layers = keras.layers
        stack = [keras.Input((5, 3)), *([layers.Masking()] if masked else [])]
        stack += [layers.SimpleRNN(4, return_sequences=True), layers.TimeDistributed(layers.Dense(units, activation))]
        model = keras.Sequential(stack)
        metrics = ["accuracy"] if target == "labels" else ["mae"]
        sgd = keras.optimizers.SGD(0.1)
        model.compile(sgd, getattr(keras.losses, loss)(), metrics=metrics, weighted_metrics=metrics)
        before, y, w = [v.tolist() for v in model.get_weights()], data[target], data[weight]
        history = model.fit(
            x, y, sample_weight=w, batch_size=5, epochs=3, shuffle=False, verbose=0,
            validation_data=(x[:4], y[:4], w[:4]),
        ).history  # fmt: skip
        cases[case] = {
            "loss": loss, "units": units, "activation": activation, "target": target, "weight": weight,
            "masked": masked, "metrics": metrics, "before": before, "after": [v.tolist() for v in model.get_weights()],
            "history": history,
            "evaluated": model.evaluate(x, y, sample_weight=w, batch_size=5, verbose=0, return_dict=True),
        }  # fmt: skip
    told = {"x": x.tolist(), **{name: value.tolist() for name, value in data.items()}, "cases": cases}
    Path(__file__).with_name("keras_step_weights.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
