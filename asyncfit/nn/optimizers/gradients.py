"""What is done to gradients before a step: clipped, or gathered over several batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asyncfit.nn.arrays import Array, Call

if TYPE_CHECKING:
    from .base import Optimizer

__all__ = ["Stretch", "accumulation", "clipping"]


class Stretch(NamedTuple):
    """Where a weight array lies in the flat ones: `path` is `layer/name`."""

    path: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def clipping(optimizer: Optimizer, grads: Array, parts: Sequence[Stretch]) -> Call | None:
    """What clips the gradients in place, as Keras does; None if nothing is to be clipped."""
    if optimizer.clipvalue is not None:
        least, most = (np.array(sign * optimizer.clipvalue, grads.dtype) for sign in (-1, 1))
        return partial(np.clip, grads, least, most, grads)
    views = [grads[part.offset : part.offset + part.size] for part in parts]
    if optimizer.clipnorm is not None:
        return partial(_clip_each, views, optimizer.clipnorm)
    if optimizer.global_clipnorm is not None:
        return partial(_clip_all, grads, optimizer.global_clipnorm)
    return None


def _clip_each(views: Sequence[Array], limit: float) -> None:
    for view in views:
        norm = math.sqrt(float(np.dot(view, view)))
        if not norm <= limit:  # (also what is no number: its scale is none either)
            _scale(view, limit / norm)


def _clip_all(grads: Array, limit: float) -> None:
    norm = math.sqrt(float(np.dot(grads, grads)))
    if not norm <= limit:
        # An infinite norm has no direction to keep: all becomes NaN, which TerminateOnNaN and others see, as in Keras.
        _scale(grads, limit / norm if norm < math.inf else math.nan)


def _scale(gradients: Array, factor: float) -> None:
    with np.errstate(invalid="ignore"):  # what is infinite times 0
        np.multiply(gradients, factor, gradients)


def accumulation(optimizer: Optimizer, grads: Array, gathered: Array, step: Callable[[], None]) -> Callable[[], None]:
    """`step`, made with the mean of several batches' gradients, at the last of them."""
    steps = optimizer.gradient_accumulation_steps
    assert steps is not None
    count, divisor = steps, np.array(steps, grads.dtype)

    def gather() -> None:
        if (optimizer.batches + 1) % count:
            np.add(gathered, grads, gathered)
            return
        np.add(gathered, grads, grads)
        np.divide(grads, divisor, grads)
        step()
        gathered[...] = 0

    return gather
