"""Losses of probabilities: binary, categorical and sparse categorical crossentropy.

Behind a sigmoid or a softmax (and with `from_logits=True`) value and gradient come from the logits: nothing overflows,
nothing needs a clip, and the gradient is the plain difference p − t. Behind any other activation they come from the
probabilities, clipped to [1e-7, 1 − 1e-7] as Keras does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.naming import number
from asyncfit.nn.outcome import Outcome, flat

from .base import MEAN, Loss, last_axis
from .pointwise import pair

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
]

EPSILON = 1e-7


def smoothing(where: str, value: float) -> float:
    return number(f"{where}(label_smoothing=…)", value, least=0.0, below=1.0 + 1e-12)


class BinaryCrossentropy(Loss):
    """−t·log p − (1 − t)·log(1 − p), mean over the last axis.

    From logits: max(z, 0) − t·z + log(1 + e^−|z|); gradient (p − t)/n.
    """

    name = "binary_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        last_axis(self, axis)
        self.from_logits = bool(from_logits)
        self.label_smoothing = smoothing("BinaryCrossentropy", label_smoothing)
        self.fuses = None if from_logits else "sigmoid"

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}

    def bind(self, at: Outcome) -> Callable[[], float]:
        begin: list[Call] = []
        y, t = flat(at.y), flat(at.dense())
        if self.label_smoothing:
            keep, rest = (np.array(v, y.dtype) for v in (1 - self.label_smoothing, self.label_smoothing / 2))
            soft = at.work.take(t.shape)
            begin = [partial(np.multiply, t, keep, soft), partial(np.add, soft, rest, soft)]
            t = soft
        w = np.ones(y.shape, y.dtype)
        if at.weighted:
            spread = at.work.like(at.y)
            begin.append(partial(np.copyto, spread, at.weights().reshape(*at.y.shape[:-1], 1)))
            w = flat(spread)
        grad = None if at.dy is None else flat(at.dy)
        if at.logits is None and not self.from_logits:
            return self._from_probabilities(at, y, t, w, grad, begin)
        z = y if at.logits is None else flat(at.logits)
        p = at.work.take(y.shape) if at.logits is None else y
        rest, above, below = (at.work.take(y.shape) for _ in range(3))
        count = y.size
        zero, minus, scale = (np.array(v, y.dtype) for v in (0, -1, 1 / count))
        weighted = at.weighted
        copysign, exp, log1p, maximum, add, subtract, multiply = (
            np.copysign, np.exp, np.log1p, np.maximum, np.add, np.subtract, np.multiply
        )  # fmt: skip

        def value() -> float:
            for call in begin:
                call()
            copysign(z, minus, rest)
            exp(rest, rest)
            log1p(rest, rest)  # log(1 + e^−|z|)
            maximum(z, zero, out=above)
            subtract(z, above, below)
            subtract(below, rest, below)
            exp(below, p)  # log p = min(z, 0) − log(1 + e^−|z|)
            if grad is not None:
                subtract(p, t, grad)
                if weighted:
                    multiply(grad, w, grad)
                multiply(grad, scale, grad)
            # number by number, which are small where all is right: of the difference of two sums little would be left
            multiply(t, z, below)
            subtract(above, below, above)
            add(above, rest, above)
            return float(w.dot(above)) / count

        return value

    def _from_probabilities(
        self, at: Outcome, y: Array, t: Array, w: Array, grad: Array | None, begin: list[Call]
    ) -> Callable[[], float]:
        p, q, a = (at.work.take(y.shape) for _ in range(3))
        inside = at.work.take(y.shape, bool)
        low, high, one = (np.array(v, y.dtype) for v in (EPSILON, 1 - EPSILON, 1))
        count = y.size
        scale = np.array(1 / count, y.dtype)

        def value() -> float:
            for call in begin:
                call()
            np.clip(y, low, high, out=p)
            np.subtract(one, p, q)
            if grad is not None:  # w (p − t) / (p q n), and 0 where the clip has cut
                np.multiply(p, q, a)
                np.subtract(p, t, grad)
                np.divide(grad, a, grad)
                np.multiply(grad, w, grad)
                np.multiply(grad, scale, grad)
                np.equal(y, p, inside)
                np.multiply(grad, inside, grad)
            np.log(p, p)
            np.log(q, q)
            np.subtract(p, q, p)
            np.multiply(p, t, p)
            np.add(p, q, p)  # t log p + (1 − t) log q
            return -float(w.dot(p)) / count

        return value


class CategoricalCrossentropy(Loss):
    """−Σ t·log p over the last axis, with targets like the output (one-hot or soft).

    From logits: log p = z − log Σ e^z; gradient (p·Σt − t)/n.
    """

    name = "categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        last_axis(self, axis)
        self.from_logits = bool(from_logits)
        self.label_smoothing = smoothing(type(self).__name__, label_smoothing)
        self.fuses = None if from_logits else "softmax"

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}

    def _targets(self, at: Outcome, t: Array, total: Array) -> list[Call]:
        """Calls that write the targets, times the weights, into `t` `(rows, classes)`, and their sums into `total`."""
        given = rows_of(at.dense())
        keep = np.array(1 - self.label_smoothing, t.dtype)
        calls: list[Call] = [partial(np.multiply, given, keep, t)]
        if self.label_smoothing:
            calls.append(partial(np.add, t, np.array(self.label_smoothing / t.shape[-1], t.dtype), t))
        if at.weighted:
            calls.append(partial(np.multiply, t, at.weights(), t))
        return [*calls, partial(np.add.reduce, t, -1, out=total, keepdims=True)]

    def bind(self, at: Outcome) -> Callable[[], float]:
        y = rows_of(at.y)
        t, total = at.work.like(y), at.work.take((at.rows, 1))
        begin = self._targets(at, t, total)
        grad = None if at.dy is None else rows_of(at.dy)
        if at.logits is None and not self.from_logits:
            return self._from_probabilities(at, y, t, begin, grad)
        z = y if at.logits is None else rows_of(at.logits)
        p = at.work.like(y) if at.logits is None else y
        shifted, each = at.work.like(y), at.work.take((at.rows, 1))
        count, scale = at.rows, np.array(1 / at.rows, y.dtype)
        t_flat, shifted_flat, each_flat, total_flat = flat(t), flat(shifted), flat(each), flat(total)
        highest, add = np.maximum.reduce, np.add.reduce

        def value() -> float:
            for call in begin:
                call()
            highest(z, -1, out=each, keepdims=True)
            np.subtract(z, each, shifted)
            np.exp(shifted, p)
            add(p, -1, out=each, keepdims=True)
            np.divide(p, each, p)
            np.log(each, each)
            if grad is not None:
                np.multiply(p, total, grad)
                np.subtract(grad, t, grad)
                np.multiply(grad, scale, grad)
            return (float(total_flat.dot(each_flat)) - float(t_flat.dot(shifted_flat))) / count

        return value

    def _from_probabilities(
        self, at: Outcome, y: Array, t: Array, begin: list[Call], grad: Array | None
    ) -> Callable[[], float]:
        sums, each = at.work.take((at.rows, 1)), at.work.take((at.rows, 1))
        share, p, inside = at.work.like(y), at.work.like(y), at.work.like(y, bool)
        low, high = (np.array(v, y.dtype) for v in (EPSILON, 1 - EPSILON))
        count, scale = at.rows, np.array(1 / at.rows, y.dtype)
        t_flat, p_flat = flat(t), flat(p)

        def value() -> float:
            for call in begin:
                call()
            np.add.reduce(y, -1, out=sums, keepdims=True)
            np.divide(y, sums, share)
            np.clip(share, low, high, out=p)
            if grad is not None:  # g = −t/p by the shares; by y it is (g − Σ g·share) / Σ y
                np.equal(share, p, inside)
                np.divide(t, p, grad)
                np.multiply(grad, inside, grad)
                np.multiply(grad, share, share)
                np.add.reduce(share, -1, out=each, keepdims=True)
                np.subtract(each, grad, grad)
                np.divide(grad, sums, grad)
                np.multiply(grad, scale, grad)
            np.log(p, p)
            return -float(t_flat.dot(p_flat)) / count

        return value


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """−log p of the true class; targets are class numbers from 0.

    Predictions whose target is `ignore_class` do not count, and the mean is that over the others.
    """

    name = "sparse_categorical_crossentropy"
    sparse = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = MEAN,
        axis: int = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(from_logits, 0.0, axis, reduction, name)
        if ignore_class is not None and (isinstance(ignore_class, bool) or int(ignore_class) != ignore_class):
            raise InvalidInput(f"{type(self).__name__}(ignore_class=…) is a class number, not {ignore_class!r}")
        self.ignore_class = None if ignore_class is None else int(ignore_class)

    def get_config(self) -> dict[str, Any]:
        found = {k: v for k, v in super().get_config().items() if k != "label_smoothing"}
        return found if self.ignore_class is None else found | {"ignore_class": self.ignore_class}

    def bound(self, at: Outcome) -> Callable[[], float]:
        if self.ignore_class is not None:
            mask = at.work.take((at.rows, 1), bool)
            at.begin.append(partial(np.not_equal, at.labels(), np.array(self.ignore_class, at.y.dtype), mask))
            at = at.with_mask(mask)
        return super().bound(at)

    def _targets(self, at: Outcome, t: Array, total: Array) -> list[Call]:
        classes = np.arange(t.shape[-1], dtype=t.dtype)
        calls: list[Call] = [partial(np.equal, at.labels(), classes, t)]
        if at.weighted:
            weights = at.weights()
            return [*calls, partial(np.multiply, t, weights, t), partial(np.copyto, total, weights)]
        return [*calls, partial(total.fill, 1)]


def rows_of(array: Array) -> Array:
    """`(rows, classes)`, as a view."""
    found = array if array.ndim == 2 else array.reshape(-1, array.shape[-1])
    assert np.shares_memory(found, array)
    return found


def binary_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """−t·log p − (1 − t)·log(1 − p), mean over `axis`: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    t = t * (1 - label_smoothing) + label_smoothing / 2
    if from_logits:
        each = np.maximum(y, 0) - t * y + np.log1p(np.exp(-np.abs(y)))
    else:
        y = np.clip(y, y.dtype.type(EPSILON), y.dtype.type(1 - EPSILON))
        each = -(t * np.log(y) + (1 - t) * np.log(1 - y))
    return np.asarray(np.mean(each, axis=axis))


def categorical_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """−Σ t·log p over `axis`: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    t = t * (1 - label_smoothing) + label_smoothing / t.shape[-1]
    return np.asarray(-np.sum(t * log_probabilities(y, from_logits, axis), axis=axis))


def sparse_categorical_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Array:
    """−log p of the true class: one value for each prediction, 0 where that is `ignore_class`."""
    y = np.asarray(y_pred)
    y = y if y.dtype == np.float64 else y.astype(np.float32)
    t = np.asarray(y_true).astype(np.intp)
    t = t if t.ndim == y.ndim and t.shape[axis] == 1 else np.expand_dims(t, axis)
    left_out = np.zeros(t.shape, bool) if ignore_class is None else t == ignore_class
    each = -np.take_along_axis(log_probabilities(y, from_logits, axis), np.where(left_out, 0, t), axis)
    return np.asarray(np.squeeze(np.where(left_out, y.dtype.type(0), each), axis))


def log_probabilities(y: Array, from_logits: bool, axis: int = -1) -> Array:
    if from_logits:
        z = y - y.max(axis=axis, keepdims=True)
        return np.asarray(z - np.log(np.exp(z).sum(axis=axis, keepdims=True)))
    y = y / y.sum(axis=axis, keepdims=True)
    return np.asarray(np.log(np.clip(y, y.dtype.type(EPSILON), y.dtype.type(1 - EPSILON))))
