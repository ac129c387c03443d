"""The optimizers: `from asyncfit.optimizers import Adam`."""

from __future__ import annotations

from ..nn.optimizers import SGD as SGD
from ..nn.optimizers import Adadelta as Adadelta
from ..nn.optimizers import Adagrad as Adagrad
from ..nn.optimizers import Adam as Adam
from ..nn.optimizers import Adamax as Adamax
from ..nn.optimizers import AdamW as AdamW
from ..nn.optimizers import Ftrl as Ftrl
from ..nn.optimizers import Lion as Lion
from ..nn.optimizers import Nadam as Nadam
from ..nn.optimizers import Optimizer as Optimizer
from ..nn.optimizers import RMSprop as RMSprop
from . import schedules as schedules

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "schedules",
]
