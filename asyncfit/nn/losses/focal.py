"""Focal crossentropies: predictions that are right already count less (Lin and others 2017).

As in Keras both are computed from probabilities, clipped to [1e-7, 1 − 1e-7]; from logits those are computed first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.activations.smooth import sigmoid_calls
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.naming import number
from asyncfit.nn.outcome import Outcome, flat
from asyncfit.nn.workspace import Workspace

from .base import MEAN, Loss, last_axis
from .crossentropy import EPSILON, rows_of, smoothing
from .pointwise import Pointwise, pair

__all__ = [
    "BinaryFocalCrossentropy",
    "CategoricalFocalCrossentropy",
    "binary_focal_crossentropy",
    "categorical_focal_crossentropy",
]


class BinaryFocalCrossentropy(Pointwise):
    """(1 − q)^gamma times the binary crossentropy, where q = t·p + (1 − t)·(1 − p); mean over the last axis.

    Args:
        apply_class_balancing: weigh the class 1 by `alpha` and the class 0 by 1 − alpha.
    """

    name = "binary_focal_crossentropy"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        last_axis(self, axis)
        self.apply_class_balancing, self.from_logits = bool(apply_class_balancing), bool(from_logits)
        self.alpha = number("BinaryFocalCrossentropy(alpha=…)", alpha)
        self.gamma = number("BinaryFocalCrossentropy(gamma=…)", gamma, least=0.0)
        self.label_smoothing = smoothing("BinaryFocalCrossentropy", label_smoothing)

    def get_config(self) -> dict[str, Any]:
        names = ("from_logits", "label_smoothing", "apply_class_balancing", "alpha", "gamma")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        dtype = y.dtype
        p, q, true, slope, near, factor = (work.take(y.shape) for _ in range(6))
        balance = work.take(y.shape) if self.apply_class_balancing else None
        soft = work.take(y.shape) if self.label_smoothing else t
        inside = work.take(y.shape, bool)
        one, two, low, high = (np.array(v, dtype) for v in (1, 2, EPSILON, 1 - EPSILON))
        gamma, alpha, keep, rest = self.gamma, self.alpha, 1 - self.label_smoothing, self.label_smoothing / 2
        sigmoid = sigmoid_calls(y, p) if self.from_logits else [partial(np.copyto, p, y)]

        def run() -> None:
            for call in sigmoid:
                call()
            if soft is not t:
                np.multiply(t, dtype.type(keep), soft)
                np.add(soft, dtype.type(rest), soft)
            np.multiply(soft, two, slope)
            np.subtract(slope, one, slope)  # 2t − 1
            np.multiply(slope, p, near)
            np.subtract(soft, near, near)  # 1 − q = t − (2t − 1)·p
            np.power(near, dtype.type(gamma), factor)
            np.clip(p, low, high, out=q)
            np.log(q, each)
            np.multiply(each, soft, each)
            np.subtract(one, q, true)
            np.log(true, true)
            if balance is not None:
                np.multiply(soft, dtype.type(2 * alpha - 1), balance)
                np.add(balance, dtype.type(1 - alpha), balance)
                np.multiply(factor, balance, factor)
            if grad is not None:
                np.subtract(one, q, grad)
                np.multiply(grad, q, grad)
                np.subtract(q, soft, inside_scratch)
                np.divide(inside_scratch, grad, grad)
                np.equal(p, q, inside)
                np.multiply(grad, inside, grad)
                np.multiply(grad, factor, grad)  # factor · d crossentropy/dp
            np.subtract(one, soft, q)
            np.multiply(true, q, true)
            np.add(each, true, each)
            np.negative(each, each)  # the crossentropy
            if grad is not None and gamma:
                np.power(near, dtype.type(gamma - 1), near)
                np.multiply(near, dtype.type(-gamma), near)
                np.multiply(near, slope, near)
                np.multiply(near, each, near)
                if balance is not None:
                    np.multiply(near, balance, near)
                np.add(grad, near, grad)
            if grad is not None and sigmoid_is_ours:
                np.subtract(one, p, q)
                np.multiply(q, p, q)
                np.multiply(grad, q, grad)
            np.multiply(each, factor, each)

        inside_scratch, sigmoid_is_ours = work.take(y.shape), self.from_logits
        return [run]


class CategoricalFocalCrossentropy(Loss):
    """Σ −alpha·(1 − p)^gamma·t·log p over the last axis.

    Args:
        alpha: one number, or one for each class.
    """

    name = "categorical_focal_crossentropy"

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        last_axis(self, axis)
        where = "CategoricalFocalCrossentropy"
        several = isinstance(alpha, Sequence | np.ndarray) and not isinstance(alpha, str)
        self.alpha: float | list[float] = (
            [number(f"{where}(alpha=…)", one) for one in alpha]  # type: ignore[union-attr]
            if several
            else number(f"{where}(alpha=…)", alpha)
        )
        self.gamma = number(f"{where}(gamma=…)", gamma, least=0.0)
        self.from_logits, self.label_smoothing = bool(from_logits), smoothing(where, label_smoothing)

    def get_config(self) -> dict[str, Any]:
        names = ("from_logits", "label_smoothing", "alpha", "gamma")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, given = rows_of(at.y), rows_of(at.dense())
        if isinstance(self.alpha, list) and len(self.alpha) != y.shape[-1]:
            raise InvalidInput(
                f"{type(self).__name__} has {len(self.alpha)} numbers alpha, but the model ends with {y.shape[-1]} "
                "units; give one for each class"
            )
        dtype, grad = y.dtype, None if at.dy is None else rows_of(at.dy)
        share, p, near, factor, logs, t = (at.work.take(y.shape) for _ in range(6))
        inside, each = at.work.take(y.shape, bool), at.work.take((at.rows, 1))
        w = at.weights() if at.weighted else np.ones((at.rows, 1), dtype)
        minus_alpha, gamma = np.asarray(-np.array(self.alpha), dtype), self.gamma
        one, low, high = (np.array(v, dtype) for v in (1, EPSILON, 1 - EPSILON))
        keep, rest = dtype.type(1 - self.label_smoothing), dtype.type(self.label_smoothing / y.shape[-1])
        count, scale, from_logits = at.rows, np.array(1 / at.rows, dtype), self.from_logits
        sums, values = at.work.take((at.rows, 1)), at.work.take((at.rows, 1))

        def value() -> float:
            np.multiply(given, keep, t)
            np.add(t, rest, t)
            np.multiply(t, minus_alpha, t)
            np.multiply(t, w, t)  # −alpha·t·w
            base = y
            if from_logits:
                np.maximum.reduce(y, -1, out=sums, keepdims=True)
                np.subtract(y, sums, share)
                np.exp(share, share)
                base = share
            np.add.reduce(base, -1, out=sums, keepdims=True)
            np.divide(base, sums, share)
            np.clip(share, low, high, out=p)
            np.log(p, logs)
            np.subtract(one, p, near)
            np.power(near, dtype.type(gamma), factor)
            if grad is not None:
                np.divide(factor, p, grad)
                if gamma:
                    np.power(near, dtype.type(gamma - 1), near)
                    np.multiply(near, logs, near)
                    np.multiply(near, dtype.type(gamma), near)
                    np.subtract(grad, near, grad)
                np.multiply(grad, t, grad)
                np.equal(share, p, inside)
                np.multiply(grad, inside, grad)
                np.multiply(grad, share, near)
                np.add.reduce(near, -1, out=each, keepdims=True)
                np.subtract(grad, each, grad)
                if from_logits:
                    np.multiply(grad, share, grad)
                else:
                    np.divide(grad, sums, grad)
                np.multiply(grad, scale, grad)
            np.multiply(factor, logs, factor)
            np.multiply(factor, t, factor)
            np.add.reduce(factor, -1, out=values, keepdims=True)
            return float(np.add.reduce(flat(values))) / count

        return value


def binary_focal_crossentropy(
    y_true: Array,
    y_pred: Array,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """(1 − q)^gamma times the binary crossentropy, mean over `axis`: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    t = t * (1 - label_smoothing) + label_smoothing / 2
    p = np.exp(-np.logaddexp(0, -y)) if from_logits else y
    q = np.clip(p, y.dtype.type(EPSILON), y.dtype.type(1 - EPSILON))
    each = (1 - (t * p + (1 - t) * (1 - p))) ** gamma * -(t * np.log(q) + (1 - t) * np.log(1 - q))
    if apply_class_balancing:
        each = each * (t * alpha + (1 - t) * (1 - alpha))
    return np.asarray(np.mean(each, axis=axis))


def categorical_focal_crossentropy(
    y_true: Array,
    y_pred: Array,
    alpha: float | Sequence[float] = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Σ −alpha·(1 − p)^gamma·t·log p over `axis`: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    t = t * (1 - label_smoothing) + label_smoothing / t.shape[-1]
    p = np.exp(y - y.max(axis=axis, keepdims=True)) if from_logits else y
    p = np.clip(p / p.sum(axis=axis, keepdims=True), y.dtype.type(EPSILON), y.dtype.type(1 - EPSILON))
    return np.asarray(np.sum(-np.asarray(alpha, y.dtype) * (1 - p) ** gamma * t * np.log(p), axis=axis))
