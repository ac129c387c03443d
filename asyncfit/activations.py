"""The activations: `from asyncfit.activations import relu`."""

from __future__ import annotations

from .nn.activations import Activation as Activation
from .nn.activations import elu as elu
from .nn.activations import gelu as gelu
from .nn.activations import leaky_relu as leaky_relu
from .nn.activations import linear as linear
from .nn.activations import relu as relu
from .nn.activations import sigmoid as sigmoid
from .nn.activations import silu as silu
from .nn.activations import softmax as softmax
from .nn.activations import softplus as softplus
from .nn.activations import swish as swish
from .nn.activations import tanh as tanh

__all__ = [
    "Activation",
    "elu",
    "gelu",
    "leaky_relu",
    "linear",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "swish",
    "tanh",
]
