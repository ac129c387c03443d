"""The initial values of weights: `from asyncfit.initializers import HeNormal`."""

from __future__ import annotations

from .nn.initializers import Constant as Constant
from .nn.initializers import GlorotNormal as GlorotNormal
from .nn.initializers import GlorotUniform as GlorotUniform
from .nn.initializers import HeNormal as HeNormal
from .nn.initializers import HeUniform as HeUniform
from .nn.initializers import Identity as Identity
from .nn.initializers import Initializer as Initializer
from .nn.initializers import LecunNormal as LecunNormal
from .nn.initializers import LecunUniform as LecunUniform
from .nn.initializers import Ones as Ones
from .nn.initializers import Orthogonal as Orthogonal
from .nn.initializers import RandomNormal as RandomNormal
from .nn.initializers import RandomUniform as RandomUniform
from .nn.initializers import TruncatedNormal as TruncatedNormal
from .nn.initializers import VarianceScaling as VarianceScaling
from .nn.initializers import Zeros as Zeros

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
]
