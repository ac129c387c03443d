"""The callbacks that people know, under the names that they know: `from asyncfit.callbacks import EarlyStopping`."""

from .lambdas import LambdaCallback as LambdaCallback
from .loggers import CSVLogger as CSVLogger
from .loggers import JSONLinesLogger as JSONLinesLogger
from .progress import ProgressBar as ProgressBar

__all__ = [
    "CSVLogger",
    "JSONLinesLogger",
    "LambdaCallback",
    "ProgressBar",
]
