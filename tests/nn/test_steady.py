"""Big batches in the same buffer are computed on where they lie: the same bits, and few arrays are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncfit.data import ArrayData
from asyncfit.layers import Activation, Dense, Dropout, Flatten, Input
from asyncfit.nn import Learner, Network
from asyncfit.nn.activations import relu
from asyncfit.nn.blocks import against
from asyncfit.nn.steady import BUFFERS, Steady
from asyncfit.nn.workspace import Workspace

ROWS, FEATURES = 256, 100


def learner(*layers: Any, shape: tuple[int, ...] = (FEATURES,)) -> Learner:
    network = Network([Input(shape), *layers, Dense(8, "relu"), Dense(3, "softmax")], seed=1)
    return Learner(network, loss="sparse_categorical_crossentropy", optimizer="adam")


def batches(count: int, shape: tuple[int, ...] = (FEATURES,)) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((ROWS, *shape)).astype(np.float32), rng.integers(0, 3, ROWS)) for _ in range(count)
    ]  # fmt: skip


def bound(trained: Learner) -> int:
    (run,) = trained._train_runs.values()
    assert isinstance(run, Steady)
    return len(run._bound)


@pytest.mark.parametrize(
    ("layers", "shape", "expected"),
    [
        ((), (FEATURES,), 1),
        ((Flatten,), (10, 10), 1),
        ((lambda: Dropout(0.5),), (FEATURES,), 1),
        ((lambda: Activation("linear"), Flatten), (10, 10), 1),
        ((lambda: Activation("tanh"),), (FEATURES,), 0),  # computed by the plan itself, from an input of its own
    ],
)
def test_the_bits_are_those_of_arrays_that_come_once(layers: Any, shape: tuple[int, ...], expected: int) -> None:
    one, other = (learner(*(make() for make in layers), shape=shape) for _ in range(2))
    buffer = np.empty((ROWS, *shape), np.float32)
    for x, y in batches(6, shape):
        buffer[...] = x
        kept = buffer.copy()
        assert one.train_batch(buffer, y) == other.train_batch(x, y)
        np.testing.assert_array_equal(buffer, kept)
    assert bound(one) == expected
    assert bound(other) == 0
    np.testing.assert_array_equal(one.network.params, other.network.params)


def test_other_arrays_in_between_and_several_buffers() -> None:
    one, other = learner(), learner()
    buffers = [np.empty((ROWS, FEATURES), np.float32) for _ in range(BUFFERS)]
    data = batches(4 * BUFFERS)
    for i, (x, y) in enumerate(data):
        into = buffers[i % BUFFERS]
        into[...] = x
        assert one.train_batch(into if i % 3 else x, y) == other.train_batch(x, y)
    assert bound(one) == BUFFERS
    for x, y in data:  # each of them twice: there are never more bound than that
        for _ in range(2):
            assert one.train_batch(x, y) == other.train_batch(x.copy(), y)
    assert bound(one) == BUFFERS


def test_views_of_the_data_and_arrays_of_another_kind_are_copied() -> None:
    trained, (x, y) = learner(), batches(1)[0]
    read_only = x.view()
    read_only.flags.writeable = False
    for given in (read_only, x.astype(np.float64), np.asfortranarray(x), x.tolist()):
        for _ in range(3):
            trained.train_batch(given, y)
    assert bound(trained) == 0
    trained.train_batch(x, y)
    trained.train_batch(x, y)
    assert bound(trained) == 1


def test_the_sources_own_buffers_are_recognized() -> None:
    trained = learner(shape=(784,))
    x = np.random.default_rng(0).standard_normal((8 * ROWS, 784)).astype(np.float32)
    data = ArrayData(x, np.zeros(len(x), np.int64), batch_size=ROWS, shuffle=True)
    for x, y, _, _ in data.batches(0):
        assert y is not None
        trained.train_batch(x, y)
    assert bound(trained) == 1


def test_small_batches_have_no_use_for_it() -> None:
    trained, (x, y) = learner(), batches(1)[0]
    trained.train_batch(x[:32].copy(), y[:32])
    assert not any(isinstance(run, Steady) for run in trained._train_runs.values())


@pytest.mark.parametrize("size", [7, 4096, 4097, 12288, 20000])
@pytest.mark.parametrize("order", ["C", "F", "gaps"])
def test_relu_of_any_size_and_layout(size: int, order: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size, 3)).astype(np.float32)
    x = np.asfortranarray(x) if order == "F" else x
    z: Any = np.zeros((size, 4), np.float32)[:, :3] if order == "gaps" else np.empty_like(x)
    z[...] = x
    y = np.empty((size, 4), np.float32)[:, :3] if order == "gaps" else np.empty_like(z)
    dy: Any = np.ones_like(z)
    work = Workspace(np.dtype(np.float32))
    for call in [*relu.forward(z, y, work), *relu.backward(z, y, dy, work)]:
        call()
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(dy, (x > 0).astype(np.float32))


def test_a_number_against_arrays_that_lie_differently() -> None:
    x = np.random.default_rng(0).standard_normal((80, 80)).astype(np.float32)
    for given, out in ((x, np.empty_like(x).T), (x.T, np.empty_like(x)), (x[::-1], np.empty_like(x))):
        for call in against(np.minimum, given, 0.5, out):
            call()
        np.testing.assert_array_equal(out, np.minimum(given, 0.5))
