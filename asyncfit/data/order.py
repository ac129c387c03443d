"""Which rows an epoch sees, and in what order: pure functions of its number, so that nothing need be stored.

Knows numbers only, no data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["EpochRange", "epoch_range", "permutation"]

_SHUFFLE = 3 << 32  # the purpose, in the counter's second word: 1 and 2 are the network's, see nn/streams.py
_WORD = 2**64


class EpochRange(NamedTuple):
    """The batches `first` ... `first + steps - 1` of pass `number` over the data."""

    number: int
    first: int
    steps: int


def epoch_range(epoch: int, batches: int, steps_per_epoch: int | None = None) -> EpochRange:
    """The part of a pass that `epoch` (from 0, absolute) trains on; a pass has `batches` batches.

    Without `steps_per_epoch` an epoch is a pass. With it, successive epochs go on through one pass, the last
    of them may be shorter, and the next epoch starts a new pass. Keras does so too, but counts from the first
    epoch that it runs; here the absolute epoch counts, so that a resumed run goes on where the first one was.
    """
    if steps_per_epoch is None or steps_per_epoch >= batches:
        return EpochRange(epoch, 0, batches)
    number, part = divmod(epoch, -(-batches // steps_per_epoch))
    first = part * steps_per_epoch
    return EpochRange(number, first, min(steps_per_epoch, batches - first))


def permutation(rows: int, key: tuple[int, int], number: int, part: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of the rows in pass `number`: a function of `key` = (seed, number of the fit) and `number`.

    Philox's counter starts at (0, purpose, pass, part), as for all random numbers of a run. Key and pass are taken
    modulo 2**64. `part` is 0 for all rows; parts of a pass that are shuffled in themselves count from 1.
    """
    words = np.array([key[0] % _WORD, key[1] % _WORD], dtype=np.uint64)
    counter = np.array([0, _SHUFFLE, number % _WORD, part], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=words)).permutation(rows)
