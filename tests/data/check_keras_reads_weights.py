"""Does Keras load a weights file of ours, predict the same and train on with the same losses? Needs Keras.

::

    KERAS_BACKEND=torch python tests/data/check_keras_reads_weights.py m.weights.h5 expected.json

`expected.json` holds `case` and all that `keras_weights.json` says of it. The model is that of
`make_keras_weights.py`, with other weights at first. Exit status 1 if anything differs by more than 1e-5.
"""

from __future__ import annotations

import json
import sys
import warnings

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from make_keras_weights import model  # type: ignore[import-not-found,unused-ignore]

__all__ = ["main"]


def main(path: str, expected: str) -> int:
    warnings.simplefilter("error", UserWarning)  # Keras warns of what it leaves out
    with open(expected) as file:
        want = json.load(file)
    x, y = np.array(want["x"], np.float32), np.array(want["y"], np.float32)
    made, losses = model(), want.get("losses")
    if losses:
        optimizers = {"adam": keras.optimizers.Adam(), "momentum": keras.optimizers.SGD(momentum=0.9)}
        made.compile(optimizers[want["case"]], "mse")
        made.optimizer.build(made.trainable_variables)
    made.load_weights(path)
    pairs = [("predictions", made.predict(x, verbose=0), want["predictions"])]
    if losses:
        pairs.append(("iteration", keras.ops.convert_to_numpy(made.optimizer.iterations), want["iteration"]))
        history = made.fit(x, y, batch_size=want["batch_size"], epochs=len(losses), shuffle=False, verbose=0)
        pairs.append(("losses", history.history["loss"], losses))
    worst = 0.0
    for what, got, wanted in pairs:
        gap = float(np.max(np.abs(np.array(got, float) - np.array(wanted, float))))
        print(f"{what}: largest difference {gap:.3g}")
        worst = max(worst, gap)
    return int(not worst <= 1e-5)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
