"""What a metric is: the mean of something over the predictions of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

from asyncfit.nn.naming import CheckedKeywords, plain_config
from asyncfit.nn.outcome import Outcome

__all__ = ["Direction", "Metric"]

Direction = Literal["min", "max"]


class Metric(CheckedKeywords):
    """Base of all metrics that are means over samples; the loop weights them by the size of the batch.

    Sample weights do not weigh them, as those in Keras's `metrics=`.

    Attributes:
        name: the key in logs.
        sparse: whether the targets are class numbers (True), arrays like the output (False), or either (None).
        direction: whether less is better ("min") or more ("max"): what callbacks with `mode="auto"` go by. None if
            nobody can tell.
    """

    default_name: ClassVar[str]
    sparse: ClassVar[bool | None] = False
    direction: ClassVar[Direction | None] = None

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.default_name

    def bind(self, at: Outcome) -> Callable[[], float]:
        """A call that computes the mean over the batch, from `at.y` and the targets."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": "float32"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        made = cls(**plain_config(cls, config, ignored=("dtype", "fn")))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"
