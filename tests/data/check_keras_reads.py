"""Does Keras read a file of ours, predict the same and train on with the same losses? Needs Keras.

::

    KERAS_BACKEND=torch python tests/data/check_keras_reads.py model.h5 [expected.json] [tolerance]

`expected.json` (default: the file's name with `.json` after it) holds `x` and `predictions`, and for training
`y`, `batch_size`, `iteration` and `losses`, one for each epoch that follows, with `shuffle=False`; `state`, all
values of the optimizer, flat, must be the same to the bit. Prints what it compares; the exit status is 1 if anything
differs by more than the tolerance (default 1e-5).

Keras 3.15.1 restores of an HDF5 file's optimizer only the step count and the learning rate,
also from its own files: it builds the optimizer for the model's own variables, of which a Sequential has
none, and `fit` then fails with "Unknown variable". `restored` does what it means to do, from the same groups
in the same order.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import h5py
import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main", "restored"]


def restored(path: str) -> Any:
    """The compiled model in the file, with all of its optimizer's state."""
    model = keras.models.load_model(path)
    with h5py.File(path, "r") as file:
        training = json.loads(file.attrs["training_config"])
        group = file["optimizer_weights"]
        values = [group[name][()] for name in group.attrs["weight_names"]]
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    optimizer.build(model.trainable_variables)
    if [v.shape for v in optimizer.variables] != [v.shape for v in values]:
        raise SystemExit(f"the optimizer needs {[v.path for v in optimizer.variables]}")
    optimizer.set_weights(values)
    loss = training["loss"]  # compile takes a mapping for one by output
    loss = keras.losses.get(loss) if isinstance(loss, dict) else loss
    model.compile(optimizer=optimizer, loss=loss, metrics=training.get("metrics"))
    return model


def main(path: str, expected: str | None = None, tolerance: str = "1e-5") -> int:
    with open(expected or f"{path}.json") as file:
        want = json.load(file)
    x = np.array(want["x"], np.float32)
    plain = keras.models.load_model(path)
    pairs = [("predictions", plain.predict(x, verbose=0), want["predictions"])]
    if "losses" in want:
        model = restored(path)
        counts = [keras.ops.convert_to_numpy(m.optimizer.iterations) for m in (plain, model)]
        pairs += [("iteration", counts, [want["iteration"]] * 2)]
        if "state" in want:
            flat = [keras.ops.convert_to_numpy(v).ravel() for v in model.optimizer.variables]
            same = np.concatenate(flat).astype(float).tolist() == want["state"]
            print(f"state of the optimizer: {'the same' if same else 'another'}")
            if not same:
                return 1
        settings = {
            "batch_size": want["batch_size"],
            "epochs": len(want["losses"]),
            "shuffle": False,
            "verbose": 0,
        }
        history = model.fit(x, np.array(want["y"]), **settings).history
        pairs += [("losses", history["loss"], want["losses"])]
    worst = 0.0
    for what, got, wanted in pairs:
        gap = float(np.max(np.abs(np.array(got, float) - np.array(wanted, float))))
        print(f"{what}: largest difference {gap:.3g}")
        worst = max(worst, gap)
    return int(not worst <= float(tolerance))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
