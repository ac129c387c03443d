"""Bad input: what is refused, when (at once, or off the loop), and in which words."""

from __future__ import annotations

import array
import collections
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.data import FitData, Labels, check_labels, label_range, plan_evaluate, plan_fit, plan_predict
from asyncfit.data import values as values_module
from asyncfit.data.values import check_finite
from asyncfit.errors import InvalidInput

X, Y = np.arange(30.0).reshape(10, 3), np.arange(10) % 2
BAD = X.copy()
BAD[4, 1], BAD[7] = np.nan, np.inf
HUGE = X.copy()
HUGE[2, 2] = 1e300
LONG: list[Any] = [[1.0] * 2000 for _ in range(10)]


async def some_coroutine() -> None: ...


async def some_async_generator() -> AsyncIterator[int]:
    yield 1


class OnGpu:
    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        raise TypeError("can't convert cuda tensor")


class Dataset:
    def __getitem__(self, i: int) -> int:
        return i

    def __len__(self) -> int:
        return 10


class Sparse:
    def toarray(self) -> None: ...


class H5Dataset:
    __module__ = "h5py._hl.dataset"

    @property
    def shape(self) -> tuple[int, ...]:
        raise AssertionError("asked h5py on the loop")


NOT_ARRAYS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "None": (lambda: None, ["x is None", "NumPy arrays"]),
    "str": (lambda: "abc", ["x is of type str", "arrays are expected"]),
    "bytes": (lambda: b"abc", ["x is of type bytes"]),
    "dict": (lambda: {"a": X}, ["x is a dict", "one array"]),
    "set": (lambda: {1, 2}, ["x is of type set"]),
    "generator": (lambda: (i for i in [1]), ["x (generator) yields batches", "no y beside it: yield (x, y)"]),
    "iterator": (lambda: iter([1]), ["x (list_iterator) yields batches"]),
    "coroutine": (some_coroutine, ["x is a coroutine; await it"]),
    "async generator": (some_async_generator, ["x (async_generator) yields batches"]),
    "dataset": (Dataset, ["x (Dataset) yields batches"]),
    "object": (object, ["x is of type object"]),
    "sparse": (Sparse, ["sparse", "x.toarray()"]),
    "hdf5": (H5Dataset, ["HDF5", "x[:]"]),
    "gpu": (OnGpu, ["x cannot be made an array", "cuda"]),
    "number": (lambda: 5, ["x is a single number (5)"]),
    "0-d": (lambda: np.array(1.5), ["x is a single number (1.5)"]),
    "no rows": (lambda: np.zeros((0, 3)), ["x is empty", "(0, 3)"]),
    "no features": (lambda: np.zeros((10, 0)), ["x is empty", "(10, 0)"]),
    "[]": (list, ["x is empty"]),
    "ragged": (lambda: [[1, 2]] * 7 + [[3]], ["x is ragged", "row 7 has 1 value where row 0 has 2 values"]),
    "number among rows": (lambda: [[1, 2], 3], ["x is ragged", "row 1 is a single value"]),
    "ragged within": (lambda: [[[1], [2]], [[1], [2, 3]]], ["x is ragged", "further in"]),
    "ragged arrays": (lambda: [np.zeros(3), np.zeros(2)], ["x is ragged", "row 1 has 2 values"]),
    "text": (lambda: [["1", "2"]] * 10, ["x holds text", "<U1"]),
    "labels": (lambda: ["cat", "dog"] * 5, ["x holds text", "return_inverse=True"]),
    "None within": (lambda: [[1, 2]] * 3 + [[1, None]], ["dtype object", "row 3 holds None"]),
    "object dtype": (lambda: np.array([1.0, "a"] * 5, object), ["row 1 holds 'a'", "dtype object"]),
    "dates": (lambda: np.zeros(10, "M8[s]"), ["x holds times", "datetime64[s]"]),
    "durations": (lambda: np.zeros(10, "m8[s]"), ["x holds times"]),
    "complex": (lambda: np.zeros(10, complex), ["x holds complex numbers", "x.real"]),
    "structured": (lambda: np.zeros(10, "i4,f4"), ["x has dtype"]),
    "masked": (lambda: np.ma.masked_array(X, X > 3), ["x is a masked array", "x.filled("]),
    "enormous ints": (lambda: [10**400] * 10, ["dtype object"]),
}


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidInput) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("case", NOT_ARRAYS)
def test_what_is_no_array_is_refused_at_once(case: str) -> None:
    make, parts = NOT_ARRAYS[case]
    value: Any = make()
    message = refusal(lambda: plan_fit(value, Y))
    for part in parts:
        assert part in message


TAKEN: list[Any] = [
    [[1.0, 2.0, 3.0]] * 10,
    tuple(range(10)),
    range(10),
    collections.deque(range(10)),
    array.array("d", range(10)),
    memoryview(b"0123456789"),
    memoryview(array.array("d", range(10))),
    np.ma.masked_array(X),
    np.zeros((10, 3), bool),
    np.zeros((10, 2), np.longdouble),
]


@pytest.mark.parametrize("value", TAKEN, ids=lambda v: type(v).__name__)
def test_what_numpy_takes_is_taken(value: object) -> None:
    train = plan_fit(value, Y).read().train
    assert train.samples == 10
    assert sum(len(x) for x, *_ in train.batches(0)) == 10


def test_an_array_like_that_does_not_tell_its_shape_is_taken() -> None:
    class Bare:
        def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
            return X

    assert plan_fit(Bare(), Y).samples == 10


LATER: dict[str, tuple[Any, list[str]]] = {
    "nan": (BAD, ["x holds NaN or infinity", "2 of 10 rows", "row 4", "nan_to_num"]),
    "float32 nan": (BAD.astype("f4"), ["x holds NaN or infinity", "2 of 10 rows", "row 4"]),
    "too big": (HUGE, ["too big for float32", "1 of 10 rows", "row 2"]),
    "long ragged": ([*LONG[:9], [1.0] * 1999], ["x is ragged", "row 9 has 1999 values"]),
    "long text": ([["a"] * 2000] * 10, ["x holds text"]),
    "long with None": ([*LONG[:9], [None] * 2000], ["row 9 holds None"]),
    "long with nan": ([*LONG[:9], [np.nan] * 2000], ["x holds NaN", "row 9"]),
}


@pytest.mark.parametrize("case", LATER)
def test_what_takes_a_look_at_each_value_is_refused_by_read(case: str) -> None:
    value, parts = LATER[case]
    plan = plan_fit(value, Y)
    message = refusal(plan.read)
    for part in parts:
        assert part in message


def test_a_long_list_is_converted_by_read_only() -> None:
    plan = plan_fit(LONG, Y, validation_split=0.2)
    assert plan.x is None
    assert (plan.samples, plan.validation_samples) == (8, 2)
    assert plan.read().train.x.shape == (8, 2000)


@pytest.mark.parametrize("name", ["y", "sample_weight", "validation_data[0]", "validation_data[2]"])
def test_the_message_names_the_array(name: str) -> None:
    arrays = {"y": Y * 1.0, "sample_weight": np.ones(10), "validation_data[0]": X, "validation_data[2]": np.ones(10)}
    arrays[name] = BAD if name.endswith("[0]") else BAD[:, 1]
    data = (arrays["validation_data[0]"], Y, arrays["validation_data[2]"])
    plan = plan_fit(X, arrays["y"], sample_weight=arrays["sample_weight"], validation_data=data)
    assert refusal(plan.read).startswith(f"{name} holds NaN or infinity in 2 of 10 rows, the first is row 4")


WEIGHTS = np.ones(10)
OPTIONS: list[Any] = [
    ({"batch_size": 0}, ["batch_size=0 is not positive", "from 1"]),
    ({"batch_size": -3}, ["batch_size=-3"]),
    ({"batch_size": 32.0}, ["batch_size=32.0 is a float", "write batch_size=32"]),
    ({"batch_size": True}, ["batch_size=True is a bool"]),
    ({"batch_size": np.True_}, ["batch_size="]),
    ({"batch_size": "3"}, ["batch_size='3' is a str"]),
    ({"epochs": 0}, ["epochs=0 is not positive"]),
    ({"epochs": 1.5}, ["epochs=1.5 is a float"]),
    ({"epochs": None}, ["epochs=None"]),
    ({"initial_epoch": -1}, ["initial_epoch=-1", "from 0"]),
    ({"steps_per_epoch": 0}, ["steps_per_epoch=0"]),
    ({"validation_batch_size": 0}, ["validation_batch_size=0"]),
    ({"validation_steps": 0}, ["validation_steps=0"]),
    ({"validation_freq": 0}, ["validation_freq=0", "list of epochs"]),
    ({"validation_freq": [0, 1]}, ["validation_freq", "0", "count from 1"]),
    ({"validation_freq": "two"}, ["validation_freq='two' is a str"]),
    ({"validation_split": 1.0}, ["validation_split=1.0 is outside [0, 1)"]),
    ({"validation_split": -0.1}, ["validation_split=-0.1 is outside [0, 1)"]),
    ({"validation_split": 20}, ["for 20 % write validation_split=0.2"]),
    ({"validation_split": float("nan")}, ["validation_split=nan"]),
    ({"validation_split": True}, ["validation_split=True is a bool"]),
    ({"validation_split": "a"}, ["validation_split='a' is a str"]),
    ({"validation_split": 0.99}, ["validation_split=0.99 of 10 rows leaves none to train on"]),
    ({"validation_split": 1e-20}, ["leaves none to validate on"]),
    ({"shuffle": "batch"}, ["shuffle='batch'"]),
    ({"sample_weight": np.ones(3)}, ["x has 10 rows but sample_weight has 3"]),
    ({"sample_weight": np.ones((10, 2))}, ["one weight a row", "(10,)"]),
    ({"sample_weight": "balanced"}, ["sample_weight is of type str"]),
    ({"class_weight": "balanced"}, ["class_weight is a str", "{0: 1.0, 1: 5.0}"]),
    ({"class_weight": [1, 2]}, ["class_weight is a list"]),
    ({"class_weight": {"0": 1}}, ["key '0', a str", "class numbers"]),
    ({"class_weight": {0.5: 1}}, ["key 0.5"]),
    ({"class_weight": {0: "a"}}, ["class_weight[0]='a'"]),
    ({"class_weight": {0: -1}}, ["class_weight[0]=-1", "at least 0"]),
    ({"class_weight": {0: float("inf")}}, ["class_weight[0]=inf"]),
    ({"class_weight": {0: 1}, "sample_weight": WEIGHTS}, ["class_weight and sample_weight", "product"]),
    ({"class_weight": {0: 1}, "y": np.zeros((10, 2, 2))}, ["one class a row", "(10, 2, 2)"]),
    ({"y": None}, ["y is missing"]),
    ({"y": Y[:9]}, ["x has 10 rows but y has 9"]),
    ({"x": X.T, "y": Y}, ["x has 3 rows but y has 10", "x.T has 10 rows"]),
    ({"validation_data": X}, ["validation_data is a ndarray", "(x, y)"]),
    ({"validation_data": (X,)}, ["validation_data has 1 items"]),
    ({"validation_data": (X, Y, Y, Y)}, ["validation_data has 4 items"]),
    ({"validation_data": (X, Y[:5])}, ["validation_data[0] has 10 rows but validation_data[1] has 5"]),
    ({"validation_data": (X[:, :2], Y)}, ["validation_data[0]", "(2,)", "(3,)"]),
    ({"validation_data": (X, np.eye(10))}, ["validation_data[1]", "(10,)"]),
    ({"validation_data": (X, None)}, ["validation_data[1] is missing"]),
    ({"validation_data": (X[:0], Y[:0])}, ["validation_data[0] is empty"]),
]


@pytest.mark.parametrize(("options", "parts"), OPTIONS, ids=lambda v: " ".join(v) if isinstance(v, dict) else "")
def test_bad_options_are_refused_at_once(options: dict[str, Any], parts: list[str]) -> None:
    message = refusal(lambda: plan_fit(**{"x": X, "y": Y, **options}))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_no_number_is_proposed_that_would_be_refused_too(value: float) -> None:
    assert "write batch_size=" not in refusal(lambda: plan_fit(X, Y, batch_size=value))


def test_evaluate_and_predict_check_alike() -> None:
    assert "y is missing: evaluate" in refusal(lambda: plan_evaluate(X))
    assert "steps=0" in refusal(lambda: plan_evaluate(X, Y, steps=0))
    assert "batch_size=0" in refusal(lambda: plan_predict(X, batch_size=0))
    assert "x holds NaN" in refusal(plan_predict(BAD).read)


def test_class_weight_needs_classes() -> None:
    plan = plan_fit(X, np.linspace(0, 5, 10), class_weight={0: 1.0})
    assert re.search(r"class_weight needs classes, but y holds 1\.11\d* in row 2", refusal(plan.read))
    late = plan_fit(X, [[[0.0] * 50] * 50] * 10, class_weight={0: 1.0})
    assert "one class a row" in refusal(late.read)


@pytest.mark.parametrize("block", [8, 100, 1 << 20])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_module, "BLOCK_BYTES", block)
    assert "2 of 10 rows, the first is row 4" in refusal(lambda: check_finite("x", BAD))
    assert "2 of 10 rows, the first is row 4" in refusal(lambda: check_finite("x", np.asfortranarray(BAD)))
    check_finite("x", X)
    check_finite("x", HUGE, as_given=True)
    y = np.array([3, 1, -2, 9, 4])
    assert label_range(y) == (-2, 9)
    assert "y has the label -2 in row 2" in refusal(lambda: check_labels("y", y, Labels(5)))


def test_labels_that_a_sparse_loss_cannot_take() -> None:
    check_labels("y", np.array([0, 255, 2, 255]), Labels(3, 255))
    check_labels("y", np.array([-1.0, 2.0]), Labels(3, -1))
    wrong = refusal(lambda: check_labels("y", np.array([255, 254]), Labels(3, 255)))
    assert "label 254 in row 1" in wrong
    assert "from 0 to 2, or 255 (ignore_class)" in wrong
    check_labels("y", np.array([[0], [2]]), Labels(3))
    check_labels("y", np.array([0.0, 2.0]), Labels(3))
    assert "label 3 in row 1" in refusal(lambda: check_labels("y", np.array([0, 3]), Labels(3)))
    assert "label 0.5 in row 0" in refusal(lambda: check_labels("y", np.array([0.5, 1]), Labels(3)))
    data: FitData = plan_fit(X, np.arange(10), validation_split=0.2).read()
    data.check_labels(Labels(10))
    assert refusal(lambda: data.check_labels(Labels(9))).startswith("the validation data's y has the label 9 in row 1")
