"""Functions of users' own as activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.gradients import Value, traced
from asyncfit.nn.workspace import Workspace

from .base import Activation

__all__ = ["ActivationFunction"]


class ActivationFunction(Activation):
    """A function of an array, in NumPy, that gives an array of the same shape, as an activation.

    In training it is run twice, the second time on arrays that note what is done with them (`asyncfit.nn.gradients`).
    """

    elementwise = False

    def __init__(self, fn: Callable[[Array], Any]) -> None:
        self.fn = fn
        self.name = getattr(fn, "__name__", None) or type(fn).__name__

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        view = z.view()
        view.flags.writeable = False

        def run() -> None:
            found = np.asarray(self.fn(view))
            if found.shape != y.shape:
                raise InvalidInput(
                    f"the activation {self.name} gave an array of the shape {found.shape} for one of {z.shape}; it "
                    "keeps the shape"
                )
            np.copyto(y, found, casting="same_kind")

        return [run]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        view = z.view()
        view.flags.writeable = False

        def run() -> None:
            result, back = traced(self.fn, view)
            (gradient,) = back(result, dy)
            np.copyto(dy, gradient)

        return [run]

    def _noted(self, x: Value) -> Any:
        return self.fn(x)  # type: ignore[arg-type]

    def get_config(self) -> dict[str, Any]:
        return {}
