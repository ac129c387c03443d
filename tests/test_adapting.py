"""Normalization: statistics of data from anywhere, off the loop; what it computes, and what is kept in files."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

import asyncfit as af
from asyncfit import adapting, layers
from asyncfit.errors import InvalidInput
from asyncfit.nn import Network, predict
from asyncfit.nn.arrays import Array

from .nn.helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((300, 4)) * [1, 10, 100, 0] + [0, 1e4, -5, 7]).astype(np.float32)
MEAN, VARIANCE = X.astype(float).mean(0), X.astype(float).var(0)


def outputs(layer: layers.Layer, x: Array) -> Array:
    return predict(Network([layers.Input(x.shape[1:]), layer]), x)


def expected(x: Array) -> Array:
    found: Array = (x - MEAN) / np.maximum(np.sqrt(VARIANCE), 1e-7)
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["array", "memory map", "data set", "batches", "generator", "pairs", "table"])
async def test_statistics_of_data_from_anywhere(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "PIECE", 4 * 37)
    threads: set[int] = set()

    def batches() -> Iterator[Any]:
        for begin in range(0, 300, 64):
            threads.add(threading.get_ident())
            part = X[begin : begin + 64]
            yield (part, np.zeros(len(part))) if kind == "pairs" else part

    class Table:
        shape = X.shape

        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            return X

    np.save(tmp_path / "x.npy", X)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = X
        data = {
            "array": X, "memory map": np.load(tmp_path / "x.npy", mmap_mode="r"), "data set": file["x"],
            "batches": list(batches()), "generator": batches(), "pairs": batches(), "table": Table(),
        }[kind]  # fmt: skip
        layer = layers.Normalization()
        threads.clear()
        await layer.adapt(data)
    assert threading.get_ident() not in threads
    np.testing.assert_allclose(outputs(layer, X), expected(X), rtol=2e-3, atol=2e-3)
    mean, variance, count = layer.get_weights()
    np.testing.assert_allclose(mean, MEAN, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, VARIANCE, rtol=1e-6)
    assert count == 0


def test_each_axis_keeps_its_own() -> None:
    x = RNG.standard_normal((50, 3, 4)) * np.arange(1, 13).reshape(3, 4) + 5
    for axis, over in ((-1, (0, 1)), (1, (0, 2)), ((1, 2), (0,)), (None, (0, 1, 2))):
        layer = layers.Normalization(axis)
        layer.adapt(x).blocking()
        found = (x - x.mean(over, keepdims=True)) / x.std(over, keepdims=True)
        np.testing.assert_allclose(outputs(layer, x), found, rtol=1e-4, atol=1e-5)
        back = layers.Normalization(axis, invert=True)
        back.adapt(x).blocking()
        np.testing.assert_allclose(outputs(back, found), x, rtol=1e-4, atol=1e-4)


def test_given_statistics() -> None:
    x = RNG.standard_normal((9, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(outputs(layers.Normalization(mean=1.0, variance=4.0), x), (x - 1) / 2, rtol=1e-6)
    layer = layers.Normalization(axis=(1, 2), mean=[1, 2, 3, 4], variance=[1, 4, 9, 16])
    np.testing.assert_allclose(outputs(layer, x), (x - [1, 2, 3, 4]) / [1, 2, 3, 4], rtol=1e-5, atol=1e-6)
    assert layer.get_weights() == []
    assert Network.from_config(Network([layers.Input((3, 4)), layer]).get_config()).get_config()


@pytest.mark.anyio
async def test_a_layer_of_a_built_model_is_adapted_and_the_file_keeps_it(tmp_path: Path) -> None:
    model = af.Sequential([layers.Input(4), layer := layers.Normalization(), layers.Dense(1)], seed=1)
    model.compile("adam", "mse")
    before = await model.predict(X)
    await layer.adapt(X)
    after = await model.predict(X)
    assert not np.allclose(after, before)
    np.testing.assert_allclose(after, expected(X) @ model.get_weights()[3] + 0.0, rtol=2e-3, atol=2e-3)
    await model.fit(X, np.zeros(300))
    np.testing.assert_allclose(model.get_weights()[0], MEAN, rtol=1e-6, atol=1e-6)
    await model.save(tmp_path / "m.h5")
    again = await af.load_model(tmp_path / "m.h5")
    np.testing.assert_array_equal(await again.predict(X), await model.predict(X))
    loaded = again.layers[0]
    assert isinstance(loaded, layers.Normalization)
    await loaded.adapt(X * 2)
    np.testing.assert_allclose(loaded.get_weights()[0], 2 * MEAN, rtol=1e-6, atol=1e-6)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(await other.predict(X), await model.predict(X))


@pytest.mark.anyio
@pytest.mark.in_turn
async def test_other_executors_have_the_statistics() -> None:
    ends = []
    for executor in ("thread", "process"):
        model = af.Sequential([layer := layers.Normalization(), layers.Dense(1)], seed=1)
        model.compile("adam", "mse")
        await layer.adapt(X)
        await model.fit(X, X[:, 0], epochs=2, executor=executor)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(ends[0][0], MEAN, rtol=1e-6, atol=1e-6)


@pytest.mark.anyio
async def test_a_cancelled_one_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "TURN", 0.0)
    layer, read = layers.Normalization(), 0
    await layer.adapt(X)

    with anyio.CancelScope() as scope:

        def endless() -> Iterator[Array]:
            nonlocal read
            while True:
                read += 1
                if read == 5:
                    anyio.from_thread.run_sync(scope.cancel)
                yield X

        await layer.adapt(endless())
    assert scope.cancelled_caught
    assert read == 5
    np.testing.assert_allclose(outputs(layer, X), expected(X), rtol=2e-3, atol=2e-3)


def test_gradients_go_through() -> None:
    each: list[dict[str, Any]] = [
        {"mean": [1, 2, 3, 4, 5, 6], "variance": [1, 2, 3, 4, 5, 6]},
        {"mean": 1.0, "variance": 3.0, "invert": True},
    ]
    for how in each:
        for shape in ((3,), (4, 3)):
            middle = layers.Normalization(**how)
            stack = [layers.Input(shape), layers.Dense(6), middle, layers.Flatten(), layers.Dense(2)]
            check_gradient(learner64(stack, "mse"), RNG.standard_normal((6, *shape)), RNG.standard_normal((6, 2)))


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: layers.Normalization(0), "0 is that of the batch"),
    (lambda: layers.Normalization(mean=1.0), "mean and variance, or neither"),
    (lambda: layers.Normalization(mean=[1.0], variance=2.0), "they have the same"),
    (lambda: layers.Normalization(None, mean=[1.0], variance=[2.0]), "at most one axis"),
    (lambda: layers.Normalization(mean=1.0, variance=-1.0), "not negative"),
    (lambda: layers.Normalization(mean=1.0, variance=1.0).adapt(X).blocking(), "was given its mean"),
    (lambda: layers.Normalization(2).adapt(X).blocking(), "axes go from 1 to 1"),
    (lambda: layers.Normalization().adapt(X[:0]).blocking(), "no samples"),
    (lambda: layers.Normalization().adapt([]).blocking(), "no samples"),
    (lambda: layers.Normalization().adapt("x").blocking(), "not str"),
    (lambda: layers.Normalization().adapt(3).blocking(), "not int"),
    (lambda: layers.Normalization().adapt([1.0, 2.0]).blocking(), "not single numbers"),
    (lambda: layers.Normalization().adapt(np.array(3.0)).blocking(), "not a single number"),
    (lambda: layers.Normalization().adapt(np.array([["a"], ["b"]])).blocking(), "real numbers"),
    (lambda: layers.Normalization().adapt([X, X[:, :2]]).blocking(), r"\(2,\) behind others of shape \(4,\)"),
    (lambda: outputs(layers.Normalization(mean=[1.0, 2.0], variance=[1.0, 2.0]), X), "does not fit axis"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_what_is_wrong_is_told(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_a_layer_for_other_samples_is_not_adapted() -> None:
    layer = layers.Normalization()
    layer.adapt(X).blocking()
    with pytest.raises(InvalidInput, match=r"adapted to samples of shape \(4,\), but gets samples of shape \(3,\)"):
        Network([layers.Input(3), layer])
    other = layers.Normalization()
    Network([layers.Input(3), other])
    with pytest.raises(InvalidInput, match=r"is built for samples of shape \(3,\), not \(4,\)"):
        other.adapt(X).blocking()
