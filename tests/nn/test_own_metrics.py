"""Metrics of one's own: functions, means and what accumulates; as their docstrings show them."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import Sequential, layers, load_model, losses, metrics, regularizers
from asyncfit.errors import BadFile, InvalidInput
from asyncfit.nn import losses as losses_
from asyncfit.nn.arrays import Array

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 3)).astype(np.float32)
Y = (X[:, 0] + RNG.standard_normal(30) > 0).astype(np.float32)
W = RNG.random(30).astype(np.float32)


def example(cls: type) -> Any:
    """The class that the docstring shows."""
    shown = (inspect.getdoc(cls) or "").partition("::\n\n")[2]
    lines = shown.splitlines()
    end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    names: dict[str, Any] = {"np": np, "Metric": metrics.Metric, "AccumulatedMetric": metrics.AccumulatedMetric}
    before = set(names)
    exec(textwrap.dedent("\n".join(lines[:end])), names)
    (made,) = names.keys() - before - {"__builtins__"}
    return names[made]


Overshoot, Specificity = example(metrics.Metric), example(metrics.AccumulatedMetric)


def bias(y_true: Array, y_pred: Array) -> Array:
    assert y_true.shape == y_pred.shape, "no product of a row with a column comes about"
    each: Array = (y_pred - y_true)[:, 0]
    return each


def hit_rate(y_true: Array, y_pred: Array) -> Any:
    return np.equal(y_true, y_pred.argmax(-1))


def model(given: Any, weighted: Any = None) -> Sequential:
    made = Sequential([layers.Input((3,)), layers.Dense(1, "sigmoid")], seed=2)
    made.compile("sgd", "binary_crossentropy", metrics=given, weighted_metrics=weighted)
    return made


def test_the_docstrings_examples_work_and_survive_a_file(tmp_path: Path) -> None:
    own = [Overshoot(), Specificity(), bias]
    one = model(own, own)
    figures = one.evaluate(X, Y, sample_weight=W, batch_size=7, return_dict=True).blocking()
    p = one.predict(X).blocking()[:, 0]
    over, negative = np.maximum(p - Y, 0), Y < 0.5
    right = negative & (p < 0.5)
    expected = {
        "overshoot": np.mean(over), "specificity": right.sum() / negative.sum(), "bias": np.mean(p - Y),
        "weighted_overshoot": np.average(over, weights=W), "weighted_specificity": W[right].sum() / W[negative].sum(),
        "weighted_bias": np.average(p - Y, weights=W),
    }  # fmt: skip
    assert list(figures) == ["loss", *expected]
    assert {key: figures[key] for key in expected} == pytest.approx(expected, rel=1e-5)

    one.save(tmp_path / "m.h5").blocking()
    with pytest.raises(BadFile, match=r"unknown metric 'Overshoot'.*custom_objects"):
        load_model(tmp_path / "m.h5").blocking()
    own_names = {"Overshoot": Overshoot, "Specificity": Specificity, "bias": bias}
    again = load_model(tmp_path / "m.h5", custom_objects=own_names).blocking()
    assert again.evaluate(X, Y, sample_weight=W, batch_size=7, return_dict=True).blocking() == figures


class Wide(layers.Dense):
    pass


class Slight(regularizers.L2):
    pass


def test_layers_and_penalties_of_ones_own_are_found_by_their_names_too(tmp_path: Path) -> None:
    one = Sequential([layers.Input((3,)), Wide(4), layers.Dense(1, kernel_regularizer=Slight(0.1))])
    one.compile("sgd", "mse", metrics=[bias])
    one.save(tmp_path / "m.h5").blocking()
    with pytest.raises(BadFile, match="unknown layer class 'Wide'"):
        load_model(tmp_path / "m.h5").blocking()
    again = load_model(tmp_path / "m.h5", custom_objects={"Wide": Wide, "Slight": Slight, "bias": bias}).blocking()
    assert [type(layer) for layer in again.layers] == [Wide, layers.Dense]
    assert again.evaluate(X, Y).blocking() == one.evaluate(X, Y).blocking()


def test_class_numbers_come_as_whole_numbers_without_the_last_axis() -> None:
    one = Sequential([layers.Input((3,)), layers.Dense(4)], seed=2)
    labels = RNG.integers(0, 4, 30)
    seen: list[Any] = []

    def watches(y_true: Array, y_pred: Array) -> Any:
        seen.append((y_true.dtype.kind, y_true.shape, y_pred.shape, y_pred.flags.writeable))
        return 1.0

    one.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[hit_rate, watches, "accuracy"])
    figures = one.evaluate(X, labels, batch_size=30, return_dict=True).blocking()
    assert figures["hit_rate"] == figures["accuracy"]
    assert figures["watches"] == 1.0
    assert seen == [("i", (30,), (30, 4), False)]


def test_losses_are_metrics() -> None:
    smooth = losses.BinaryCrossentropy(label_smoothing=0.2)
    one = model([losses.mean_squared_error, smooth, losses.BinaryCrossentropy])
    figures = one.evaluate(X, Y, return_dict=True).blocking()
    p = one.predict(X).blocking()
    assert list(figures)[1:] == ["mean_squared_error", "binary_crossentropy", "binary_crossentropy_1"]
    assert figures["binary_crossentropy"] == pytest.approx(
        np.mean(losses.binary_crossentropy(Y[:, None], p, label_smoothing=0.2)), rel=1e-5
    )
    assert figures["binary_crossentropy_1"] == pytest.approx(figures["loss"], rel=1e-5)


@pytest.mark.parametrize("function", losses_.KINDS, ids=lambda function: function.__name__)
def test_each_loss_is_a_metric_as_function_class_object_and_name(function: Any, tmp_path: Path) -> None:
    cls = losses_.KINDS[function]
    one = Sequential([layers.Input((3,)), layers.Dense(2, "softmax")], seed=0)
    y = RNG.integers(0, 2, 30) if cls.sparse else np.eye(2)[RNG.integers(0, 2, 30)]
    own = [function, cls, cls()] if cls.name == "cosine_similarity" else [function, cls, cls(), cls.name]
    one.compile("sgd", cls(), metrics=own)
    figures = one.evaluate(X, y, return_dict=True).blocking()
    assert [*figures.values()] == pytest.approx([figures["loss"]] * (1 + len(own)), rel=1e-5)
    one.save(tmp_path / "m.h5").blocking()
    assert load_model(tmp_path / "m.h5").blocking().evaluate(X, y, return_dict=True).blocking() == figures


def test_settings_of_losses_count() -> None:
    one = model([losses.Huber(delta=0.1), "log_cosh", "kld"])
    figures = one.evaluate(X, Y, return_dict=True).blocking()
    assert list(figures) == ["loss", "huber", "log_cosh", "kld"]
    p = one.predict(X).blocking()
    assert figures["huber"] == pytest.approx(np.mean(losses.huber(Y[:, None], p, delta=0.1)), rel=1e-5)


def test_losses_as_metrics_survive_a_file(tmp_path: Path) -> None:
    one = model([losses.BinaryCrossentropy(label_smoothing=0.2), losses.BinaryCrossentropy])
    one.save(tmp_path / "m.h5").blocking()
    again = load_model(tmp_path / "m.h5").blocking()
    assert again.evaluate(X, Y).blocking() == one.evaluate(X, Y).blocking()


class Nameless(metrics.Metric):
    def __init__(self) -> None:
        pass


class Vague(metrics.AccumulatedMetric):
    def accumulators(self, output_shape: Any) -> Any:
        return {"found": (2,)}

    def update(self, totals: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        totals.found += 1

    def result(self, totals: Any) -> Any:
        return totals.found


class Parts(Vague):
    def parts(self, output_shape: Any) -> int:
        return 2


class Misspelled(Vague):
    def update(self, totals: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        totals.lost += 1


class Shapeless(Vague):
    def accumulators(self, output_shape: Any) -> Any:
        return {"found": "many"}


def says_nothing(y_true: Array, y_pred: Array) -> Any:
    return None


BAD: list[tuple[Any, type[Exception], str]] = [
    (Nameless(), InvalidInput, r"Nameless.__init__ must call super\(\).__init__"),
    (Vague(), InvalidInput, r"Vague.* not one number; .*parts\(\)"),
    (Misspelled(), AttributeError, r"accumulators\(\) names found, and no 'lost'"),
    (Shapeless(), InvalidInput, r"'shapeless' gives names to shapes.*'found': 'many'"),
    (metrics.AccumulatedMetric(), NotImplementedError, r"has no accumulators"),
    (metrics.Metric(), NotImplementedError, r"has no values"),
    (says_nothing, InvalidInput, "the metric says_nothing gave None; it gives a number for each sample"),
    ("mean_io_u", InvalidInput, r"MeanIoU needs settings \('num_classes'\).*metrics.MeanIoU"),
    ("aux", InvalidInput, "unknown metric 'aux'; did you mean 'auc'"),
    (3, InvalidInput, "a function f"),
]


@pytest.mark.parametrize(("given", "kind", "message"), BAD)
def test_slips_are_told(given: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        model([given]).evaluate(X, Y).blocking()


def test_several_values_stand_one_by_one() -> None:
    one = model([Parts(), metrics.Precision([0.3, 0.6])])
    figures = one.evaluate(X, Y, batch_size=10, return_dict=True).blocking()
    assert list(figures) == ["loss", "parts[0]", "parts[1]", "precision[0]", "precision[1]"]
    assert one.metrics_names == list(figures)
    assert Sequential([layers.Dense(1)]).metrics_names == []
    assert figures["parts[1]"] == 3


SETTINGS: list[tuple[Callable[[], object], str]] = [
    (lambda: metrics.AUC(1), "num_thresholds"),
    (lambda: metrics.AUC(curve="PQ"), "unknown curve 'PQ'"),
    (lambda: metrics.AUC(summation_method="x"), "unknown summation method"),
    (lambda: metrics.AUC(num_labels=3), "multi_label=True"),
    (lambda: metrics.Precision(1.5), "numbers from 0 to 1"),
    (lambda: metrics.Recall(top_k=0), "top_k"),
    (lambda: metrics.F1Score("mean"), "unknown average 'mean'"),
    (lambda: metrics.FBetaScore(beta=0.0), "beta"),
    (lambda: metrics.R2Score("mean"), "class_aggregation"),
    (lambda: metrics.IoU(2, [2]), "classes from 0 to 1"),
    (lambda: metrics.PrecisionAtRecall(2.0), "recall"),
    (lambda: metrics.CosineSimilarity(axis=0), "axis"),
    (lambda: metrics.MeanSquaredError(dtype="float16"), "leave it out"),
    (lambda: metrics.MeanSquaredError(3), "the name of a metric is a text"),  # type: ignore[arg-type]
    (lambda: model([metrics.AUC(multi_label=True, label_weights=[1.0, 2.0])]), "2 label_weights for 1 outputs"),
    (lambda: model([metrics.Precision(class_id=1)]), "class_id is above"),
    (lambda: load_model("m.h5", custom_objects=[bias]), "custom_objects= takes a dict"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "message"), SETTINGS)
def test_settings_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
