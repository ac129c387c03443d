"""What a layer says of a weight that it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from asyncfit.nn.arrays import Shape
from asyncfit.nn.constraints import Constraint
from asyncfit.nn.initializers import Initializer
from asyncfit.nn.regularizers import Regularizer

__all__ = ["Weight"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that a layer asks for; `trainable=False` is for statistics that no gradient changes.

    While it is trained, the penalty of its `regularizer` counts in the loss and its `constraint` holds after each step.
    """

    name: str
    shape: Shape
    initializer: Initializer
    trainable: bool = True
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None
