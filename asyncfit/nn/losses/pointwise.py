"""Losses that are a sum over the numbers of the output, each with its target: what they share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.outcome import Outcome, flat
from asyncfit.nn.workspace import Workspace

from .base import Loss

__all__ = ["Pointwise", "pair"]


class Pointwise(Loss):
    """The mean over the last axis of one value for each number, or their sum if `summed`."""

    summed: ClassVar[bool] = False

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        """Calls that write the values into `each` and their derivatives by `y` into `grad`, unless that is None.

        All arrays have one axis and the length of the output; `y` and `t` stay as they are.
        """
        raise NotImplementedError

    def bind(self, at: Outcome) -> Callable[[], float]:
        y, t = flat(at.y), flat(at.dense())
        grad = None if at.dy is None else flat(at.dy)
        each = at.work.take(y.shape)
        calls = self.terms(y, t, each, grad, at.work)
        w = np.ones(y.shape, y.dtype)
        if at.weighted:
            spread = at.work.like(at.y)
            calls.append(partial(np.copyto, spread, at.weights().reshape(*at.y.shape[:-1], 1)))
            w = flat(spread)
            if grad is not None:
                calls.append(partial(np.multiply, grad, w, grad))
        count = at.rows if self.summed else y.size
        if grad is not None:
            calls.append(partial(np.multiply, grad, np.array(1 / count, y.dtype), grad))
        run = tuple(calls)

        def value() -> float:
            for call in run:
                call()
            return float(w.dot(each)) / count

        return value


def pair(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Both as floats of one shape; a last axis of length 1 that only one of them has is added or dropped."""
    y = np.asarray(y_pred)
    y = y if y.dtype == np.float64 else y.astype(np.float32)
    t = np.asarray(y_true).astype(y.dtype)
    if t.ndim + 1 == y.ndim and y.shape[-1] == 1:
        t = t[..., None]
    elif y.ndim + 1 == t.ndim and t.shape[-1] == 1:
        t = t[..., 0] if y.ndim > 1 else t
        y = y if y.ndim > 1 else y[:, None]
    return t, y
