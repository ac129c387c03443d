"""The layers, one file each. A new one is a file, a line here and a line in `KINDS`."""

from __future__ import annotations

from .activation import Activation as Activation
from .activity_regularization import ActivityRegularization as ActivityRegularization
from .base import Layer as Layer
from .base import Weight as Weight
from .dense import Dense as Dense
from .dropout import Dropout as Dropout
from .flatten import Flatten as Flatten
from .input import Input as Input
from .input import InputLayer as InputLayer

__all__ = [
    "KINDS",
    "Activation",
    "ActivityRegularization",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "InputLayer",
    "Layer",
    "Weight",
]

KINDS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        ActivityRegularization,
        Dense,
        Dropout,
        Flatten,
        InputLayer,
    )
}
"""By the class name that stands in a config."""
