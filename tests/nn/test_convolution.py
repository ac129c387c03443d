"""Convolutions and pooling: gradients against finite differences, in float64, and a plain loop."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import (
    Activation,
    AveragePooling1D,
    AveragePooling2D,
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Cropping1D,
    Cropping2D,
    Dense,
    DepthwiseConv1D,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    Input,
    Layer,
    Masking,
    MaxPooling1D,
    MaxPooling2D,
    Permute,
    RepeatVector,
    Reshape,
    SeparableConv1D,
    SeparableConv2D,
    UpSampling1D,
    UpSampling2D,
    ZeroPadding1D,
    ZeroPadding2D,
)
from asyncfit.nn.prediction import predict
from asyncfit.nn.workspace import Workspace

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
Layers = Callable[[], list[Layer]]

GRADIENTS: dict[str, tuple[tuple[int, ...], Layers]] = {
    "one": ((5, 6, 2), lambda: [Conv2D(3, 3, activation="tanh")]),
    "two": ((7, 6, 2), lambda: [Conv2D(3, 3, activation="tanh"), Conv2D(4, 2)]),
    "two without bias": ((7, 6, 2), lambda: [Conv2D(3, (2, 3), use_bias=False), Conv2D(4, (3, 1), activation="relu")]),
    "same": ((5, 6, 2), lambda: [Conv2D(3, 3, padding="same"), Conv2D(2, (4, 3), padding="same", activation="tanh")]),
    "strides": ((7, 8, 2), lambda: [Conv2D(3, 3, strides=2), Conv2D(2, 2, strides=(1, 2))]),
    "strides, same": (
        (7, 8, 2),
        lambda: [Conv2D(3, 3, strides=2, padding="same"), Conv2D(2, (2, 3), strides=(3, 2), padding="same")],
    ),
    "steps wider than the kernel": (
        (8, 8, 2),
        lambda: [Conv2D(3, 1), Conv2D(3, 2, strides=3), Conv2D(2, 1, strides=2)],
    ),
    "dilation": ((9, 9, 2), lambda: [Conv2D(3, 3, dilation_rate=2), Conv2D(2, 2, dilation_rate=(1, 3))]),
    "dilation, same": (
        (6, 7, 2),
        lambda: [Conv2D(3, 3, padding="same"), Conv2D(2, 3, dilation_rate=2, padding="same")],
    ),
    "groups": ((5, 6, 4), lambda: [Conv2D(6, 3, groups=2), Conv2D(3, 2, groups=3, padding="same")]),
    "groups, strides": ((7, 6, 4), lambda: [Conv2D(4, 1), Conv2D(4, 3, groups=4, strides=2, padding="same")]),
    "groups, dilation": ((7, 6, 4), lambda: [Conv2D(4, 1), Conv2D(4, 2, groups=2, dilation_rate=2)]),
    "1 by 1": ((4, 5, 3), lambda: [Conv2D(4, 1), Conv2D(2, 1, activation="tanh"), Conv2D(3, 1, padding="same")]),
    "as high as the image": ((4, 5, 3), lambda: [Conv2D(4, 1), Conv2D(2, (4, 5))]),
    "higher than the image": ((2, 3, 2), lambda: [Conv2D(3, 1), Conv2D(2, (5, 7), padding="same")]),
    "pool": ((6, 8, 2), lambda: [Conv2D(3, 1), MaxPooling2D()]),
    "pool after an activation": ((6, 8, 2), lambda: [Conv2D(3, 1, activation="tanh"), MaxPooling2D()]),
    "pool, relu": ((8, 9, 2), lambda: [Conv2D(3, 2, activation="relu"), MaxPooling2D(), Conv2D(2, 2), MaxPooling2D()]),
    "pool of a pool": ((12, 12, 1), lambda: [Conv2D(3, 3), MaxPooling2D(), MaxPooling2D((2, 1))]),
    "pool of 3": ((9, 11, 2), lambda: [Conv2D(3, 1), Conv2D(3, 1, activation="relu"), MaxPooling2D(3)]),
    "pool of lines": ((9, 11, 2), lambda: [Conv2D(3, 2), Conv2D(3, 2), MaxPooling2D((1, 3))]),
    "pool of columns": ((9, 11, 2), lambda: [Conv2D(3, 2), Conv2D(3, 2, padding="same"), MaxPooling2D((3, 1))]),
    "pool, strides": ((9, 9, 2), lambda: [Conv2D(3, 1), Conv2D(3, 3, strides=2, padding="same"), MaxPooling2D()]),
    "pool, groups": ((8, 8, 2), lambda: [Conv2D(4, 1), Conv2D(4, 3, groups=2), MaxPooling2D()]),
    "pool, dilation": ((8, 8, 2), lambda: [Conv2D(4, 1), Conv2D(4, 2, dilation_rate=2), MaxPooling2D()]),
    "pool, same": ((5, 7, 2), lambda: [Conv2D(3, 1), MaxPooling2D(padding="same")]),
    "pool, overlapping": ((7, 7, 2), lambda: [Conv2D(3, 1), MaxPooling2D(3, strides=2)]),
    "pool, overlapping, same": ((7, 8, 2), lambda: [Conv2D(3, 1), MaxPooling2D(3, strides=2, padding="same")]),
    "pool, gaps": ((8, 8, 2), lambda: [Conv2D(3, 1), MaxPooling2D(2, strides=3)]),
    "pool first": ((6, 6, 2), lambda: [MaxPooling2D(), Conv2D(2, 2)]),
    "an activation between": (
        (6, 6, 2),
        lambda: [Conv2D(2, 2), Activation("tanh"), MaxPooling2D(), Activation("relu")],
    ),
    "others between": ((6, 6, 2), lambda: [Conv2D(3, 2), Dense(4, activation="tanh"), Dropout(0.3), Conv2D(2, 2)]),
    "others before": ((6, 6, 2), lambda: [Dense(3), Conv2D(3, 2, activation="tanh"), Dropout(0.3)]),
    "frozen": ((6, 6, 2), lambda: [Conv2D(3, 2, trainable=False), Conv2D(3, 2), Conv2D(3, 2, trainable=False)]),
    "frozen, pool": ((8, 8, 2), lambda: [Conv2D(3, 2), Conv2D(3, 2, trainable=False), MaxPooling2D()]),
    "steps": ((9, 3), lambda: [Conv1D(4, 3, activation="tanh"), Conv1D(2, 2)]),
    "steps, same": ((9, 3), lambda: [Conv1D(4, 3, padding="same"), Conv1D(2, 4, strides=2, padding="same")]),
    "steps, causal": (
        (9, 3),
        lambda: [Conv1D(4, 3, padding="causal"), Conv1D(2, 2, dilation_rate=3, padding="causal")],
    ),
    "steps, groups": ((9, 4), lambda: [Conv1D(4, 3, groups=2), Conv1D(4, 3, groups=4, strides=2)]),
    "steps, pool": ((9, 3), lambda: [Conv1D(4, 1), Conv1D(4, 2, activation="relu"), MaxPooling1D()]),
    "steps, pool, overlapping": ((9, 3), lambda: [Conv1D(4, 2, activation="tanh"), MaxPooling1D(3, 1, "same")]),
    "means": ((6, 7, 2), lambda: [Conv2D(3, 1), AveragePooling2D(2), AveragePooling2D((1, 2), padding="same")]),
    "means, overlapping": (
        (7, 8, 2),
        lambda: [Conv2D(3, 1), AveragePooling2D(3, strides=2, padding="same"), AveragePooling2D(2, strides=1)],
    ),
    "means, gaps": ((8, 8, 2), lambda: [Conv2D(3, 1), AveragePooling2D(2, strides=3)]),
    "means of steps": ((9, 2), lambda: [Conv1D(3, 1), AveragePooling1D(2), AveragePooling1D(3, 1, "same")]),
    "global mean": ((4, 5, 2), lambda: [Conv2D(3, 2, activation="tanh"), GlobalAveragePooling2D(), Dense(3)]),
    "global mean, kept": ((4, 5, 2), lambda: [Conv2D(3, 1), GlobalAveragePooling2D(keepdims=True), Conv2D(2, 1)]),
    "global mean of steps": ((5, 2), lambda: [Conv1D(3, 2), GlobalAveragePooling1D()]),
    "global mean of steps, kept": ((5, 2), lambda: [Conv1D(3, 2), GlobalAveragePooling1D(keepdims=True)]),
    "global mean of features": ((5, 2), lambda: [Dense(70), GlobalAveragePooling1D(), Dense(3)]),
    "global maximum": ((4, 5, 2), lambda: [Conv2D(3, 2, activation="tanh"), GlobalMaxPooling2D(), Dense(3)]),
    "global maximum, kept": ((4, 5, 2), lambda: [Conv2D(3, 1), GlobalMaxPooling2D(keepdims=True), Conv2D(2, 1)]),
    "global maximum of steps": ((5, 2), lambda: [Conv1D(3, 2), GlobalMaxPooling1D()]),
    "zeros around": ((4, 5, 2), lambda: [Conv2D(3, 1), ZeroPadding2D(((0, 1), (2, 3))), Conv2D(2, 3)]),
    "zeros around steps": ((4, 2), lambda: [Conv1D(3, 1), ZeroPadding1D((2, 1)), Conv1D(2, 3)]),
    "zeros first": ((4, 5, 2), lambda: [ZeroPadding2D(), Activation("sigmoid"), Conv2D(2, 3)]),
    "cropped": ((6, 8, 2), lambda: [Conv2D(3, 1), Cropping2D(((0, 1), (2, 3))), Conv2D(2, 3)]),
    "cropped steps": ((8, 2), lambda: [Conv1D(3, 1), Cropping1D(2), Conv1D(2, 3)]),
    "up": ((3, 4, 2), lambda: [Conv2D(3, 1), UpSampling2D((2, 3)), Conv2D(2, 3)]),
    "up between": ((3, 4, 2), lambda: [Conv2D(3, 1), UpSampling2D((2, 3), interpolation="bilinear"), Conv2D(2, 3)]),
    "up steps": ((3, 2), lambda: [Conv1D(3, 1), UpSampling1D(3), Conv1D(2, 3)]),
    "depthwise": ((5, 6, 2), lambda: [Conv2D(3, 1), DepthwiseConv2D(3, activation="tanh", depth_multiplier=2)]),
    "depthwise, strides": ((7, 6, 2), lambda: [Conv2D(3, 1), DepthwiseConv2D((3, 2), strides=2, padding="same")]),
    "depthwise, dilation": ((7, 6, 2), lambda: [Conv2D(3, 1), DepthwiseConv2D(2, dilation_rate=2, use_bias=False)]),
    "depthwise on steps": ((7, 2), lambda: [Conv1D(3, 1), DepthwiseConv1D(3, strides=2, padding="same")]),
    "separable": ((5, 6, 2), lambda: [Conv2D(3, 1), SeparableConv2D(4, 3, depth_multiplier=2, activation="tanh")]),
    "separable, strides": ((7, 6, 2), lambda: [Conv2D(3, 1), SeparableConv2D(2, (3, 2), strides=2, padding="same")]),
    "separable on steps": ((7, 2), lambda: [Conv1D(3, 1), SeparableConv1D(4, 2, padding="causal", use_bias=False)]),
    "separable, frozen": ((5, 6, 2), lambda: [Conv2D(3, 1), SeparableConv2D(2, 2, trainable=False)]),
    "transposed": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, 3, activation="tanh")]),
    "transposed, strides": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, (3, 2), strides=(2, 3))]),
    "transposed, same": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, 3, strides=2, padding="same")]),
    "transposed, 1 by 1": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, 1), Conv2DTranspose(2, 1, strides=2)]),
    "transposed, dilation": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, 2, dilation_rate=2, use_bias=False)]),
    "transposed, more": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, 3, 2, "same", output_padding=(0, 1))]),
    "transposed, frozen": ((3, 4, 2), lambda: [Conv2D(3, 1), Conv2DTranspose(4, 2, trainable=False)]),
    "transposed first": ((3, 4, 2), lambda: [Conv2DTranspose(4, 2, strides=2)]),
    "transposed steps": ((4, 2), lambda: [Conv1D(3, 1), Conv1DTranspose(4, 3, strides=2, padding="same")]),
    "reshaped": ((6, 4, 2), lambda: [Conv2D(3, 1), Reshape((8, 9)), Conv1D(4, 2), Reshape((7, 2, 2)), Conv2D(2, 1)]),
    "made of vectors": (
        (6,),
        lambda: [Dense(12), Reshape((2, 2, 3)), Conv2D(2, 1), Flatten(), Dense(70), Reshape((35, 2))],
    ),
    "repeated and turned": ((6,), lambda: [Dense(5), RepeatVector(4), Conv1D(3, 2), Permute((2, 1)), Conv1D(2, 2)]),
    "steps and features": ((9, 3), lambda: [Dense(3), Conv1D(4, 1), Dense(3, activation="tanh"), Conv1D(2, 2)]),
}


def poisoned(take: Callable[..., Array]) -> Callable[..., Array]:
    def taken(*args: Any) -> Array:
        found = take(*args)
        if found.dtype.kind == "f":
            found.fill(np.nan)
        return found

    return taken


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, layers = GRADIENTS[name]
    learner = learner64([Input(shape), *layers(), Flatten(), Dense(2)], "mse")
    with monkeypatch.context() as patch:  # memory that was never written to shows
        patch.setattr(Workspace, "take", poisoned(Workspace.take))
        learner.train_batch(np.zeros((3, *shape)), np.zeros((3, 2)))
    check_gradient(learner, RNG.standard_normal((3, *shape)), RNG.standard_normal((3, 2)))


def test_means_leave_out_masked_steps() -> None:
    x = RNG.standard_normal((4, 6, 3))
    x[0, 2:], x[1, 0], x[2, :5] = 0, 0, 0
    network = Network([Input((6, 3)), Masking(), GlobalAveragePooling1D()], _dtype=np.float64)
    found = network.plan(4, Learner(network, loss="mse")._test_work).infer(x)
    expected = [sample[sample.any(1)].mean(0) for sample in x]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    layers: list[Layer] = [Masking(), Dense(4, activation="tanh"), GlobalAveragePooling1D(), Dense(2)]
    check_gradient(learner64([Input((6, 3)), *layers], "mse"), x, RNG.standard_normal((4, 2)))


def test_the_greatest_share_the_gradient_of_global_pooling() -> None:
    learner = learner64([Input((2, 2, 1)), Conv2D(1, 1), GlobalMaxPooling2D()], "mse")
    learner.network.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    x = np.array([[[[1.0], [3.0]], [[3.0], [2.0]]]])
    learner.train_batch(x, np.zeros((1, 1)))
    assert learner._grads.tolist() == pytest.approx([2 * 3 * 3, 2 * 3])


def test_gradients_of_images_as_output() -> None:
    learner = learner64(
        [Input((5, 4, 2)), Conv2D(3, 2, padding="same", activation="softmax")], "sparse_categorical_crossentropy"
    )
    check_gradient(learner, RNG.standard_normal((3, 5, 4, 2)), RNG.integers(0, 3, (3, 5, 4)))
    learner = learner64([Input((6, 4, 2)), Conv2D(3, 2, padding="same", activation="relu"), MaxPooling2D()], "mse")
    check_gradient(learner, RNG.standard_normal((3, 6, 4, 2)), RNG.standard_normal((3, 3, 2, 3)))


def network_of(seed: int = 3) -> Network:
    layers: list[Layer] = [Conv2D(4, 3, padding="same", activation="relu"), MaxPooling2D()]
    layers += [Conv2D(6, 3, padding="same", strides=2), MaxPooling2D(padding="same"), Flatten(), Dense(3)]
    return Network([Input((10, 9, 2)), *layers], seed=seed)


def test_batches_of_all_sizes_share_memory() -> None:
    """Padding is set once for a plan, and another one uses the same memory."""
    x, y = RNG.standard_normal((12, 10, 9, 2)).astype(np.float32), RNG.standard_normal((12, 3)).astype(np.float32)
    one, other = (Learner(network_of(), loss="mse", optimizer="sgd") for _ in range(2))
    other.train_batch(x, y)
    other.test_batch(x[:5], y[:5])
    other.network.set_weights(one.network.get_weights())
    for size in (12, 5, 12, 1, 7):
        assert one.train_batch(x[:size], y[:size]) == other.train_batch(x[:size], y[:size])
        one = Learner(one.network.twin(), loss="mse", optimizer="sgd")  # with memory that nobody has used
    assert [w.tobytes() for w in one.network.get_weights()] == [w.tobytes() for w in other.network.get_weights()]


def test_tiles_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.standard_normal((70, 10, 9, 2)), RNG.standard_normal((70, 3))
    found = []
    for size in (1 << 17, 1, 700):
        monkeypatch.setattr("asyncfit.nn.pooled.TILE", size)
        monkeypatch.setattr("asyncfit.nn.correlation.BLOCK", size)
        layers: list[Layer] = [Conv2D(4, 3, padding="same"), MaxPooling2D(), Conv2D(3, 2), MaxPooling2D(), Flatten()]
        learner = learner64([Input((10, 9, 2)), *layers, Dense(3)], "mse")
        loss = learner.train_batch(x, y)["loss"]
        found.append([loss, *learner._grads])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("pool", [(1, 2), (2, 1), (2, 2), (3, 3)])
def test_of_equal_elements_the_first_one_gets_the_gradient(padding: str, pool: tuple[int, int]) -> None:
    """The kernel looks at the first channel only, which is the same everywhere; the second one counts the pixels."""
    learner = learner64([Input((6, 6, 2)), Conv2D(1, 1), MaxPooling2D(pool, padding=padding)], "mse")
    learner.network.set_weights([np.array([1.0, 0.0]).reshape(1, 1, 2, 1), np.ones(1)])
    x = np.stack([np.full((6, 6), 2.0), np.arange(36.0).reshape(6, 6)], -1)[None]
    first = x[0, :: pool[0], :: pool[1], 1]
    learner.train_batch(x, np.zeros((1, *first.shape, 1)))
    slope = 2 * 3 / first.size
    assert learner._grads.tolist() == pytest.approx([slope * 2 * first.size, slope * first.sum(), slope * first.size])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("activation", ["relu", "linear", "tanh", "silu", "gelu"])
def test_pooling_behind_a_convolution_is_pooling_of_its_output(activation: str, padding: str) -> None:
    x = RNG.standard_normal((5, 7, 9, 2))
    conv = Network([Input((7, 9, 2)), Conv2D(3, 2, activation=activation)], seed=1, _dtype=np.float64)
    conv.set_weights([conv.get_weights()[0], np.full(3, -2.0)])
    layers: list[Layer] = [Conv2D(3, 2, activation=activation), MaxPooling2D(3, padding=padding)]
    both = Network([Input((7, 9, 2)), *layers], _dtype=np.float64)
    both.set_weights(conv.get_weights())
    y = predict(conv, x)
    y = np.pad(y, [(0, 0), (0, 0), (0, 1), (0, 0)], constant_values=-np.inf) if padding == "same" else y[:, :, :6]
    expected = y.reshape(5, 2, 3, -1, 3, 3).max((2, 4))
    np.testing.assert_allclose(predict(both, x), expected, rtol=1e-12)


def naive(x: Array, kernel: Array, padding: int, stride: int) -> Array:
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = [(s - kernel.shape[0]) // stride + 1 for s in x.shape[1:3]]
    y = np.zeros((len(x), *size, kernel.shape[-1]))
    for i, j in np.ndindex(*size):
        part = x[:, i * stride :, j * stride :][:, : kernel.shape[0], : kernel.shape[1]]
        y[:, i, j] = np.tensordot(part, kernel, 3)
    return y


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_predictions_are_sums_over_windows(rows: int) -> None:
    network = Network([Input((7, 9, 3)), Conv2D(4, 3, padding="same"), Conv2D(2, 3, strides=2)], _dtype=np.float64)
    first, _, second, _ = network.get_weights()
    x = RNG.standard_normal((rows, 7, 9, 3))
    plan = network.plan(rows, Learner(network, loss="mse")._test_work)
    np.testing.assert_allclose(plan.infer(x), naive(naive(x, first, 1, 1), second, 0, 2), atol=1e-12)


def test_copies_and_what_was_pickled_train_alike() -> None:
    x, y = RNG.standard_normal((6, 10, 9, 2)).astype(np.float32), RNG.standard_normal((6, 3)).astype(np.float32)
    learner = Learner(network_of(), loss="mse", optimizer="adam")
    learner.train_batch(x, y)
    others = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    for one in (learner, *others):
        one.train_batch(x, y)
        assert one.network.params.tobytes() == learner.network.params.tobytes()


def test_configs_of_keras_2_are_read() -> None:
    """It writes settings of Conv2D into all that is derived from it."""
    common: dict[str, Any] = {
        "kernel_size": [3, 3],
        "data_format": "channels_last",
        "groups": 1,
        "dilation_rate": [1, 1],
    }
    kernel = {
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "kernel_constraint": None,
    }
    made = SeparableConv2D.from_config({**common, **kernel, "filters": 2, "kernel_regularizer": None, "name": "s"})
    assert made.kernel_size == (3, 3)
    assert DepthwiseConv2D.from_config({**common, "depth_multiplier": 2}).depth_multiplier == 2
    assert (
        Conv2DTranspose.from_config({**common, **kernel, "filters": 2, "output_padding": None}).output_padding is None
    )
    with pytest.raises(InvalidInput, match="groups=2"):
        DepthwiseConv2D.from_config({**common, "groups": 2})
    with pytest.raises(InvalidInput, match="channels_first"):
        Conv2D.from_config({**common, "filters": 2, "data_format": "channels_first"})


@pytest.mark.parametrize("name", GRADIENTS)
def test_configs_are_read_again(name: str) -> None:
    shape, layers = GRADIENTS[name]
    network = Network([Input(shape), *layers()])
    again = Network.from_config(network.get_config())
    assert again.get_config() == network.get_config()
    assert again.output_shape == network.output_shape


SLIPS: list[tuple[Callable[[], Any], str]] = [
    (lambda: Conv2D(0, 3), "filters"),
    (lambda: Conv2D(2, (3, 3, 3)), r"kernel_size=…\) must be a whole number from 1 or 2 of them, not \(3, 3, 3\)"),
    (lambda: Conv2D(2, 0), "kernel_size"),
    (lambda: Conv1D(2, (3, 3)), "kernel_size"),
    (lambda: Conv2D(2, 3, strides=-1), "strides"),
    (lambda: Conv2D(2, 3, padding="causal"), "'causal' is for Conv1D"),
    (lambda: Conv2D(2, 3, padding="full"), "'valid' or 'same', not 'full'"),
    (lambda: Conv2D(2, 3, strides=2, dilation_rate=2), "do not go together"),
    (lambda: Conv2D(3, 3, groups=2), "filters=3 must be a multiple of groups=2"),
    (lambda: Conv2D(2, 3, data_format="channels_first"), r"only 'channels_last'.*x\.transpose\(0, 2, 3, 1\)"),
    (lambda: MaxPooling2D(data_format="channels_first"), r"only 'channels_last'"),
    (lambda: MaxPooling2D((2, 0)), "pool_size"),
    (lambda: AveragePooling2D(2, padding="causal"), "padding"),
    (lambda: DepthwiseConv2D(3, depth_multiplier=0), "depth_multiplier"),
    (lambda: UpSampling2D(2, interpolation="bicubic"), "'nearest' or 'bilinear', not 'bicubic'"),
    (lambda: ZeroPadding2D((1, 2, 3)), r"\(\(top, bottom\), \(left, right\)\), not \(1, 2, 3\)"),
    (lambda: ZeroPadding1D((1, -2)), r"whole number from 0, or \(before, behind\), not \(1, -2\)"),
    (lambda: Network([Input((4, 4, 1)), Cropping2D(2)]), r"'cropping2d': .* leaves nothing of .* \(4, 4, 1\)"),
    (lambda: Network([Input((1, 2)), Conv1DTranspose(1, 2, 1, "same", output_padding=0)]), "output_padding.* leaves"),
    (lambda: Network([Input((28, 28)), Conv2D(2, 3)]), r"Conv2D 'conv2d' takes .* not \(28, 28\); for one channel"),
    (lambda: Network([Input(28), Conv2D(2, 3)]), r"'conv2d' takes samples of shape \(height, width, channels\)"),
    (lambda: Network([Input((4, 9, 1)), Conv2D(2, 5)]), r"'conv2d' got samples of shape \(4, 9, 1\).* 5 .* into 4"),
    (lambda: Network([Input((4, 9, 3)), Conv2D(2, 3, groups=2)]), r"\(4, 9, 3\) cannot be divided into groups=2"),
    (lambda: Network([Input((1, 9, 1)), MaxPooling2D(name="p")]), r"'p' got .* does not fit into 1"),
]


@pytest.mark.parametrize(("call", "message"), SLIPS)
def test_slips_are_told(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()
