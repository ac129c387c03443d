"""What a loss is: the value and the gradient of one batch, bound to the arrays of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from asyncfit.nn.naming import CheckedKeywords, plain_config
from asyncfit.nn.outcome import Outcome

__all__ = ["Loss"]


class Loss(CheckedKeywords):
    """Base of all losses. The value is Keras's `sum_over_batch_size`: the sum over all predictions of loss times
    sample weight, divided by the number of predictions (not by the sum of the weights).

    Attributes:
        name: what it is called in configs.
        sparse: targets are class numbers, one for each prediction, instead of arrays like the output.
        fuses: the activation that the loss computes itself when it stands last (from the logits, which is exact where
            the probability has rounded to 0 or 1), or None.
    """

    name: ClassVar[str]
    sparse: ClassVar[bool] = False
    fuses: str | None = None

    def bind(self, at: Outcome) -> Callable[[], float]:
        """A call that computes the loss of the batch and writes the gradient into `at.dy` unless that is None."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Settings as Keras writes them."""
        return {"name": self.name, "reduction": "sum_over_batch_size"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        off = {"reduction": "sum_over_batch_size", "axis": -1, "ignore_class": None}
        if config.get("reduction") in ("auto", "sum_over_batch_size", "mean"):  # "auto" is how Keras 2 says it
            config = {**config, "reduction": "sum_over_batch_size"}
        made = cls(**plain_config(cls, config, ignored=("name", "fn", "dtype"), off=off))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        settings = {k: v for k, v in self.get_config().items() if k not in ("name", "reduction")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"
