"""Learning rate schedules: `from asyncfit.optimizers.schedules import CosineDecay`."""

from __future__ import annotations

from ..nn.schedules import CosineDecay as CosineDecay
from ..nn.schedules import CosineDecayRestarts as CosineDecayRestarts
from ..nn.schedules import ExponentialDecay as ExponentialDecay
from ..nn.schedules import InverseTimeDecay as InverseTimeDecay
from ..nn.schedules import LearningRateSchedule as LearningRateSchedule
from ..nn.schedules import PiecewiseConstantDecay as PiecewiseConstantDecay
from ..nn.schedules import PolynomialDecay as PolynomialDecay

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]
