"""What weights are brought back to after each step: `from asyncfit.constraints import MaxNorm`."""

from __future__ import annotations

from .nn.constraints import Constraint as Constraint
from .nn.constraints import MaxNorm as MaxNorm
from .nn.constraints import MinMaxNorm as MinMaxNorm
from .nn.constraints import NonNeg as NonNeg
from .nn.constraints import UnitNorm as UnitNorm

__all__ = ["Constraint", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"]
