"""The array types that `asyncfit.nn` speaks of; no code, so that every file here may import it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Call", "DType", "Shape"]

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = np.dtype[Any]
Shape: TypeAlias = tuple[int, ...]
Call: TypeAlias = Callable[[], object]
"""One step of a plan: arrays are bound already, nothing is passed, nothing is returned."""
