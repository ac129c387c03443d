"""The penalties on weights and outputs: `from asyncfit.regularizers import L2`."""

from __future__ import annotations

from .nn.regularizers import L1 as L1
from .nn.regularizers import L1L2 as L1L2
from .nn.regularizers import L2 as L2
from .nn.regularizers import OrthogonalRegularizer as OrthogonalRegularizer
from .nn.regularizers import Regularizer as Regularizer

__all__ = ["L1", "L1L2", "L2", "OrthogonalRegularizer", "Regularizer"]
