"""The layers: `from asyncfit.layers import Dense`."""

from __future__ import annotations

from .nn.layers import Activation as Activation
from .nn.layers import ActivityRegularization as ActivityRegularization
from .nn.layers import Dense as Dense
from .nn.layers import Dropout as Dropout
from .nn.layers import Flatten as Flatten
from .nn.layers import Input as Input
from .nn.layers import InputLayer as InputLayer
from .nn.layers import Layer as Layer
from .nn.layers import Weight as Weight

__all__ = [
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
