"""Losses of users' own: functions `f(y_true, y_pred)`, and subclasses of `Loss` with a `call`, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.gradients import Value, traced
from asyncfit.nn.outcome import Outcome

from .base import MEAN, Loss

__all__ = ["LossFunction"]


class LossFunction(Loss):
    """A function `f(y_true, y_pred)` as a loss, as Keras makes it of a function in `compile(loss=…)`.

    It gets arrays of the batch, `y_pred` like the model's output, `y_true` like it or, where the targets have another
    shape, as they are; and gives a value for each prediction (or for each sample, or one for the batch). Its gradient
    is found by running it on arrays that note what is done (`asyncfit.nn.gradients`), or given by itself: it may return
    `(values, gradient)`, with the gradient of the sum of the values by `y_pred`.
    """

    def __init__(self, fn: Callable[..., Any], reduction: str | None = MEAN, name: str | None = None) -> None:
        if not callable(fn):
            raise InvalidInput(f"a loss is a function f(y_true, y_pred), not {fn!r}")
        super().__init__(reduction, name or getattr(fn, "__name__", None) or type(fn).__name__)
        self.fn = fn

    def call(self, y_true: Array, y_pred: Array) -> Any:
        return self.fn(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"fn": getattr(self.fn, "__name__", repr(self.fn))}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        raise InvalidInput(
            f"the loss {config.get('fn')!r} is a function that is not known here; load_model takes it as "
            "custom_objects={'its name': the function}"
        )


def bound_call(loss: Loss, at: Outcome) -> Callable[[], float]:
    """A call that computes `loss.call` on a batch, reduces its values and leads the gradient back."""
    reduction = loss.reduction
    at = at if reduction in (MEAN, "mean") else at.counted_once()
    y, dy, t = at.y.view(), at.dy, at.targets().view()
    y.flags.writeable = t.flags.writeable = False
    weights = at.weights() if at.weighted else None

    def weigh(shape: tuple[int, ...]) -> Array | float:
        """The weights so that they fit values of this shape."""
        if weights is None:
            return 1.0
        if shape == at.y.shape[:-1]:
            return weights.reshape(shape)
        if not shape:
            return float(weights.mean())
        return np.asarray(weights.reshape(at.y.shape[0], -1).mean(axis=1).reshape(-1, *(1,) * (len(shape) - 1)))

    def reduced(values: Array) -> tuple[float, Array]:
        """The loss, and its gradient by the values."""
        if values.ndim and values.shape[0] != at.y.shape[0] and weights is not None:
            raise InvalidInput(
                f"the loss {loss.name} gave values of the shape {values.shape} for {at.y.shape[0]} samples, so samples "
                "cannot have weights; return a value for each"
            )
        w = weigh(values.shape)
        count = float(max(values.size, 1))
        if reduction == "sum":
            count = 1.0 if values.ndim or weights is None else 1 / at.y.shape[0]
        elif reduction == "mean_with_sample_weight" and weights is not None:
            count = float(np.sum(np.broadcast_to(w, values.shape)))
        slope = np.zeros(values.shape, y.dtype)
        if count:
            slope[...] = np.asarray(w) / count
        return float(np.sum(values * slope)), slope

    def checked(values: Any) -> Array:
        found = np.asarray(values)
        if found.dtype.kind not in "fiub":
            raise InvalidInput(f"the loss {loss.name} gave {values!r}; it gives a number for each prediction")
        return found

    def value() -> float:
        if dy is None:
            result = loss.call(t, y)
            return reduced(checked(result[0] if isinstance(result, tuple) else result))[0]
        result, back = traced(lambda y_pred: loss.call(t, y_pred), y)
        if isinstance(result, tuple):
            return given(*result)
        if not isinstance(result, Value):
            checked(result)
            raise InvalidInput(
                f"the loss {loss.name} gave {np.asarray(result)!r}, which does not depend on y_pred; compute it from "
                "y_pred with NumPy's functions"
            )
        loss_, slope = reduced(result.array)
        (gradient,) = back(result, slope)
        np.copyto(dy, gradient)
        return loss_

    def given(values: Any, gradient: Any = None, *more: Any) -> float:
        values, gradient = (one.array if isinstance(one, Value) else one for one in (values, gradient))
        slope_y = np.asarray(gradient)
        if gradient is None or more or slope_y.shape != at.y.shape:
            raise InvalidInput(
                f"the loss {loss.name} gave a gradient of the shape {slope_y.shape}; (values, gradient) has one of "
                f"y_pred's, {at.y.shape}"
            )
        loss_, slope = reduced(checked(values))
        assert dy is not None
        np.multiply(slope_y, slope.reshape(*slope.shape, *(1,) * (dy.ndim - slope.ndim)), dy)
        return loss_

    return value
