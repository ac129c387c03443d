"""Penalties: what regularizers add to the loss of a batch, bound to the arrays of one plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .arrays import Array
from .regularizers import Regularizer
from .workspace import Workspace

__all__ = ["Penalty", "charged"]

Run = Callable[..., dict[str, float]]


class Penalty:
    """A step of a plan: `scale` times the penalty on `x`, kept in `value`; its gradient is added to `slope`, if any."""

    def __init__(self, regularizer: Regularizer, x: Array, slope: Array | None, scale: float, work: Workspace) -> None:
        self._pay = regularizer.bind(x, slope, scale, work)
        self.value = 0.0

    def __call__(self) -> None:
        self.value = self._pay()


def charged(run: Run, penalties: Sequence[Penalty]) -> Run:
    """`run`, whose steps include these penalties, with the sum of them in its loss; itself, if there are none."""
    if not penalties:
        return run

    def whole(*batch: Any) -> dict[str, float]:
        logs = run(*batch)
        logs["loss"] += sum([penalty.value for penalty in penalties])
        return logs

    return whole
