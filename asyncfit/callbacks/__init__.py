"""The callbacks that people know, under the names that they know: `from asyncfit.callbacks import EarlyStopping`."""

from .averaging import SwapEMAWeights as SwapEMAWeights
from .checkpointing import ModelCheckpoint as ModelCheckpoint
from .lambdas import LambdaCallback as LambdaCallback
from .limits import StopOnSignal as StopOnSignal
from .limits import TimeLimit as TimeLimit
from .loggers import CSVLogger as CSVLogger
from .loggers import JSONLinesLogger as JSONLinesLogger
from .progress import ProgressBar as ProgressBar
from .remote import RemoteMonitor as RemoteMonitor
from .schedules import LearningRateScheduler as LearningRateScheduler
from .schedules import ReduceLROnPlateau as ReduceLROnPlateau
from .stopping import EarlyStopping as EarlyStopping
from .stopping import TerminateOnNaN as TerminateOnNaN
from .tensorboard import TensorBoard as TensorBoard

__all__ = [
    "CSVLogger",
    "EarlyStopping",
    "JSONLinesLogger",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "StopOnSignal",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
    "TimeLimit",
]
