"""Makes `keras_convolution.npz` and `keras_convolution.h5`: what Keras 3 computes. Needs Keras 3.15; not run in CI.

`KERAS_BACKEND=jax python tests/data/make_keras_convolution.py` (with PyTorch, means of uneven padding are others)

Each case trains its layers, Flatten and Dense(2) behind them, for two epochs without shuffling, 6 samples in batches
of 4 and 2; data are those of `data`. Kept are initial weights, losses by epoch, final weights and predictions. The
`.h5` is a compiled model after one epoch, with what it predicts and the losses of two more epochs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CASES", "data"]

CASES: dict[str, tuple[tuple[int, ...], list[tuple[str, dict[str, Any]]]]] = {
    "conv2d": ((6, 7, 2), [("Conv2D", {"filters": 3, "kernel_size": 3, "activation": "relu"})]),
    "conv2d same": ((5, 6, 2), [("Conv2D", {"filters": 3, "kernel_size": (2, 3), "padding": "same"})]),
    "conv2d strides": ((7, 8, 2), [("Conv2D", {"filters": 3, "kernel_size": 3, "strides": 2, "use_bias": False})]),
    "conv2d strides same": (
        (7, 8, 2),
        [("Conv2D", {"filters": 3, "kernel_size": (3, 2), "strides": (3, 2), "padding": "same"})],
    ),
    "conv2d dilation": ((8, 8, 2), [("Conv2D", {"filters": 3, "kernel_size": 3, "dilation_rate": (2, 3)})]),
    "conv2d dilation same": (
        (6, 7, 2),
        [("Conv2D", {"filters": 3, "kernel_size": (3, 2), "dilation_rate": 2, "padding": "same"})],
    ),
    "conv2d groups": ((6, 6, 4), [("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 2, "activation": "tanh"})]),
    "pools": (
        (12, 13, 1),
        [
            ("Conv2D", {"filters": 3, "kernel_size": 3, "activation": "relu"}),
            ("MaxPooling2D", {}),
            ("Conv2D", {"filters": 4, "kernel_size": 2, "activation": "tanh", "padding": "same"}),
            ("MaxPooling2D", {"pool_size": (3, 2)}),
        ],
    ),
    "pools overlapping": (
        (7, 8, 2),
        [
            ("Conv2D", {"filters": 3, "kernel_size": 2}),
            ("MaxPooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}),
            ("MaxPooling2D", {"pool_size": (2, 3), "strides": (1, 2)}),
        ],
    ),
    "pool first": ((5, 5, 3), [("MaxPooling2D", {"padding": "same"}), ("Conv2D", {"filters": 2, "kernel_size": 2})]),
    "conv1d": (
        (9, 3),
        [
            ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "same", "strides": 2, "activation": "relu"}),
            ("Conv1D", {"filters": 2, "kernel_size": 2}),
        ],
    ),
    "conv1d causal": (
        (9, 3),
        [
            ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
            ("MaxPooling1D", {"pool_size": 3, "strides": 1, "padding": "same"}),
            ("Conv1D", {"filters": 4, "kernel_size": 2, "padding": "causal", "strides": 2, "groups": 2}),
            ("MaxPooling1D", {}),
        ],
    ),
    "means": (
        (7, 8, 2),
        [
            ("Conv2D", {"filters": 3, "kernel_size": 2}),
            ("AveragePooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}),
            ("AveragePooling2D", {"pool_size": (2, 1)}),
        ],
    ),
    "means of steps": (
        (9, 2),
        [
            ("Conv1D", {"filters": 3, "kernel_size": 2}),
            ("AveragePooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}),
            ("GlobalAveragePooling1D", {}),
        ],
    ),
    "global means": (
        (5, 4, 2),
        [
            ("Conv2D", {"filters": 3, "kernel_size": 2, "activation": "tanh"}),
            ("GlobalAveragePooling2D", {"keepdims": True}),
            ("Conv2D", {"filters": 3, "kernel_size": 1}),
            ("GlobalAveragePooling2D", {}),
        ],
    ),
    "global maxima": (
        (5, 4, 2),
        [
            ("Conv2D", {"filters": 3, "kernel_size": 2, "activation": "relu"}),
            ("GlobalMaxPooling2D", {"keepdims": True}),
            ("Conv2D", {"filters": 3, "kernel_size": 1}),
            ("GlobalMaxPooling2D", {}),
        ],
    ),
    "global maxima of steps": (
        (6, 2),
        [("Conv1D", {"filters": 3, "kernel_size": 2, "activation": "relu"}), ("GlobalMaxPooling1D", {})],
    ),
    "borders": (
        (6, 7, 2),
        [
            ("ZeroPadding2D", {"padding": ((1, 0), (2, 3))}),
            ("Conv2D", {"filters": 3, "kernel_size": 2}),
            ("Cropping2D", {"cropping": ((1, 2), (0, 3))}),
            ("ZeroPadding2D", {"padding": (1, 2)}),
        ],
    ),
    "borders of steps": (
        (6, 2),
        [
            ("ZeroPadding1D", {"padding": 2}),
            ("Conv1D", {"filters": 3, "kernel_size": 2}),
            ("Cropping1D", {"cropping": (1, 3)}),
        ],
    ),
    "up": (
        (3, 4, 2),
        [
            ("Conv2D", {"filters": 2, "kernel_size": 2}),
            ("UpSampling2D", {"size": (2, 3)}),
            ("Conv2D", {"filters": 2, "kernel_size": 2, "strides": 2}),
            ("UpSampling2D", {"size": (3, 2), "interpolation": "bilinear"}),
        ],
    ),
    "up steps": ((4, 2), [("Conv1D", {"filters": 2, "kernel_size": 2}), ("UpSampling1D", {"size": 3})]),
    "depthwise": (
        (7, 8, 2),
        [
            ("DepthwiseConv2D", {"kernel_size": (3, 2), "depth_multiplier": 2, "strides": 2, "padding": "same"}),
            ("DepthwiseConv2D", {"kernel_size": 2, "dilation_rate": 2, "use_bias": False, "activation": "tanh"}),
        ],
    ),
    "depthwise on steps": (
        (7, 2),
        [("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2, "strides": 2, "padding": "same"})],
    ),
    "separable": (
        (7, 8, 2),
        [
            ("SeparableConv2D", {"filters": 3, "kernel_size": 3, "depth_multiplier": 2, "strides": 2}),
            ("SeparableConv2D", {"filters": 2, "kernel_size": 2, "padding": "same", "activation": "tanh"}),
        ],
    ),
    "separable on steps": (
        (7, 2),
        [("SeparableConv1D", {"filters": 3, "kernel_size": 3, "padding": "same", "strides": 2, "use_bias": False})],
    ),
    "transposed": (
        (3, 4, 2),
        [
            ("Conv2DTranspose", {"filters": 3, "kernel_size": (3, 2), "strides": (2, 3), "activation": "relu"}),
            ("Conv2DTranspose", {"filters": 2, "kernel_size": (4, 3), "strides": (1, 2), "padding": "same"}),
        ],
    ),
    "transposed same": (
        (3, 4, 2),
        [
            ("Conv2DTranspose", {"filters": 3, "kernel_size": (3, 2), "strides": 3, "padding": "same"}),
            ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "dilation_rate": 2, "padding": "same"}),
        ],
    ),
    "transposed more": (
        (3, 4, 2),
        [
            (
                "Conv2DTranspose",
                {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": (0, 1)},
            ),
            ("Conv2DTranspose", {"filters": 2, "kernel_size": (3, 2), "strides": 3, "output_padding": 2}),
        ],
    ),
    "transposed steps": (
        (4, 2),
        [
            ("Conv1DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}),
            ("Conv1DTranspose", {"filters": 3, "kernel_size": 2, "strides": 3}),
        ],
    ),
}
FILE: list[tuple[str, dict[str, Any]]] = [
    ("Conv2D", {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu", "kernel_regularizer": "l2"}),
    ("MaxPooling2D", {}),
    ("Conv2D", {"filters": 4, "kernel_size": 2, "groups": 2, "use_bias": False}),
    ("Reshape", {"target_shape": (12, 4)}),
    ("Conv1D", {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
    ("MaxPooling1D", {"pool_size": 3}),
    ("UpSampling1D", {"size": 2}),
    ("ZeroPadding1D", {"padding": (0, 1)}),
    ("SeparableConv1D", {"filters": 3, "kernel_size": 2, "depthwise_initializer": "he_normal"}),
    ("Reshape", {"target_shape": (2, 4, 3)}),
    ("ZeroPadding2D", {"padding": ((0, 1), (2, 0))}),
    ("DepthwiseConv2D", {"kernel_size": 2, "depth_multiplier": 2, "depthwise_regularizer": "l2"}),
    ("Cropping2D", {"cropping": ((0, 0), (1, 0))}),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("AveragePooling2D", {"pool_size": 2, "strides": 1, "padding": "same"}),
    ("UpSampling2D", {"size": (2, 1), "interpolation": "bilinear"}),
    ("SeparableConv2D", {"filters": 3, "kernel_size": 3, "pointwise_constraint": "max_norm"}),
    ("GlobalAveragePooling2D", {"keepdims": True}),
]
FILE_SHAPE: tuple[int, ...] = (8, 10, 1)


def data(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Six samples and their targets: numbers without order, exact in every arithmetic."""
    count = 6 * int(np.prod(shape))
    x = (np.arange(count) * 7919 % 1009 - 504) / 512
    y = (np.arange(12) * 31 % 13 - 6) / 8
    return x.reshape(6, *shape).astype(np.float32), y.reshape(6, 2).astype(np.float32)


def main() -> None:
    import keras  # type: ignore[import-not-found,unused-ignore]

    def made(shape: tuple[int, ...], layers: list[tuple[str, dict[str, Any]]]) -> Any:
        body = [getattr(keras.layers, kind)(**settings) for kind, settings in layers]
        model = keras.Sequential([keras.Input(shape), *body])
        if len(model.output_shape) > 2:
            model.add(keras.layers.Flatten())
        model.add(keras.layers.Dense(2))
        return model

    how = {"batch_size": 4, "shuffle": False, "verbose": 0}
    arrays: dict[str, Any] = {}
    told = {}
    for number, (name, (shape, layers)) in enumerate(CASES.items()):
        keras.utils.set_random_seed(number)
        model = made(shape, layers)
        for weight in model.weights:
            if weight.name in ("bias", "beta"):
                weight.assign(np.linspace(-0.3, 0.4, weight.shape[0]))
        model.compile(keras.optimizers.SGD(0.01), "mse")
        x, y = data(shape)
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{name}/before/{i}"] = weight
        history = model.fit(x, y, epochs=2, **how).history
        for i, weight in enumerate(model.get_weights()):
            arrays[f"{name}/after/{i}"] = weight
        arrays[f"{name}/predictions"] = model.predict(x, verbose=0)
        told[name] = {"config": model.get_config(), "losses": history["loss"]}
    keras.utils.set_random_seed(7)
    model = made(FILE_SHAPE, FILE)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    x, y = data(FILE_SHAPE)
    model.fit(x, y, **how)
    model.save(Path(__file__).with_name("keras_convolution.h5"))
    predictions = model.predict(x, verbose=0).tolist()
    told["file"] = {"predictions": predictions, "losses": model.fit(x, y, epochs=2, **how).history["loss"]}
    arrays["told"] = np.array(json.dumps(told))
    np.savez_compressed(Path(__file__).with_name("keras_convolution.npz"), **arrays)


if __name__ == "__main__":
    main()
