"""The metrics: `from asyncfit.metrics import BinaryAccuracy`."""

from __future__ import annotations

from .nn.metrics import AUC as AUC
from .nn.metrics import AccumulatedMetric as AccumulatedMetric
from .nn.metrics import Accuracy as Accuracy
from .nn.metrics import BinaryAccuracy as BinaryAccuracy
from .nn.metrics import BinaryCrossentropy as BinaryCrossentropy
from .nn.metrics import BinaryIoU as BinaryIoU
from .nn.metrics import CategoricalAccuracy as CategoricalAccuracy
from .nn.metrics import CategoricalCrossentropy as CategoricalCrossentropy
from .nn.metrics import CategoricalHinge as CategoricalHinge
from .nn.metrics import ConcordanceCorrelation as ConcordanceCorrelation
from .nn.metrics import CosineSimilarity as CosineSimilarity
from .nn.metrics import F1Score as F1Score
from .nn.metrics import FalseNegatives as FalseNegatives
from .nn.metrics import FalsePositives as FalsePositives
from .nn.metrics import FBetaScore as FBetaScore
from .nn.metrics import Hinge as Hinge
from .nn.metrics import IoU as IoU
from .nn.metrics import KLDivergence as KLDivergence
from .nn.metrics import LogCoshError as LogCoshError
from .nn.metrics import MeanAbsoluteError as MeanAbsoluteError
from .nn.metrics import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from .nn.metrics import MeanIoU as MeanIoU
from .nn.metrics import MeanMetricWrapper as MeanMetricWrapper
from .nn.metrics import MeanSquaredError as MeanSquaredError
from .nn.metrics import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from .nn.metrics import Metric as Metric
from .nn.metrics import OneHotIoU as OneHotIoU
from .nn.metrics import OneHotMeanIoU as OneHotMeanIoU
from .nn.metrics import PearsonCorrelation as PearsonCorrelation
from .nn.metrics import Poisson as Poisson
from .nn.metrics import Precision as Precision
from .nn.metrics import PrecisionAtRecall as PrecisionAtRecall
from .nn.metrics import R2Score as R2Score
from .nn.metrics import Recall as Recall
from .nn.metrics import RecallAtPrecision as RecallAtPrecision
from .nn.metrics import RootMeanSquaredError as RootMeanSquaredError
from .nn.metrics import SensitivityAtSpecificity as SensitivityAtSpecificity
from .nn.metrics import SparseCategoricalAccuracy as SparseCategoricalAccuracy
from .nn.metrics import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from .nn.metrics import SparseTopKCategoricalAccuracy as SparseTopKCategoricalAccuracy
from .nn.metrics import SpecificityAtSensitivity as SpecificityAtSensitivity
from .nn.metrics import SquaredHinge as SquaredHinge
from .nn.metrics import TopKCategoricalAccuracy as TopKCategoricalAccuracy
from .nn.metrics import TrueNegatives as TrueNegatives
from .nn.metrics import TruePositives as TruePositives

__all__ = [
    "AUC",
    "AccumulatedMetric",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConcordanceCorrelation",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "IoU",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanIoU",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "OneHotIoU",
    "OneHotMeanIoU",
    "PearsonCorrelation",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "R2Score",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
]
