"""Run in an environment with Keras: reads a model and writes what it reports of the data in a file beside it.

    python check_keras_reads_metrics.py PATH

`PATH.json` has `x`, `y` and `w`; `PATH.found.json` gets what `evaluate` finds.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]


def bias(y_true: Any, y_pred: Any) -> Any:
    """The function of the tests."""
    return keras.ops.mean(y_pred - y_true, axis=-1)


def main(path: str) -> int:
    with open(f"{path}.json") as file:
        data = {name: np.array(value, np.float32) for name, value in json.load(file).items()}
    model = keras.models.load_model(path, custom_objects={"bias": bias})
    found = model.evaluate(data["x"], data["y"], sample_weight=data["w"], batch_size=8, verbose=0, return_dict=True)
    with open(f"{path}.found.json", "w") as file:
        json.dump({"evaluate": found}, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
