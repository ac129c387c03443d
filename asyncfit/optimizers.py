"""The optimizers: `from asyncfit.optimizers import Adam`."""

from __future__ import annotations

from .nn.optimizers import SGD as SGD
from .nn.optimizers import Adam as Adam
from .nn.optimizers import AdamW as AdamW
from .nn.optimizers import Optimizer as Optimizer
from .nn.optimizers import RMSprop as RMSprop

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
]
