"""What Keras's data keywords mean. The figures were taken from Keras 3.15.1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncfit.data import RowData, plan_evaluate, plan_fit, plan_predict
from asyncfit.data.arrays import Array

X, Y = np.arange(30, dtype=np.float32).reshape(10, 3), np.arange(10) % 2


def column(source: RowData, which: int, epoch: int = 0) -> list[float]:
    got: list[float] = []
    for batch in source.batches(epoch):
        part: Any = batch[which]
        got.extend(part.reshape(len(part), -1)[:, 0].tolist())
    return got


@pytest.mark.parametrize(
    ("rows", "split", "train"), [(10, 0.2, 8), (7, 0.3, 4), (3, 0.5, 1), (100, 0.07, 93), (2048, 0.1, 1843)]
)
def test_a_split_takes_the_last_rows_of_everything_before_shuffling(rows: int, split: float, train: int) -> None:
    number = np.arange(rows)
    plan = plan_fit(number * 1.0, number, sample_weight=number + 0.5, validation_split=split)
    data = plan.read((1, 0))
    assert data.validation is not None
    assert (plan.samples, plan.validation_samples) == (train, rows - train)
    for which in (0, 1):
        assert sorted(column(data.train, which)) == list(range(train))
        assert column(data.validation, which) == list(range(train, rows))
    assert column(data.validation, 2) == [n + 0.5 for n in range(train, rows)]
    assert column(data.train, 2) == [n + 0.5 for n in column(data.train, 1)]
    assert rows < 5 or column(data.train, 0) != list(range(train))


def test_a_split_copies_nothing() -> None:
    data = plan_fit(X, Y, validation_split=0.5).read()
    assert data.validation is not None
    assert np.shares_memory(data.train.x, X)
    assert np.shares_memory(data.validation.x, X)


def test_validation_data_wins_over_a_split() -> None:
    plan = plan_fit(X, Y, validation_data=(X[:4], Y[:4]), validation_split=0.5)
    data = plan.read()
    assert data.validation is not None
    assert (plan.samples, data.validation.samples, data.validation.sample_weight) == (10, 4, None)
    weighted = plan_fit(X, Y, validation_data=[X, Y[:, None], np.ones((10, 1))]).read().validation
    assert weighted is not None
    assert weighted.sample_weight is not None
    assert weighted.sample_weight.shape == (10,)


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        (1, [True] * 4),
        (2, [False, True, False, True]),
        ([1, 4], [True, False, False, True]),
        ((1, 4), [True, False, False, True]),
        ({4}, [False, False, False, True]),
        (range(2, 4), [False, True, True, False]),
        (np.array([1, 2]), [True, True, False, False]),
        (np.int64(3), [False, False, True, False]),
    ],
)
def test_validation_freq_counts_epochs_from_1(freq: Any, expected: list[bool]) -> None:
    plan = plan_fit(X, Y, validation_split=0.5, validation_freq=freq)
    assert [plan.validates(e) for e in range(4)] == expected
    assert not any(plan_fit(X, Y, validation_freq=freq).validates(e) for e in range(4))


CLASSES: list[Any] = [
    pytest.param(np.array([0, 1, 2]), {0: 5, 1: 7, 2: 9}, [5, 7, 9], id="integers"),
    pytest.param(np.array([0, 1, 2]), {1: 3.0}, [1, 3, 1], id="a class left out weighs 1"),
    pytest.param(np.array([0, 1, 2]), {}, [1, 1, 1], id="no class"),
    pytest.param(np.array([-1, 1, 1]), {-1: 2, 1: 4}, [2, 4, 4], id="negative"),
    pytest.param(np.array([[0.0], [1.0], [1.0]]), {0: 5, 1: 7}, [5, 7, 7], id="column"),
    pytest.param(np.array([0.1, 0.9, 0.4]), {0: 5, 1: 7}, [5, 7, 5], id="smoothed"),
    pytest.param(np.array([True, False, True]), {False: 5, True: 7}, [7, 5, 7], id="bool"),
    pytest.param(np.eye(3)[[0, 2, 1]], {0: 5, 2: 9}, [5, 9, 1], id="one-hot"),
    pytest.param(np.array([0, 1, 2], np.uint8), {np.int64(0): np.float32(5)}, [5, 1, 1], id="numpy's types"),
]


@pytest.mark.parametrize(("y", "weights", "expected"), CLASSES)
def test_class_weight_weighs_rows(y: Array, weights: dict[int, float], expected: list[float]) -> None:
    train = plan_fit(np.zeros((3, 2)), y, class_weight=weights, shuffle=False).read().train
    assert column(train, 2) == expected


def test_class_weight_is_for_training_alone() -> None:
    data = plan_fit(X, Y, class_weight={1: 3.0}, validation_split=0.5, shuffle=False).read()
    assert data.validation is not None
    assert column(data.train, 2) == [1, 3, 1, 3, 1]
    assert data.validation.sample_weight is None


def test_class_weight_with_many_rows_in_blocks() -> None:
    y = np.random.default_rng(0).integers(0, 5, 400_000)
    weight = plan_fit(y[:, None], y, class_weight={1: 2.0, 3: 0.5}).read().train.sample_weight
    assert weight is not None
    np.testing.assert_array_equal(weight, np.array([1, 2, 1, 0.5, 1], np.float32)[y])


def test_negative_weights_of_rows_are_taken_as_in_keras() -> None:
    assert column(plan_fit(X, Y, sample_weight=-np.ones(10)).read().train, 2) == [-1] * 10


@pytest.mark.parametrize(
    ("options", "size", "steps"),
    [
        ({}, 32, [1, 1]),
        ({"batch_size": 3}, 3, [4, 4]),
        ({"batch_size": 3, "steps_per_epoch": 3}, 3, [3, 1]),
        ({"batch_size": 3, "steps_per_epoch": 6}, 3, [4, 4]),
        ({"batch_size": None, "steps_per_epoch": 4}, 3, [4, 4]),
        ({"batch_size": None}, 32, [1, 1]),
        ({"batch_size": 3, "validation_split": 0.5}, 3, [2, 2]),
        ({"batch_size": np.int32(100)}, 100, [1, 1]),
    ],
)
def test_batches_an_epoch(options: dict[str, Any], size: int, steps: list[int]) -> None:
    plan = plan_fit(X, Y, **options)
    train = plan.read().train
    assert plan.batch_size == train.batch_size == size
    assert [train.steps(e) for e in range(2)] == steps
    assert plan.steps == max(steps)


def test_validation_has_its_own_batches_always_from_the_start() -> None:
    plan = plan_fit(X, Y, batch_size=4, validation_data=(X, Y), validation_steps=2, validation_batch_size=3)
    source = plan.read().validation
    assert source is not None
    assert column(source, 0) == [0, 3, 6, 9, 12, 15]
    assert (source.steps(0), source.batch_size) == (2, 3)
    default = plan_fit(X, Y, batch_size=4, validation_data=(X, Y)).read().validation
    assert default is not None
    assert default.batch_size == 4


def test_epochs_and_seeds_reach_the_source() -> None:
    plan = plan_fit(X, Y, epochs=np.int64(7), initial_epoch=5)
    assert (plan.epochs, plan.initial_epoch) == (7, 5)
    one, two = plan.read((1, 0)).train, plan.read((1, 1)).train
    assert column(one, 0) != column(two, 0)
    assert column(one, 0) == column(plan.read((1, 0)).train, 0)
    assert column(one, 0, 0) != column(one, 0, 1)


def test_evaluate_and_predict_go_through_the_rows_once_and_in_order() -> None:
    plan = plan_predict(X, batch_size=4)
    assert (plan.samples, plan.steps) == (10, 3)
    assert column(plan.read(), 0) == X[:, 0].tolist()
    assert [batch[1:] for batch in plan.read().batches(0)] == [(None, None, 4), (None, None, 4), (None, None, 2)]
    assert column(plan_predict(X, batch_size=4, steps=1).read(), 0) == X[:4, 0].tolist()
    weighed = plan_evaluate(X, Y, sample_weight=Y + 1).read()
    assert column(weighed, 2) == (Y + 1).tolist()


def test_a_users_own_model_may_do_without_y_and_keeps_types_and_weights() -> None:
    source = plan_fit(X.astype("i2"), own_model=True, sample_weight=np.ones((10, 4)), shuffle=False).read().train
    (x, y, weight, _), *_ = source.batches(0)
    assert weight is not None
    assert y is None
    assert [x.dtype.name, weight.dtype.name, weight.shape] == ["int16", "float64", (10, 4)]
    ragged_in_shape = plan_fit(X, own_model=True, validation_data=(X[:, :2],)).read()
    assert ragged_in_shape.validation is not None
    assert ragged_in_shape.validation.x.shape == (10, 2)
    assert plan_evaluate(X, own_model=True).read().y is None


class _Frame:
    """As data frames are: no NumPy array, but it can be made one."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = array.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self._array if dtype is None else self._array.astype(dtype)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Any:
        return iter(["column", "names"])

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)


class _Interface:
    def __init__(self, array: Any) -> None:
        self.__array_interface__ = array.__array_interface__
        self._kept = array


class _Packed:
    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **how: Any) -> Any:
        return self._array.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("rows", [10, 20_000])
@pytest.mark.parametrize("kind", [_Frame, _Interface, _Packed])
def test_arrays_are_taken_by_their_protocols(kind: Any, rows: int) -> None:
    x, y = np.arange(rows * 3.0).reshape(rows, 3), np.arange(rows)
    train = plan_fit(kind(x), kind(y), shuffle=False).read().train
    assert (train.x == x).all()
    assert (train.y == y).all()
