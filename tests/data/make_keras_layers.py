"""Makes `keras_layers_<family>.npz`: what Keras 3.15.1 computes with layers of several kinds. Not run in CI.

`KERAS_BACKEND=torch python tests/data/make_keras_layers.py [family …]`

Each case is a small model, compiled, and trained for three epochs without shuffling, 20 samples in batches of 8 (the
last one has 4). Kept are for each case: `x` and `y`, the weights before training (all in one flat array), losses by
epoch, what evaluate says and the predictions after, the summary, and the bytes of the file that `model.save` wrote
then (`h5`), which has the configuration and the weights after.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["COLUMNS"] = "200"  # for summaries
import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent
L = keras.layers
Stack = Callable[[], list[Any]]


def dense(units: int = 6, **how: Any) -> Any:
    return L.Dense(units, bias_initializer="uniform", **how)


def tanh() -> Any:
    return L.Activation("tanh")


def adapted(shape: tuple[int, ...], **how: Any) -> Any:
    layer = L.Normalization(**how)
    layer.adapt(np.random.default_rng(1).standard_normal((30, *shape)).astype(np.float32) * 3 + 1)
    return layer


def end() -> list[Any]:
    return [L.Flatten(), dense(2)]


def frozen() -> Any:
    return dense(6, trainable=False)


def bordered(*layers: Any) -> list[Any]:
    """Something to learn before and behind."""
    return [dense(6), *layers, L.Flatten(), dense(2)]


FAMILIES: dict[str, dict[str, tuple[tuple[int, ...], Stack]]] = {
    "shapes": {
        "reshape": ((6,), lambda: [dense(12), L.Reshape((3, -1)), dense(3, activation="tanh"), L.Flatten(), dense(2)]),
        "permute": ((3, 4), lambda: bordered(L.Permute((2, 1)), dense(5, activation="tanh"))),
        "permute grids": ((2, 3, 4), lambda: bordered(L.Permute((3, 1, 2)), dense(5, activation="tanh"))),
        "repeat": ((6,), lambda: bordered(L.RepeatVector(3), dense(4, activation="tanh"))),
        "rescaling": ((6,), lambda: [L.Rescaling(0.5, offset=-0.25), *bordered(L.Rescaling(2.0))]),
        "rescaling each": ((2, 3), lambda: [L.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 1.0, 2.0]), *bordered()]),
    },
    "rectifiers": {
        "relu": ((6,), lambda: bordered(L.ReLU())),
        "relu6": ((6,), lambda: bordered(L.ReLU(max_value=0.5))),
        "relu, all": ((6,), lambda: bordered(L.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2))),
        "relu, threshold": ((4, 3), lambda: bordered(L.ReLU(threshold=0.3))),
        "relu, slope": ((6,), lambda: bordered(L.ReLU(negative_slope=1.5))),
        "leaky": ((6,), lambda: bordered(L.LeakyReLU())),
        "leaky, steep": ((4, 3), lambda: bordered(L.LeakyReLU(negative_slope=0.7))),
        "elu": ((6,), lambda: bordered(L.ELU())),
        "softmax": ((6,), lambda: bordered(L.Softmax())),
        "softmax, steps": ((4, 3), lambda: bordered(L.Softmax(axis=1))),
        "softmax, both": ((4, 3), lambda: bordered(L.Softmax(axis=[1, 2]))),
        "prelu": ((6,), lambda: bordered(L.PReLU("uniform", alpha_regularizer="l2"))),
        "prelu, shared": ((4, 3), lambda: bordered(L.PReLU("uniform", shared_axes=[1]))),
        "prelu, held": ((6,), lambda: bordered(L.PReLU("uniform", alpha_constraint=keras.constraints.MaxNorm(0.05)))),
        "prelu, channels": ((2, 3, 3), lambda: bordered(L.PReLU("uniform", shared_axes=[1, 2]))),
    },
    "batch": {
        "vectors": ((6,), lambda: bordered(L.BatchNormalization(), tanh())),
        "wide": ((6,), lambda: [dense(64), L.BatchNormalization(), tanh(), dense(2)]),
        "first": ((6,), lambda: [L.BatchNormalization(momentum=0.5, epsilon=0.1), *bordered(tanh())]),
        "sequences": ((4, 3), lambda: bordered(L.BatchNormalization(momentum=0.8, gamma_regularizer="l2"), tanh())),
        "images": ((2, 3, 3), lambda: bordered(L.BatchNormalization(momentum=0.8, scale=False), tanh())),
        "middle": ((2, 3, 3), lambda: bordered(L.BatchNormalization(axis=2, momentum=0.8, center=False), tanh())),
        "frozen": ((6,), lambda: bordered(L.BatchNormalization(momentum=0.8, trainable=False), tanh())),
    },
    "frozen": {
        "below": ((6,), lambda: [frozen(), L.BatchNormalization(trainable=False), tanh(), dense(4), dense(2)]),
        "between": ((6,), lambda: [dense(5), tanh(), frozen(), L.BatchNormalization(momentum=0.8), tanh(), dense(2)]),
        "last": ((6,), lambda: [dense(5), tanh(), L.LayerNormalization(trainable=False), dense(2, trainable=False)]),
    },
    "convolved": {
        "images": (
            (6, 5, 2),
            lambda: [L.Conv2D(3, 2), L.BatchNormalization(momentum=0.8), tanh(), L.Conv2D(2, 2), *end()],
        ),
        "steps": ((7, 2), lambda: [L.Conv1D(3, 2), L.BatchNormalization(momentum=0.8), tanh(), L.Conv1D(2, 2), *end()]),
        "all": ((6, 5, 2), lambda: [L.Conv2D(4, 2), L.GroupNormalization(2), tanh(), L.LayerNormalization(), *end()]),
    },
    "noise": {
        "vectors": (
            (6,),
            lambda: bordered(L.GaussianNoise(0.3), L.GaussianDropout(0.2), L.AlphaDropout(0.1), L.Dropout(0.2)),
        ),
        "steps": ((4, 3), lambda: bordered(L.SpatialDropout1D(0.3), L.Dropout(0.2, noise_shape=(None, 1, None)))),
        "images": ((3, 2, 3), lambda: bordered(L.SpatialDropout2D(0.3), L.AlphaDropout(0.1, (None, 1, 1, None), 5))),
    },
    "adapted": {
        "features": ((6,), lambda: [adapted((6,)), *bordered(tanh())]),
        "inverted": ((6,), lambda: [adapted((6,), invert=True), *bordered(tanh())]),
        "axes": ((4, 3), lambda: [adapted((4, 3), axis=(1, 2)), *bordered(tanh())]),
        "all": ((4, 3), lambda: [adapted((4, 3), axis=None), *bordered(tanh())]),
        "given": ((4, 3), lambda: bordered(L.Normalization(mean=[0.1] * 6, variance=[4.0] * 6), tanh())),
        "given one": ((4, 3), lambda: [L.Normalization(mean=0.5, variance=2.0, invert=True), *bordered(tanh())]),
    },
    "masked": {
        "masked": ((4, 3), lambda: [L.Masking(), L.BatchNormalization(momentum=0.8), *bordered(tanh())]),
    },
    "normal": {
        "layer": ((6,), lambda: bordered(L.LayerNormalization(), tanh())),
        "layer, sequences": ((4, 3), lambda: bordered(L.LayerNormalization(scale=False, epsilon=0.1), tanh())),
        "layer, axes": ((2, 3, 3), lambda: bordered(L.LayerNormalization(axis=[1, 3], beta_regularizer="l2"), tanh())),
        "layer, rms": ((6,), lambda: bordered(L.LayerNormalization(rms_scaling=True), tanh())),
        "group": ((6,), lambda: bordered(L.GroupNormalization(2), tanh())),
        "group, images": ((2, 3, 3), lambda: bordered(L.GroupNormalization(3, epsilon=0.01), tanh())),
        "group, axis": ((2, 4, 3), lambda: bordered(L.GroupNormalization(2, axis=2, scale=False), tanh())),
        "group, each": ((4, 3), lambda: bordered(L.GroupNormalization(-1, center=False), tanh())),
        "unit": ((6,), lambda: bordered(L.UnitNormalization())),
        "unit, axes": ((4, 3), lambda: bordered(L.UnitNormalization(axis=[1, 2]))),
    },
}


def made(family: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for number, (case, (shape, stack)) in enumerate(FAMILIES[family].items()):
        keras.utils.clear_session()
        keras.utils.set_random_seed(number)
        rng = np.random.default_rng(number)
        x = rng.standard_normal((20, *shape)).astype(np.float32)
        if "masked" in case:
            x[:, 2:] *= rng.integers(0, 2, (20, 1, 1))
        y = rng.standard_normal((20, 2)).astype(np.float32)
        model = keras.Sequential([keras.Input(shape), *stack()])
        model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "mean_squared_error", metrics=["mean_absolute_error"])
        arrays[f"{case}/before"] = np.concatenate([np.zeros(0), *(w.ravel() for w in model.get_weights())]).astype("f")
        how: dict[str, Any] = {"batch_size": 8, "verbose": 0}
        history = model.fit(x, y, epochs=3, shuffle=False, **how).history
        arrays |= {f"{case}/x": x, f"{case}/y": y, f"{case}/predictions": model.predict(x, verbose=0)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.h5"
            model.save(path)
            arrays[f"{case}/h5"] = np.frombuffer(path.read_bytes(), np.uint8)
        lines = io.StringIO()
        model.summary(line_length=120, print_fn=lambda text, to=lines: print(text, file=to))
        told[case] = {
            "history": history,
            "evaluated": model.evaluate(x, y, return_dict=True, **how),
            "summary": lines.getvalue(),
        }
    return arrays | {"cases": np.array(json.dumps(told))}


def main(*families: str) -> None:
    for family in families or FAMILIES:
        np.savez_compressed(HERE / f"keras_layers_{family}.npz", **made(family))


if __name__ == "__main__":
    main(*sys.argv[1:])
