"""Networks in plain NumPy: layers, losses, metrics, optimizers, and the learner that joins them.

Nothing here is async and nothing knows of events, runs or files. `network.py` holds layers and weights, `plan.py`
turns them into calls on arrays that are bound once, `learner.py` runs batches, `prediction.py` predicts.
"""

from __future__ import annotations

from .learner import Learner as Learner
from .network import Network as Network
from .prediction import Outputs as Outputs
from .prediction import predict as predict
from .prediction import quiet as quiet

__all__ = ["Learner", "Network", "Outputs", "predict", "quiet"]
