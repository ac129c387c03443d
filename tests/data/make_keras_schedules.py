"""Makes `keras_schedules.json` and `keras_schedule_*.h5`: rates and trainings of Keras 3.15.1's schedules.

::

    KERAS_BACKEND=torch python tests/data/make_keras_schedules.py

`keras_schedules.json`: `steps`; `rates`: `[class, settings, one rate a step]`; `x`, `y`; `trained` by case:
`optimizer`, `settings`, `schedule` (class and settings), `before`, `after` (weights), `losses` of three epochs in
batches of 4, without shuffling, `rate` (at their end), `onward` (the weights after another epoch).
`keras_schedule_<case>.h5` is the model after the three epochs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent
STEPS = [*range(41), 77, 99, 100, 101, 149, 150, 151, 299, 300, 301, 699, 700, 701, 1000, 12345]
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 30, "decay_rate": 0.9}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [3, 10, 100], "values": [0.5, 0.25, 0.1, 0.01]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.2, "decay_steps": 100}),
    ("PolynomialDecay", {"initial_learning_rate": 0.2, "decay_steps": 25, "end_learning_rate": 0.01, "power": 2.0}),
    ("PolynomialDecay", {"initial_learning_rate": 0.2, "decay_steps": 15, "power": 0.5, "cycle": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 9, "decay_rate": 0.7}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 9, "decay_rate": 0.7, "staircase": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 150}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 100, "alpha": 0.1}),
    ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 90, "warmup_target": 0.2, "warmup_steps": 10}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 90, "warmup_target": 0.2, "alpha": 0.2}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 100}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.0, "m_mul": 0.9}),
    (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.5, "m_mul": 0.8, "alpha": 0.05},
    ),
]
TRAINED: dict[str, tuple[str, dict[str, Any], int]] = {
    "exponential": ("SGD", {"momentum": 0.9, "weight_decay": 0.05}, 1),
    "warm": ("Adam", {}, 10),
    "gathered": ("RMSprop", {"gradient_accumulation_steps": 2}, 2),
}


def made(number: int) -> Any:
    name, settings = SCHEDULES[number]
    return getattr(keras.optimizers.schedules, name)(**settings)


def main() -> None:
    rates = [
        [name, settings, [float(keras.ops.convert_to_numpy(made(number)(step))) for step in STEPS]]
        for number, (name, settings) in enumerate(SCHEDULES)
    ]
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(18, 3)).astype(np.float32), rng.normal(size=(18, 2)).astype(np.float32)
    trained = {}
    for case, (optimizer, settings, number) in TRAINED.items():
        keras.backend.clear_session()
        keras.utils.set_random_seed(9)
        dense = keras.layers.Dense
        model = keras.Sequential([keras.Input((3,)), dense(4, activation="tanh"), dense(2)])
        model.compile(getattr(keras.optimizers, optimizer)(learning_rate=made(number), **settings), "mse")
        before = [w.tolist() for w in model.get_weights()]
        how = {"batch_size": 4, "shuffle": False, "verbose": 0}
        history = model.fit(x, y, epochs=3, **how).history
        after = [w.tolist() for w in model.get_weights()]
        model.save(HERE / f"keras_schedule_{case}.h5")
        at_the_end = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        model.fit(x, y, epochs=1, **how)
        trained[case] = {
            "optimizer": optimizer, "settings": settings, "schedule": SCHEDULES[number], "before": before,
            "after": after, "losses": history["loss"], "rate": at_the_end,
            "onward": [w.tolist() for w in model.get_weights()],
        }  # fmt: skip
    told = {"steps": STEPS, "rates": rates, "x": x.tolist(), "y": y.tolist(), "trained": trained}
    (HERE / "keras_schedules.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
