"""asyncfit trains neural networks inside async programs."""

from typing import TYPE_CHECKING

from .batching import batches as batches
from .bus import EventBus as EventBus
from .callback import Callback as Callback
from .callback import inline as inline
from .errors import AsyncFitError as AsyncFitError
from .errors import BadFile as BadFile
from .errors import CallbackBusy as CallbackBusy
from .errors import CheckpointError as CheckpointError
from .errors import DetachedEvent as DetachedEvent
from .errors import DirectoryBusy as DirectoryBusy
from .errors import GateReleased as GateReleased
from .errors import InvalidInput as InvalidInput
from .errors import ModelBusy as ModelBusy
from .errors import NotStarted as NotStarted
from .errors import RunCancelled as RunCancelled
from .errors import SubscriberTimeout as SubscriberTimeout
from .errors import WorkerLost as WorkerLost
from .events import BatchBegin as BatchBegin
from .events import BatchEnd as BatchEnd
from .events import CheckpointFailed as CheckpointFailed
from .events import CheckpointSaved as CheckpointSaved
from .events import EpochBegin as EpochBegin
from .events import EpochEnd as EpochEnd
from .events import EvaluateBatchEnd as EvaluateBatchEnd
from .events import EvaluateBegin as EvaluateBegin
from .events import EvaluateEnd as EvaluateEnd
from .events import Event as Event
from .events import EventsDropped as EventsDropped
from .events import LayerCreated as LayerCreated
from .events import LearningRateChanged as LearningRateChanged
from .events import ModelCompiled as ModelCompiled
from .events import Omitted as Omitted
from .events import PredictBatchEnd as PredictBatchEnd
from .events import PredictBegin as PredictBegin
from .events import PredictEnd as PredictEnd
from .events import RunPaused as RunPaused
from .events import RunResumed as RunResumed
from .events import StopRequested as StopRequested
from .events import SubscriberFailed as SubscriberFailed
from .events import TrainBegin as TrainBegin
from .events import TrainEnd as TrainEnd
from .events import ValidationBegin as ValidationBegin
from .events import ValidationEnd as ValidationEnd
from .events import WeightsRestored as WeightsRestored
from .events import WorkerRestarted as WorkerRestarted
from .fit import Fit as Fit
from .history import History as History
from .history import Progress as Progress
from .jobs import Job as Job
from .protocol import Trainable as Trainable
from .run import Run as Run
from .sequential import Sequential as Sequential
from .sequential import load_model as load_model
from .snapshot import Snapshot as Snapshot
from .streams import EventStream as EventStream
from .subscriptions import SubscriberStats as SubscriberStats
from .subscriptions import Subscription as Subscription
from .trainer import Trainer as Trainer

if TYPE_CHECKING:
    from . import activations as activations
    from . import callbacks as callbacks
    from . import constraints as constraints
    from . import initializers as initializers
    from . import layers as layers
    from . import losses as losses
    from . import metrics as metrics
    from . import optimizers as optimizers
    from . import regularizers as regularizers
    from . import testing as testing
    from .executors.process import ProcessExecutor as ProcessExecutor
else:

    def __getattr__(name):
        """What not every program needs, imported when it is first asked for: `af.layers.Dense`."""
        import importlib
        import sys

        doors = """
            activations callbacks constraints initializers layers losses metrics optimizers regularizers testing
        """.split()
        if name in doors:
            return importlib.import_module(f"{__name__}.{name}")
        if name == "ProcessExecutor":
            return importlib.import_module(f"{__name__}.executors.process").ProcessExecutor
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


__version__ = "0.1.0"

__all__ = [
    "AsyncFitError",
    "BadFile",
    "BatchBegin",
    "BatchEnd",
    "Callback",
    "CallbackBusy",
    "CheckpointError",
    "CheckpointFailed",
    "CheckpointSaved",
    "DetachedEvent",
    "DirectoryBusy",
    "EpochBegin",
    "EpochEnd",
    "EvaluateBatchEnd",
    "EvaluateBegin",
    "EvaluateEnd",
    "Event",
    "EventBus",
    "EventStream",
    "EventsDropped",
    "Fit",
    "GateReleased",
    "History",
    "InvalidInput",
    "Job",
    "LayerCreated",
    "LearningRateChanged",
    "ModelBusy",
    "ModelCompiled",
    "NotStarted",
    "Omitted",
    "PredictBatchEnd",
    "PredictBegin",
    "PredictEnd",
    "ProcessExecutor",
    "Progress",
    "Run",
    "RunCancelled",
    "RunPaused",
    "RunResumed",
    "Sequential",
    "Snapshot",
    "StopRequested",
    "SubscriberFailed",
    "SubscriberStats",
    "SubscriberTimeout",
    "Subscription",
    "TrainBegin",
    "TrainEnd",
    "Trainable",
    "Trainer",
    "ValidationBegin",
    "ValidationEnd",
    "WeightsRestored",
    "WorkerLost",
    "WorkerRestarted",
    "batches",
    "inline",
    "load_model",
]
