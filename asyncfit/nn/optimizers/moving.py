"""The moving average of the weights that `use_ema=True` keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blas import blend

if TYPE_CHECKING:
    from .base import Optimizer

__all__ = ["MovingAverage"]


class MovingAverage:
    """a ← μa + (1 − μ)w after each batch, as Keras keeps it: the weights themselves until a step is done."""

    def __init__(self, optimizer: Optimizer, params: Array, block: int) -> None:
        self._optimizer, self._params = optimizer, params
        self._average = average = optimizer.slots["average"]
        momentum = optimizer.ema_momentum
        scratch = np.empty(min(block, params.size), params.dtype)
        self._calls: list[Call] = []
        for begin in range(0, params.size, block):
            part = slice(begin, begin + block)
            w = params[part]
            self._calls += blend(average[part], momentum, w, 1 - momentum, scratch[: w.size])

    def follow(self) -> None:
        """Called with `iterations` as it was before the batch."""
        optimizer = self._optimizer
        done = optimizer.iterations
        if done:
            for call in self._calls:
                call()
        else:
            self._average[...] = self._params
        if (every := optimizer.ema_overwrite_frequency) and (done + 1) % every == 0:
            self._params[...] = self._average
