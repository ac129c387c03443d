"""What a loss is: the value and the gradient of one batch, bound to the arrays of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import snake, unknown
from asyncfit.nn.arrays import Array
from asyncfit.nn.naming import CheckedKeywords, plain_config
from asyncfit.nn.outcome import Outcome

__all__ = ["MEAN", "Loss", "last_axis"]

MEAN = "sum_over_batch_size"
REDUCTIONS = (MEAN, "mean", "sum", "mean_with_sample_weight")


class Loss(CheckedKeywords):
    """Base of all losses: one value for each prediction, and one number made of them.

    For a loss of your own write `call`; it is differentiated as it is computed (see `LossFunction`)::

        class Pinball(Loss):
            def __init__(self, share, **how):
                super().__init__(**how)
                self.share = share

            def call(self, y_true, y_pred):
                error = y_true - y_pred
                return np.mean(np.maximum(self.share * error, (self.share - 1) * error), axis=-1)

            def get_config(self):
                return super().get_config() | {"share": self.share}

    Args:
        reduction: how values v and sample weights w become one number. "sum_over_batch_size" and "mean": Σ v·w divided
            by the number of values (not by the sum of the weights); "sum": Σ v·w; "mean_with_sample_weight":
            Σ v·w / Σ w.
        name: what it is called in configs; Keras's name of the loss if None.

    Attributes:
        name: what it is called in configs.
        sparse: targets are class numbers, one for each prediction, instead of arrays like the output.
        fuses: the activation that the loss computes itself when it stands last (from the logits, which is exact where
            the probability has rounded to 0 or 1), or None.

    Raises:
        InvalidInput: an unknown reduction, or none at all.
    """

    name: str
    reduction: str = MEAN
    sparse: ClassVar[bool] = False
    fuses: str | None = None

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        if not hasattr(cls, "name"):
            cls.name = snake(cls.__name__)

    def __init__(self, reduction: str | None = MEAN, name: str | None = None) -> None:
        if reduction is None or reduction == "none":
            raise InvalidInput(
                f"{type(self).__name__}(reduction={reduction!r}) would give a value for each prediction, but training "
                "descends on one number; the function in asyncfit.losses gives the values"
            )
        if reduction not in REDUCTIONS:
            raise InvalidInput(f"{type(self).__name__}: {unknown('reduction', str(reduction), REDUCTIONS)}")
        self.reduction = reduction
        if name is not None:
            self.name = name

    def call(self, y_true: Array, y_pred: Array) -> Any:
        """A value for each prediction, in NumPy; or `(values, gradient of their sum by y_pred)`."""
        raise NotImplementedError(f"{type(self).__name__} has neither call(y_true, y_pred) nor bind(at)")

    def bind(self, at: Outcome) -> Callable[[], float]:
        """A call that computes the mean loss of the batch and writes its gradient into `at.dy` unless that is None.

        The fast way, for a loss that computes its gradient itself; else `call` is enough.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither call(y_true, y_pred) nor bind(at)")

    @property
    def called(self) -> bool:
        """Whether the loss is what `call` computes."""
        return type(self).bind is Loss.bind

    def values_in(self, at: Outcome) -> int:
        """How many values the mean is taken over: one for each prediction."""
        return at.rows

    def bound(self, at: Outcome) -> Callable[[], float]:
        """`bind`, with the reduction that was asked for; or `call`, with its gradient."""
        if self.called:
            from .called import bound_call

            return bound_call(self, at)
        if self.reduction in (MEAN, "mean"):
            return self.bind(at)
        weighs = self.reduction == "mean_with_sample_weight"
        at = at.counted_once()
        value, count, dy = self.bind(at), self.values_in(at), at.dy
        factor = np.array(count, at.y.dtype)
        weights = at.weights() if weighs and at.weighted else None
        if weighs and weights is None:
            return value
        rows = at.rows

        def reduced() -> float:
            loss, by = value(), float(count)
            if weights is not None:
                total = float(weights.sum())
                by = rows / total if total else 0.0
                factor[...] = by
            if dy is not None:
                np.multiply(dy, factor, dy)
            return loss * by

        return reduced

    def get_config(self) -> dict[str, Any]:
        """Settings as Keras writes them."""
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if config.get("reduction") == "auto":  # "auto" is how Keras 2 says it
            config = {**config, "reduction": MEAN}
        made = cls(**plain_config(cls, config, ignored=("fn", "dtype"), off={"axis": -1, "ignore_class": None}))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        settings = self.get_config()
        if settings.get("reduction") == MEAN:
            del settings["reduction"]
        if settings.get("name") == getattr(type(self), "name", None):
            del settings["name"]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"


def last_axis(who: object, axis: object) -> None:
    """Keras's losses of classes take an `axis`; ours have the classes last."""
    if axis != -1 or isinstance(axis, bool):
        raise InvalidInput(
            f"{type(who).__name__}(axis={axis!r}): classes lie along the last axis here, axis=-1; permute the output "
            "and the targets"
        )
