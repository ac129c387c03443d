"""Layers that learn from data before training: a worker thread takes statistics, a piece of the data at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import anyio.to_thread
import numpy as np

from .errors import InvalidInput
from .jobs import Job
from .nn import layers
from .nn.arrays import Array
from .nn.moments import Moments

__all__ = ["ADAPTED", "Normalization"]

PIECE = 1 << 20
"""Numbers that are read at a time."""
TURN = 0.05
"""Seconds of work after which a cancellation is seen."""


class Normalization(layers.Normalization):
    __doc__ = layers.Normalization.__doc__

    def adapt(self, data: Any) -> Job[None]:
        """Take mean and variance from data, in a worker thread: await it, or say `.blocking()` in a plain script.

        They take the place of those from before once all data was read. It may come before the layer is part of a
        model, or before the model is built; while a run trains the model, wait for its end.

        Args:
            data: an array, a memory map or an HDF5 data set, a row for each sample, or an iterable of batches: arrays,
                or tuples whose first entry is one. It is read once, and never held whole.

        Raises:
            InvalidInput: (when awaited) there are no samples, or they are not of the shape that the layer is for, or
                the layer was given its mean and variance. Nothing was changed.
        """

        async def run() -> None:
            work = self._counting(data)
            while True:
                found: Moments | bool = await anyio.to_thread.run_sync(_turn, work)
                if isinstance(found, Moments):
                    return self.take(found)

        return Job("layer.adapt(…)", run)

    def _counting(self, data: Any) -> Iterator[Moments | None]:
        """Reads the data, None after each piece, and the statistics at the end."""
        found: Moments | None = None
        for piece in pieces(data):
            if not piece.ndim:
                raise InvalidInput("adapt takes batches with a row for each sample, not single numbers")
            if found is None:
                found = self.moments(piece.shape[1:])
            found.add(piece)
            yield None
        if found is None or not found.count:
            raise InvalidInput("adapt: there are no samples in the data")
        yield found


def _turn(work: Iterator[Moments | None]) -> Moments | bool:
    """Go on for a while; the statistics once they are there."""
    until = time.monotonic() + TURN
    while (found := next(work)) is None:
        if time.monotonic() > until:
            return False
    return found


def pieces(data: Any) -> Iterator[Array]:
    """The data in pieces of some rows; batches come as they are."""
    if isinstance(data, str | bytes) or not (hasattr(data, "shape") or isinstance(data, Iterable)):
        raise InvalidInput(f"adapt takes an array, a data set or an iterable of batches, not {type(data).__name__}")
    if not hasattr(data, "shape"):
        for batch in data:
            yield np.asarray(batch[0] if isinstance(batch, tuple) else batch)
        return
    if not hasattr(data, "dtype"):  # a table, which becomes an array
        data = np.asarray(data)
    shape = tuple(data.shape)
    if not shape:
        raise InvalidInput("adapt takes data with a row for each sample, not a single number")
    step = max(1, PIECE // max(1, math.prod(shape[1:])))
    for begin in range(0, shape[0], step):
        yield np.asarray(data[begin : begin + step])


ADAPTED: dict[str, type[layers.Layer]] = {"Normalization": Normalization}
"""What files have by these names."""
