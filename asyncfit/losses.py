"""The losses: `from asyncfit.losses import MeanSquaredError`."""

from __future__ import annotations

from .nn.losses import BinaryCrossentropy as BinaryCrossentropy
from .nn.losses import CategoricalCrossentropy as CategoricalCrossentropy
from .nn.losses import Loss as Loss
from .nn.losses import MeanAbsoluteError as MeanAbsoluteError
from .nn.losses import MeanSquaredError as MeanSquaredError
from .nn.losses import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from .nn.losses import binary_crossentropy as binary_crossentropy
from .nn.losses import categorical_crossentropy as categorical_crossentropy
from .nn.losses import mean_absolute_error as mean_absolute_error
from .nn.losses import mean_squared_error as mean_squared_error
from .nn.losses import sparse_categorical_crossentropy as sparse_categorical_crossentropy

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "mean_absolute_error",
    "mean_squared_error",
    "sparse_categorical_crossentropy",
]
