"""Networks in plain NumPy: layers, losses, metrics, optimizers, and the learner that joins them.

Nothing here is async and nothing knows of events, runs or files. `network.py` holds layers and weights, `plan.py`
turns them into calls on arrays that are bound once, `learner.py` runs batches.
"""

from __future__ import annotations

from .learner import Learner as Learner
from .learner import predict as predict
from .learner import quiet as quiet
from .network import Network as Network

__all__ = ["Learner", "Network", "predict", "quiet"]
