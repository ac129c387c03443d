"""Functions as metrics: a user's own, and the losses'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import losses
from asyncfit.nn.arrays import Array

from .base import Metric

__all__ = ["LossMetric", "MeanMetricWrapper", "settings_of"]


class MeanMetricWrapper(Metric):
    """The mean of a function over all samples, as Keras makes it of a function in `metrics=`.

    Args:
        fn: `f(y_true, y_pred, **kwargs)`, in NumPy, gives a value for each prediction; more axes are averaged. `y_true`
            is like `y_pred`, or class numbers without the last axis.
        name: `fn`'s if left out.
        kwargs: passed on to `fn`.
    """

    sparse: bool | None = None

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: str | None = None, **kwargs: Any
    ) -> None:
        if not callable(fn):
            raise InvalidInput(f"MeanMetricWrapper takes a function f(y_true, y_pred), not {fn!r}")
        super().__init__(name or getattr(fn, "__name__", None) or type(fn).__name__, dtype)
        self.fn, self.kwargs = fn, kwargs

    def values(self, y_true: Array, y_pred: Array) -> Any:
        found = self.fn(y_true, y_pred, **self.kwargs)
        each = np.asarray(found)
        if each.dtype.kind not in "fiub" or not each.size:
            raise InvalidInput(f"the metric {self.name} gave {found!r}; it gives a number for each sample")
        return each

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"fn": getattr(self.fn, "__name__", repr(self.fn))} | self.kwargs

    def written(self) -> str | dict[str, Any]:
        """As files hold it: the function by its name, as Keras writes it."""
        name = str(getattr(self.fn, "__name__", self.name))
        if self.name == name and not self.kwargs:
            return name
        return self._wrapped({"module": "builtins", "class_name": "function", "config": name})

    def _wrapped(self, fn: dict[str, str]) -> dict[str, Any]:
        settings = {"name": self.name, "dtype": "float32", "fn": fn, **self.kwargs}
        return {"class_name": "MeanMetricWrapper", "config": settings}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        raise InvalidInput(f"the function {config.get('fn')!r} cannot be made of its name; give the function itself")


class LossMetric(MeanMetricWrapper):
    """The mean of a loss's function; sample weights count in `weighted_metrics=` alone."""

    direction = "min"

    def __init__(self, loss: losses.Loss, name: str | None = None) -> None:
        functions = {cls: function for function, cls in losses.KINDS.items()}
        if type(loss) not in functions:
            raise InvalidInput(
                f"{loss!r} cannot be a metric: what it computes is no function of the targets and outputs that is "
                "known here; give a function f(y_true, y_pred)"
            )
        super().__init__(functions[type(loss)], name or type(loss).name, None, **settings_of(loss))
        self.sparse = loss.sparse

    def written(self) -> str | dict[str, Any]:
        name = self.fn.__name__
        module = "keras.metrics" if name.endswith("focal_crossentropy") else "keras.losses"  # as Keras exports them
        return self._wrapped({"module": module, "class_name": "function", "config": name})


def settings_of(loss: losses.Loss) -> dict[str, Any]:
    """What is not as it is by default."""
    standard = type(loss)().get_config()
    given = {key: value for key, value in loss.get_config().items() if key not in ("name", "reduction", "dtype")}
    return {key: value for key, value in given.items() if value != standard.get(key)}
