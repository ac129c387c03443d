"""How much memory the state of a run and the copies of it may take, whoever subscribes.

At the same time there may be copies for

    lookahead + 1   boundaries whose gates have not all returned: compute works ahead of so many, and opens one more
    1               the newest confirmed boundary, which predictions beside training read where boundaries are gated
    1               the copy that predictions share where none are
    2               what compute has reported, waits for no gate, and is not published yet; more of a small state
    2               for each saver of checkpoints: one is being written, one waits
    1               from which another worker would go on, if one that is lost is replaced

Predictions that take longer than their copy is shared, and everything that handlers hold or that waits for slow
subscribers with `snapshots=True` (`SubscriberStats.snapshots`), come on top: nobody else knows how long they keep it.
"""

from __future__ import annotations

import numpy as np

from .pool import size_of_copy
from .protocol import State

__all__ = ["copies", "memory", "unpublished"]

SPARE = 4 << 20
"""So many bytes of small states may be reported and not published: a loop that is busy for a while stops no compute."""


def unpublished(state: State) -> int:
    """How many copies of `state` compute may have reported that wait for no gate and are not published yet."""
    return max(2, SPARE // max(1, size_of_copy(state)))


def copies(state: State, *, lookahead: int, savers: int = 0, replaceable: bool = False) -> int:
    """How many copies of `state` there may be at a time."""
    return lookahead + 1 + 1 + 1 + unpublished(state) + 2 * savers + replaceable


def memory(
    state: State,
    *,
    lookahead: int,
    remote: bool = False,
    savers: int = 0,
    resumed: bool = False,
    replaceable: bool = False,
) -> int:
    """Bytes for the state and the copies of it.

    Args:
        state: the model's, as it is before the run.
        lookahead: of the run.
        remote: it computes in another process. The state itself is there three times then: the model's here and there,
            and as it was handed over. Copies lie in memory that both sides share.
        savers: callbacks that write checkpoints.
        replaceable: a worker process that is lost is replaced.
        resumed: the run goes on from a checkpoint, which it holds, as a worker process does for itself.
    """
    itself = sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))
    models = (3 if remote else 1) + (2 if remote else 1) * resumed
    return models * itself + copies(state, lookahead=lookahead, savers=savers, replaceable=replaceable) * size_of_copy(
        state
    )
