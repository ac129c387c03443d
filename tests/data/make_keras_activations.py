"""Makes `keras_activations.npz` and `keras_activations.h5`: Keras 3.15.1's activations and their gradients.

`KERAS_BACKEND=torch python tests/data/make_keras_activations.py`

`x` (12, 6), and `dy`, what the gradient is multiplied by; under the name of each case its value, and under
`<name>/dx` the gradient of Σ y·dy by x (`dy` cut to the shape of y). `cases` tells name and options of each. For the
model in the file, `predictions` is what it predicts for `inputs`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]

HERE = Path(__file__).parent
NAMES = sorted(set(keras.src.activations.ALL_OBJECTS_DICT) - {"threshold"})
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "relu": [
        {"negative_slope": 0.3},
        {"max_value": 1.5},
        {"threshold": 0.7},
        {"negative_slope": 0.2, "max_value": 1.5, "threshold": 0.7},
    ],
    "leaky_relu": [{"negative_slope": 0.05}, {"negative_slope": 1.5}],
    "elu": [{"alpha": 0.4}],
    "celu": [{"alpha": 0.4}],
    "gelu": [{"approximate": True}],
    "squareplus": [{"b": 0.5}],
    "soft_shrink": [{"threshold": 1.1}],
    "hard_shrink": [{"threshold": 1.1}],
    "threshold": [{"threshold": 0.3, "default_value": -2.0}],
    "softmax": [{"axis": 0}],
    "log_softmax": [{"axis": 0}],
    "sparsemax": [{"axis": 0}],
    "glu": [{"axis": 0}],
}


def main() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(scale=2.0, size=(12, 6)).astype(np.float32)
    x[-2:] *= 20
    dy = rng.normal(size=x.shape).astype(np.float32)
    arrays: dict[str, Any] = {"x": x, "dy": dy}
    cases: dict[str, Any] = {name: {"name": name, "options": {}} for name in NAMES}
    for name, several in OPTIONS.items():
        cases |= {f"{name} {options}": {"name": name, "options": options} for options in several}
    for case, told in cases.items():
        tensor = torch.tensor(x, requires_grad=True)
        with torch.device(tensor.device):
            y = getattr(keras.activations, told["name"])(tensor, **told["options"])
            (y * torch.tensor(dy)[tuple(slice(size) for size in y.shape)]).sum().backward()
        arrays[case], arrays[f"{case}/dx"] = y.detach().numpy(), tensor.grad.numpy()
    keras.utils.set_random_seed(4)
    stack = [keras.layers.Dense(4, activation="selu"), keras.layers.Activation("mish")]
    stack += [keras.layers.Dense(4, activation=keras.layers.LeakyReLU(negative_slope=0.07))]
    stack += [keras.layers.Dense(4, activation=keras.layers.ReLU(max_value=0.8))]
    stack += [keras.layers.Dense(4, activation="exponential"), keras.layers.Activation("glu")]
    model = keras.Sequential([keras.Input((3,)), *stack])
    inputs = rng.normal(size=(5, 3)).astype(np.float32)
    arrays |= {"inputs": inputs, "predictions": model.predict(inputs, verbose=0)}
    model.save(HERE / "keras_activations.h5")
    np.savez_compressed(HERE / "keras_activations.npz", cases=np.array(json.dumps(cases)), **arrays)


if __name__ == "__main__":
    main()
