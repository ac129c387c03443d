"""The metrics, by family. A new one is a class in its family's file and a line in `SPELLINGS`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeAlias

from asyncfit.errors import InvalidInput
from asyncfit.names import snake, unknown
from asyncfit.nn import losses
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import fold, look_up

from .accuracy import Accuracy as Accuracy
from .accuracy import BinaryAccuracy as BinaryAccuracy
from .accuracy import CategoricalAccuracy as CategoricalAccuracy
from .accuracy import SparseCategoricalAccuracy as SparseCategoricalAccuracy
from .accuracy import chosen_accuracy
from .auc import AUC as AUC
from .auc import PrecisionAtRecall as PrecisionAtRecall
from .auc import RecallAtPrecision as RecallAtPrecision
from .auc import SensitivityAtSpecificity as SensitivityAtSpecificity
from .auc import SpecificityAtSensitivity as SpecificityAtSensitivity
from .base import AccumulatedMetric as AccumulatedMetric
from .base import Direction as Direction
from .base import Metric as Metric
from .confusion import FalseNegatives as FalseNegatives
from .confusion import FalsePositives as FalsePositives
from .confusion import Precision as Precision
from .confusion import Recall as Recall
from .confusion import TrueNegatives as TrueNegatives
from .confusion import TruePositives as TruePositives
from .f_score import F1Score as F1Score
from .f_score import FBetaScore as FBetaScore
from .iou import BinaryIoU as BinaryIoU
from .iou import IoU as IoU
from .iou import MeanIoU as MeanIoU
from .iou import OneHotIoU as OneHotIoU
from .iou import OneHotMeanIoU as OneHotMeanIoU
from .own import LossMetric, settings_of
from .own import MeanMetricWrapper as MeanMetricWrapper
from .probabilistic import BinaryCrossentropy as BinaryCrossentropy
from .probabilistic import CategoricalCrossentropy as CategoricalCrossentropy
from .probabilistic import CategoricalHinge as CategoricalHinge
from .probabilistic import Hinge as Hinge
from .probabilistic import KLDivergence as KLDivergence
from .probabilistic import Poisson as Poisson
from .probabilistic import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from .probabilistic import SquaredHinge as SquaredHinge
from .regression import LogCoshError as LogCoshError
from .regression import MeanAbsoluteError as MeanAbsoluteError
from .regression import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from .regression import MeanSquaredError as MeanSquaredError
from .regression import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from .regression import R2Score as R2Score
from .regression import RootMeanSquaredError as RootMeanSquaredError
from .similarity import ConcordanceCorrelation as ConcordanceCorrelation
from .similarity import CosineSimilarity as CosineSimilarity
from .similarity import PearsonCorrelation as PearsonCorrelation
from .tally import Entry, Tally
from .top_k import SparseTopKCategoricalAccuracy as SparseTopKCategoricalAccuracy
from .top_k import TopKCategoricalAccuracy as TopKCategoricalAccuracy
from .totals import Totals as Totals

__all__ = [
    "AUC",
    "AccumulatedMetric",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConcordanceCorrelation",
    "CosineSimilarity",
    "Direction",
    "Entry",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "IoU",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanIoU",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "MetricLike",
    "OneHotIoU",
    "OneHotMeanIoU",
    "PearsonCorrelation",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "R2Score",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "Tally",
    "TopKCategoricalAccuracy",
    "Totals",
    "TrueNegatives",
    "TruePositives",
    "choose",
    "config",
    "directions",
    "get_all",
    "keyed",
    "meant",
]

MetricLike: TypeAlias = (
    str | Metric | type[Metric] | losses.Loss | type[losses.Loss] | Callable[..., Any] | Mapping[str, Any]
)

KINDS: tuple[type[Metric], ...] = (
    AUC,
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    BinaryIoU,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    F1Score,
    FBetaScore,
    FalseNegatives,
    FalsePositives,
    Hinge,
    IoU,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanIoU,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    OneHotIoU,
    OneHotMeanIoU,
    PearsonCorrelation,
    Poisson,
    Precision,
    PrecisionAtRecall,
    R2Score,
    Recall,
    RecallAtPrecision,
    RootMeanSquaredError,
    SensitivityAtSpecificity,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SpecificityAtSensitivity,
    SquaredHinge,
    TopKCategoricalAccuracy,
    TrueNegatives,
    TruePositives,
)
SPELLINGS: dict[str, type[Metric]] = {snake(cls.__name__): cls for cls in KINDS} | {
    "acc": Accuracy,
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
TABLE = {fold(name): cls for name, cls in SPELLINGS.items()}
KERAS: set[str] = {*SPELLINGS, *(cls.__name__ for cls in KINDS), "BCE", "MAE", "MAPE", "MSE", "MSLE"} - {
    "accuracy",
    "acc",
}
"""The names that Keras reads as they stand."""
FUNCTIONS: dict[Callable[..., Array], type[Metric]] = {
    losses.mean_squared_error: MeanSquaredError,
    losses.mean_absolute_error: MeanAbsoluteError,
}


def get_all(given: MetricLike | Iterable[MetricLike] | None, custom: Mapping[str, Any] = {}) -> list[Metric | str]:
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
    return [get(one, custom) for one in given]


def get(given: MetricLike, custom: Mapping[str, Any] = {}) -> Metric | str:
    """The metric for a name, a metric, its class, a function, a loss or a config; "accuracy" and "acc" stay names.

    Args:
        custom: own metrics and functions by their names.
    """
    found: Any = given
    if isinstance(found, str) and found in custom:
        found = custom[found]
    if isinstance(found, Metric):
        if not hasattr(found, "name"):
            raise InvalidInput(f"{type(found).__name__}.__init__ must call super().__init__(name)")
        return found
    if isinstance(found, str):
        return _named(found)
    if isinstance(found, type) and issubclass(found, Metric):
        return _made(found, {})
    if isinstance(found, Mapping):
        return _configured(found, custom)
    if isinstance(found, losses.Loss) or (isinstance(found, type) and issubclass(found, losses.Loss)):
        return of_loss(found)
    if isinstance(found, Hashable) and found in FUNCTIONS:
        return FUNCTIONS[found]()
    if isinstance(found, Hashable) and found in losses.KINDS:
        return of_loss(losses.KINDS[found])
    if callable(found) and not isinstance(found, type):
        return MeanMetricWrapper(found)
    raise InvalidInput(
        f"a metric is a name, an object from asyncfit.metrics, or a function f(y_true, y_pred), not {given!r}; for one "
        "of your own derive from asyncfit.metrics.Metric and write its values"
    )


def _named(name: str) -> Metric | str:
    if name.lower() in ("accuracy", "acc"):
        return name
    cls = TABLE.get(fold(name))
    if cls is not None:
        return _made(cls, {"name": name})
    if (loss := losses.TABLE.get(fold(name))) is not None:
        return of_loss(loss, name)
    raise InvalidInput(unknown("metric", name, {*SPELLINGS, *losses.SPELLINGS}))


def of_loss(given: losses.Loss | type[losses.Loss], name: str | None = None) -> Metric:
    """A loss, or its class, as a metric: the metric of the same name and settings, else the mean of its function."""
    loss = given() if isinstance(given, type) else given
    cls = TABLE.get(fold(type(loss).name))
    if cls is None or cls is CosineSimilarity:  # as a loss it is less where it is better
        return LossMetric(loss, name)
    try:
        return cls(**settings_of(loss), name=name or type(loss).name)
    except TypeError:
        return LossMetric(loss, name)


def _made(cls: type[Metric], settings: Mapping[str, Any]) -> Metric:
    try:
        return cls(**settings)
    except TypeError as error:
        if "required" not in str(error):
            raise
        missing = str(error).partition("argument")[2].lstrip("s: ")
        raise InvalidInput(
            f"the metric {cls.__name__} needs settings ({missing}); give the object, as in metrics.{cls.__name__}(…)"
        ) from None


def _configured(given: Mapping[str, Any], custom: Mapping[str, Any]) -> Metric | str:
    name, settings = str(given.get("class_name")), given.get("config")
    if name == "function" and isinstance(settings, str):
        return get(settings, custom)
    if name == "MeanMetricWrapper" and isinstance(settings, Mapping) and "fn" in settings:
        return _wrapped(settings, custom)
    cls: Any = custom.get(name)
    if cls is None and fold(name) not in TABLE and fold(name) in losses.TABLE:
        return of_loss(losses.get(given))
    if cls is None:
        cls = look_up("metric", name, TABLE, SPELLINGS)
    elif not (isinstance(cls, type) and issubclass(cls, Metric)):
        raise InvalidInput(f"custom_objects[{name!r}] is {cls!r}, not a class derived from asyncfit.metrics.Metric")
    made: Metric = cls.from_config(settings) if isinstance(settings, Mapping) else _made(cls, {})
    return made


def _wrapped(settings: Mapping[str, Any], custom: Mapping[str, Any]) -> Metric | str:
    """What Keras writes of a function: it and its name in logs."""
    fn = settings["fn"]
    known = str(fn.get("config")) if isinstance(fn, Mapping) and fn.get("module") == "keras.losses" else ""
    loss = losses.TABLE.get(fold(known))
    inner = get(fn, custom) if loss is None else of_loss(loss)
    if isinstance(inner, str):
        return inner
    rest = {key: value for key, value in settings.items() if key not in ("name", "dtype", "fn")}
    name = str(settings.get("name") or inner.name)
    if isinstance(inner, MeanMetricWrapper):
        inner = copy.copy(inner)
        inner.name, inner.kwargs = name, inner.kwargs | rest
        return inner
    return type(inner).from_config({**rest, "name": name})


def keyed(metrics: Iterable[Metric | str], weighted: Iterable[Metric | str] = ()) -> list[Entry]:
    """The metrics with their keys in logs, as Keras names them: a second one of the same name gets `_1`, one of
    `weighted_metrics` whose name is taken `weighted_` first.
    """
    found: list[Entry] = []
    counts: dict[str, int] = {}
    for metric, weighs in [*((metric, False) for metric in metrics), *((metric, True) for metric in weighted)]:
        key = metric if isinstance(metric, str) else metric.name
        if weighs and key in counts:
            key = f"weighted_{key}"
        times = counts.get(key, 0)
        counts[key] = times + 1
        found.append((f"{key}_{times}" if times else key, metric, weighs))
    return found


def meant(metric: Metric | str, output_shape: Shape, target_shape: Shape) -> Metric:
    """The metric itself; what "accuracy" is for these shapes, batch included."""
    return chosen_accuracy(metric, output_shape, target_shape) if isinstance(metric, str) else metric


def choose(metrics: Iterable[Metric | str], output_shape: Shape, target_shape: Shape) -> dict[str, Metric]:
    """The metrics by their keys in logs, for these shapes."""
    return {key: meant(metric, output_shape, target_shape) for key, metric, _ in keyed(metrics)}


def directions(entries: Iterable[Entry], output_shape: Shape | None = None) -> dict[str, Direction | None]:
    """By their keys in logs, in their order, whether less or more of each metric is better, as far as it is known."""
    known: dict[str, Direction | None] = {}
    for key, metric, _ in entries:
        direction = Accuracy.direction if isinstance(metric, str) else metric.direction
        parts = 1
        if isinstance(metric, AccumulatedMetric) and output_shape is not None:
            parts = metric.parts(output_shape)
        known |= dict.fromkeys([key] if parts == 1 else [f"{key}[{i}]" for i in range(parts)], direction)
    return known


def config(metric: Metric | str) -> str | dict[str, Any]:
    """What a training config holds: the name, or class and settings; so that Keras reports under the same key."""
    if isinstance(metric, str):
        return metric
    if isinstance(metric, MeanMetricWrapper):
        return metric.written()
    cls = TABLE.get(fold(metric.name)) if metric.name in KERAS else None
    if cls is not None and type(metric) is cls:
        try:
            if metric.get_config() == cls().get_config():  # under another name Keras would not know it again
                return metric.name
        except TypeError:
            pass  # it needs settings
    return {"class_name": type(metric).__name__, "config": metric.get_config()}
