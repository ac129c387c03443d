"""The activations: `from asyncfit.activations import relu`."""

from __future__ import annotations

from .nn.activations import Activation as Activation
from .nn.activations import celu as celu
from .nn.activations import elu as elu
from .nn.activations import exponential as exponential
from .nn.activations import gelu as gelu
from .nn.activations import glu as glu
from .nn.activations import hard_shrink as hard_shrink
from .nn.activations import hard_sigmoid as hard_sigmoid
from .nn.activations import hard_silu as hard_silu
from .nn.activations import hard_swish as hard_swish
from .nn.activations import hard_tanh as hard_tanh
from .nn.activations import leaky_relu as leaky_relu
from .nn.activations import linear as linear
from .nn.activations import log_sigmoid as log_sigmoid
from .nn.activations import log_softmax as log_softmax
from .nn.activations import mish as mish
from .nn.activations import relu as relu
from .nn.activations import relu6 as relu6
from .nn.activations import selu as selu
from .nn.activations import sigmoid as sigmoid
from .nn.activations import silu as silu
from .nn.activations import soft_shrink as soft_shrink
from .nn.activations import softmax as softmax
from .nn.activations import softplus as softplus
from .nn.activations import softsign as softsign
from .nn.activations import sparse_plus as sparse_plus
from .nn.activations import sparse_sigmoid as sparse_sigmoid
from .nn.activations import sparsemax as sparsemax
from .nn.activations import squareplus as squareplus
from .nn.activations import swish as swish
from .nn.activations import tanh as tanh
from .nn.activations import tanh_shrink as tanh_shrink
from .nn.activations import threshold as threshold

__all__ = [
    "Activation",
    "celu",
    "elu",
    "exponential",
    "gelu",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
]
