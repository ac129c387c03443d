"""What a metric is: the mean of something over predictions, or something that accumulates over an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import snake
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.naming import CheckedKeywords, plain_config
from asyncfit.nn.outcome import Outcome

from .totals import Totals

__all__ = ["AccumulatedMetric", "Direction", "Metric"]

Direction = Literal["min", "max"]


class Metric(CheckedKeywords):
    """Base of all metrics that are means over samples. One of your own needs `values` alone::

        class Overshoot(Metric):
            def values(self, y_true, y_pred):
                return np.maximum(y_pred - y_true, 0).mean(-1)

    In `metrics=` sample weights do not weigh it, in `weighted_metrics=` they do, as in Keras. Metrics keep no numbers
    themselves: one object may serve several models, and evaluations beside a training.

    Attributes:
        name: the key in logs; the class's name in snake case if left out.
        sparse: whether the targets are class numbers (True), arrays like the output (False), or either (None).
        direction: whether less is better ("min") or more ("max"): what callbacks with `mode="auto"` go by. None if
            nobody can tell.
        heeds_mask: whether only those predictions count that a mask lets through, as in Keras for means.
    """

    default_name: ClassVar[str] = ""
    sparse: bool | None = False
    direction: ClassVar[Direction | None] = None
    heeds_mask: ClassVar[bool] = True

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        given: Any = name
        if given is not None and not (isinstance(given, str) and given):
            raise InvalidInput(f"the name of a metric is a text, not {name!r}")
        if dtype not in (None, "float32"):
            raise InvalidInput(f"{type(self).__name__}(dtype={dtype!r}): metrics compute in float32; leave it out")
        self.name = name or self.default_name or snake(type(self).__name__)

    def values(self, y_true: Array, y_pred: Array) -> Any:
        """A value for each prediction, `(rows, …)`; more axes are averaged.

        Args:
            y_true: targets like `y_pred`; or class numbers of the type intp, without the last axis.
            y_pred: outputs, `(rows, …, classes)`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no values(y_true, y_pred)")

    def bind(self, at: Outcome) -> Callable[[], float]:
        """A call that computes the mean over the batch, from `at.y` and the targets."""
        seen, y_pred = self.targets(at), read_only(at.y)
        values, mean = self.values, np.mean

        def value() -> float:
            return float(mean(values(seen(), y_pred)))

        return value

    def targets(self, at: Outcome) -> Callable[[], Array]:
        """A call that gives the targets of the batch, as `values` wants them."""
        sparse = at.target_shape[1:] != at.y.shape[1:] and at.y.shape[-1] > 1 if self.sparse is None else self.sparse
        if not sparse:
            dense = read_only(at.dense())
            return lambda: dense
        labels = at.labels().reshape(at.y.shape[:-1])
        return lambda: labels.astype(np.intp)

    def get_config(self) -> dict[str, Any]:
        """The settings: what making the same metric again takes."""
        return {"name": self.name, "dtype": "float32"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The metric with these settings."""
        made = cls(**plain_config(cls, config, ignored=("dtype", "fn")))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        settings = {k: v for k, v in self.get_config().items() if k != "dtype"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"


class AccumulatedMetric(Metric):
    """Base of all metrics that are no means of batches: they count over the epoch, and only its end has their value.

    One of your own says what it counts in, counts, and tells::

        class Specificity(AccumulatedMetric):
            direction = "max"

            def accumulators(self, output_shape):
                return {"found": (), "negatives": ()}

            def update(self, totals, y_true, y_pred, sample_weight):
                negative = y_true < 0.5
                weight = 1.0 if sample_weight is None else sample_weight[..., None]
                totals.found += np.sum(weight * (negative & (y_pred < 0.5)))
                totals.negatives += np.sum(weight * negative)

            def result(self, totals):
                return totals.found / max(totals.negatives, 1.0)

    The accumulators are float64 and part of the model's state: they begin each epoch at zero, and checkpoints,
    snapshots and decisions that go back keep them right. Validation has its own.
    """

    heeds_mask: ClassVar[bool] = False

    def accumulators(self, output_shape: Shape) -> Mapping[str, Shape]:
        """What it counts in: names to shapes; `output_shape` is without the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no accumulators(output_shape)")

    def update(self, totals: Any, y_true: Array, y_pred: Array, sample_weight: Array | None) -> None:
        """Count a batch.

        Args:
            totals: has each accumulator as an attribute.
            y_true, y_pred: as for `values`.
            sample_weight: one for each prediction, `(rows, …)`; None if all weigh 1.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update(totals, y_true, y_pred, sample_weight)")

    def result(self, totals: Any) -> Any:
        """The value, over all that was counted; with `parts` above 1 that many."""
        raise NotImplementedError(f"{type(self).__name__} has no result(totals)")

    def parts(self, output_shape: Shape) -> int:
        """How many values `result` gives; above 1 they stand in logs as `name[0]`, `name[1]` …"""
        return 1

    def bind(self, at: Outcome) -> Callable[[], float]:
        raise InvalidInput(f"{self!r} accumulates over the epoch: it has no value of one batch")

    def bind_update(self, at: Outcome, totals: Totals, weights: Callable[[], Array] | None) -> Callable[[], None]:
        """A call that counts the batch. `weights` gives those of the predictions, `(rows, …)`."""
        seen, y_pred, update = self.targets(at), read_only(at.y), self.update

        def run() -> None:
            update(totals, seen(), y_pred, None if weights is None else weights())

        return run


def read_only(array: Array) -> Array:
    """A view for those who may look and not touch."""
    view = array.view()
    view.flags.writeable = False
    return view
