"""The metrics, by family. A new one is a class in its family's file and a line in `SPELLINGS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from asyncfit.errors import InvalidInput
from asyncfit.nn import losses
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import fold, look_up

from .accuracy import Accuracy as Accuracy
from .accuracy import BinaryAccuracy as BinaryAccuracy
from .accuracy import CategoricalAccuracy as CategoricalAccuracy
from .accuracy import SparseCategoricalAccuracy as SparseCategoricalAccuracy
from .accuracy import chosen_accuracy
from .base import Direction as Direction
from .base import Metric as Metric
from .regression import MeanAbsoluteError as MeanAbsoluteError
from .regression import MeanSquaredError as MeanSquaredError

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "Direction",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "MetricLike",
    "SparseCategoricalAccuracy",
    "choose",
    "config",
    "directions",
    "get_all",
]

MetricLike: TypeAlias = str | Metric | type[Metric] | Callable[..., Array] | Mapping[str, Any]

SPELLINGS: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "acc": Accuracy,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}
TABLE = {fold(name): cls for name, cls in SPELLINGS.items()}
FUNCTIONS: dict[Callable[..., Array], type[Metric]] = {
    losses.mean_squared_error: MeanSquaredError,
    losses.mean_absolute_error: MeanAbsoluteError,
}


def get_all(given: MetricLike | Iterable[MetricLike] | None) -> list[Metric | str]:
    """What `compile(metrics=…)` was given, as a list. "accuracy" and "acc" stay names: what they mean depends on the
    shapes, which `choose` is told later. As in Keras the key in logs is the name as it was typed, or the metric's own.

    Raises:
        InvalidInput: a name is unknown (the message has the nearest known one), or it is no metric of ours.
    """
    if given is None:
        return []
    if isinstance(given, str | Metric | Mapping | type) or callable(given):
        given = [given]
    if not isinstance(given, Iterable):
        raise InvalidInput(f"metrics is a list of names or objects from asyncfit.metrics, not {given!r}")
    return [get(one) for one in given]


def get(given: MetricLike) -> Metric | str:
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        cls = look_up("metric", given, TABLE, SPELLINGS)
        return given if given.lower() in ("accuracy", "acc") else cls(given)
    if isinstance(given, type) and issubclass(given, Metric):
        return given()
    if isinstance(given, Mapping):
        cls = look_up("metric", str(given.get("class_name")), TABLE, SPELLINGS)
        settings = given.get("config")
        return cls.from_config(settings) if isinstance(settings, Mapping) else cls()
    if callable(given) and given in FUNCTIONS:  # type: ignore[redundant-expr]
        return FUNCTIONS[given]()
    raise InvalidInput(
        f"a metric is a name or an object from asyncfit.metrics, not {given!r}; for one of your own derive from "
        "asyncfit.metrics.Metric and write its bind"
    )


def choose(metrics: Iterable[Metric | str], output_shape: Shape, target_shape: Shape) -> dict[str, Metric]:
    """The metrics by their keys in logs, for these shapes; a second one of the same name gets `_1`, as in Keras."""
    chosen: dict[str, Metric] = {}
    counts: dict[str, int] = {}
    for metric in metrics:
        metric = chosen_accuracy(metric, output_shape, target_shape) if isinstance(metric, str) else metric
        times = counts.get(metric.name, 0)
        counts[metric.name] = times + 1
        chosen[f"{metric.name}_{times}" if times else metric.name] = metric
    return chosen


def directions(metrics: Iterable[Metric | str]) -> dict[str, Direction | None]:
    """By their keys in logs, whether less or more of each metric is better, as far as it is known."""
    known: dict[str, Direction | None] = {}
    counts: dict[str, int] = {}
    for metric in metrics:
        name, cls = (metric, Accuracy) if isinstance(metric, str) else (metric.name, type(metric))
        times = counts.get(name, 0)
        counts[name] = times + 1
        known[f"{name}_{times}" if times else name] = cls.direction
    return known


def config(metric: Metric | str) -> str | dict[str, Any]:
    """What a training config holds: the name, or class and settings."""
    if isinstance(metric, str):
        return metric
    cls = TABLE.get(fold(metric.name))
    if cls is not None and type(metric) is cls and metric.get_config() == cls(metric.name).get_config():
        return metric.name
    return {"class_name": type(metric).__name__, "config": metric.get_config()}
