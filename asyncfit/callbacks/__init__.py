"""The callbacks that people know, under the names that they know: `from asyncfit.callbacks import EarlyStopping`."""

from typing import TYPE_CHECKING

from .averaging import SwapEMAWeights as SwapEMAWeights
from .backup import BackupAndRestore as BackupAndRestore
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
    "BackupAndRestore",
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

if not TYPE_CHECKING:  # type checkers know what there is

    def __getattr__(name):
        """Say what there is in place of Keras's names that are not here."""
        import sys

        way = {
            "Callback": "subclass af.Callback (import asyncfit as af)",
            "CallbackList": "give fit(…, callbacks=[…]) a list; it calls them",
            "History": "fit returns it: history = await model.fit(…)",
            "ProgbarLogger": "ProgressBar draws the bar",
        }.get(name)
        message = f"module {__name__!r} has no attribute {name!r}" + (f": {way}" if way else "")
        if way and sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
            raise ImportError(message, name=__name__)  # `from … import` would not show an AttributeError's text
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
