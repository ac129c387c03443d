"""The metrics of one pass over data: bound to its batches, and those that accumulate told at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.outcome import Outcome

from .base import AccumulatedMetric, Metric
from .totals import laid_out

__all__ = ["MEAN", "Entry", "Tally"]

MEAN: Mapping[str, Shape] = {"total": (), "weight": ()}
"""What a mean needs that is weighted: batches do not weigh as much as they have rows."""

Entry = tuple[str, Metric | str, bool]
"""Key in logs, metric (or a name whose meaning depends on shapes), and whether sample weights weigh it."""


class Tally:
    """Accumulators for `entries`, at zero.

    Args:
        output_shape: of the model, without the batch.
        masked: whether the model may mask predictions.

    Attributes:
        flat: all of them.
    """

    def __init__(self, entries: Iterable[Entry], output_shape: Shape, masked: bool) -> None:
        shapes: dict[str, Mapping[str, Shape]] = {}
        self._telling: list[tuple[str, AccumulatedMetric | None, int]] = []
        for key, metric, weighted in entries:
            if isinstance(metric, AccumulatedMetric):
                shapes[key] = metric.accumulators(output_shape)
                self._telling.append((key, metric, metric.parts(output_shape)))
            elif weighted or (masked and (isinstance(metric, str) or metric.heeds_mask)):
                shapes[key] = MEAN
                self._telling.append((key, None, 1))
        self.flat, self._totals = laid_out(shapes)

    def bind(
        self, key: str, metric: Metric, weighted: bool, at: Outcome
    ) -> tuple[Callable[[], float] | None, Callable[[], None] | None]:
        """What a batch calls: for the value of the batch, or to accumulate it without one."""
        totals = self._totals.get(key)
        if totals is None:
            return metric.bind(at), None
        weights = _weights(at, weighted, metric.heeds_mask)
        if isinstance(metric, AccumulatedMetric):
            return None, metric.bind_update(at, totals, weights)
        return _weighted_mean(metric, at, totals, weights), None

    def reset(self) -> None:
        """Begin at zero."""
        self.flat[...] = 0.0

    def results(self) -> dict[str, float]:
        """The values over all that was accumulated, by their keys in logs."""
        found: dict[str, float] = {}
        for key, metric, parts in self._telling:
            totals = self._totals[key]
            value = _mean_of(totals) if metric is None else metric.result(totals)
            if parts == 1:
                found[key] = _single(key, metric, value)
                continue
            values = np.asarray(value, float).reshape(-1)
            if values.size != parts:
                raise InvalidInput(f"{metric!r} has parts() of {parts}, but its result() gives {values.size} values")
            found |= {f"{key}[{i}]": float(one) for i, one in enumerate(values)}
        return found


def _single(key: str, metric: Metric | None, value: Any) -> float:
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError):
        raise InvalidInput(
            f"the result() of {metric!r} is {value!r}, not one number; if there are several, its parts() says how many"
        ) from None


def _mean_of(totals: Any) -> float:
    return float(totals.total / totals.weight) if totals.weight else 0.0


def _weights(at: Outcome, weighted: bool, masked: bool) -> Callable[[], Array] | None:
    """A call that gives the weights of the predictions, `(rows, …)`; None if all weigh 1."""
    given = at.given_weights().reshape(at.y.shape[:-1]) if weighted and at.given else None
    mask = None if at.mask is None or not masked else at.mask.reshape(at.y.shape[:-1])
    if given is None:
        return None if mask is None else lambda: mask.astype(at.y.dtype)
    if mask is None:
        return lambda: given
    return lambda: np.multiply(given, mask)


def _weighted_mean(
    metric: Metric, at: Outcome, totals: Any, weights: Callable[[], Array] | None
) -> Callable[[], float]:
    """The mean of the batch, which is accumulated with its weight."""
    seen, y_pred, values = metric.targets(at), at.y, metric.values
    predictions, samples = at.rows, at.y.shape[0]

    def value() -> float:
        each = np.asarray(values(seen(), y_pred), float)
        found = np.ones(predictions) if weights is None else weights().reshape(-1).astype(float)
        if each.size % predictions == 0 and each.shape[:1] == (samples,):
            each = each.reshape(predictions, -1).mean(-1)
        elif each.size == samples:
            each, found = each.reshape(-1), found.reshape(samples, -1).mean(-1)
        else:
            each, found = np.mean(each, keepdims=True).reshape(1), found.sum(keepdims=True).reshape(1)
        total, weight = float(each.dot(found)), float(found.sum())
        totals.total += total
        totals.weight += weight
        return total / weight if weight else 0.0

    return value
