"""The metrics: `from asyncfit.metrics import BinaryAccuracy`."""

from __future__ import annotations

from .nn.metrics import Accuracy as Accuracy
from .nn.metrics import BinaryAccuracy as BinaryAccuracy
from .nn.metrics import CategoricalAccuracy as CategoricalAccuracy
from .nn.metrics import MeanAbsoluteError as MeanAbsoluteError
from .nn.metrics import MeanSquaredError as MeanSquaredError
from .nn.metrics import Metric as Metric
from .nn.metrics import SparseCategoricalAccuracy as SparseCategoricalAccuracy

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "SparseCategoricalAccuracy",
]
