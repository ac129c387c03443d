"""Makes `keras_tensorboard.json`: what Keras's `TensorBoard` writes. Keras 3.15.1 on TensorFlow 2.21 made it.

::

    KERAS_BACKEND=tensorflow python tests/data/make_keras_tensorboard.py

The file holds `keras`, `tensorflow` (the versions), `x`, `y` (all in batches of 4, not shuffled, the last four rows
for validation), `weights` (the initial ones) and `cases`: `settings` of the callback, and `written`: for each summary
`folder`, `step`, `tag`, `plugin`, `dtype`, `shape` and `values` (null where they are times). The network is
Dense(3, tanh), Dense(1) on 2 features, with SGD(0.1), mean squared error and the metric mae, for three epochs.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent

SETTINGS: list[dict[str, Any]] = [
    {},
    {"histogram_freq": 2},
    {"update_freq": "batch", "write_steps_per_second": True},
    {"update_freq": 3},
]


def main() -> None:
    import keras  # type: ignore[import-not-found,unused-ignore]
    import tensorflow as tf  # type: ignore[import-not-found,unused-ignore]

    rng = np.random.default_rng(3)
    x = rng.normal(size=(16, 2)).astype(np.float32)
    y = (x[:, :1] - 2 * x[:, 1:]).astype(np.float32)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (3,), (3, 1), (1,))]
    cases = []
    for settings in SETTINGS:
        keras.backend.clear_session()
        layers = [keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.layers.Input((2,)), *layers])
        model.set_weights(weights)
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
        with tempfile.TemporaryDirectory() as folder:
            board = keras.callbacks.TensorBoard(folder, write_graph=False, **settings)
            how = {"epochs": 3, "batch_size": 4, "shuffle": False, "validation_data": (x[12:], y[12:]), "verbose": 0}
            model.fit(x[:12], y[:12], callbacks=[board], **how)
            written = []
            for path in sorted(Path(folder).rglob("*tfevents*")):
                for event in tf.compat.v1.train.summary_iterator(str(path)):
                    for value in event.summary.value:
                        array = tf.make_ndarray(value.tensor)
                        timed = "per_second" in value.tag
                        written.append(
                            {
                                "folder": path.parent.name,
                                "step": event.step,
                                "tag": value.tag,
                                "plugin": value.metadata.plugin_data.plugin_name,
                                "dtype": str(array.dtype),
                                "shape": array.shape,
                                "values": None if timed else array.ravel().tolist(),
                            }
                        )
        cases.append({"settings": settings, "written": written})
    out = {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "x": x.tolist(),
        "y": y.tolist(),
        "weights": [w.tolist() for w in weights],
        "cases": cases,
    }
    (HERE / "keras_tensorboard.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
