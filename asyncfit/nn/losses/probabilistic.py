"""Losses between distributions: Poisson's likelihood and the Kullback-Leibler divergence."""

from __future__ import annotations

from functools import partial

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.workspace import Workspace

from .pointwise import Pointwise, pair

__all__ = ["KLDivergence", "Poisson", "kl_divergence", "poisson"]

EPSILON = 1e-7


class Poisson(Pointwise):
    """y − t·log(y + 1e-7), mean over the last axis: counts t, of which y are expected."""

    name = "poisson"

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        above = work.take(y.shape)
        calls: list[Call] = [partial(np.add, y, np.array(EPSILON, y.dtype), above)]
        if grad is not None:
            calls += [partial(np.divide, t, above, grad), partial(np.subtract, np.array(1, y.dtype), grad, grad)]
        return [
            *calls,
            partial(np.log, above, each),
            partial(np.multiply, each, t, each),
            partial(np.subtract, y, each, each),
        ]


class KLDivergence(Pointwise):
    """Σ t·log(t / y) over the last axis; both are cut to [1e-7, 1]."""

    name = "kl_divergence"
    summed = True

    def terms(self, y: Array, t: Array, each: Array, grad: Array | None, work: Workspace) -> list[Call]:
        p, q = work.take(y.shape), work.take(y.shape)
        inside = work.take(y.shape, bool)
        low, high = np.array(EPSILON, y.dtype), np.array(1, y.dtype)
        calls: list[Call] = [partial(np.clip, y, low, high, out=p), partial(np.clip, t, low, high, out=q)]
        if grad is not None:
            calls += [
                partial(np.divide, q, p, grad),
                partial(np.negative, grad, grad),
                partial(np.equal, y, p, inside),
                partial(np.multiply, grad, inside, grad),
            ]
        return [
            *calls,
            partial(np.divide, q, p, each),
            partial(np.log, each, each),
            partial(np.multiply, each, q, each),
        ]


def poisson(y_true: Array, y_pred: Array) -> Array:
    """y − t·log(y + 1e-7), mean over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    return np.asarray(np.mean(y - t * np.log(y + y.dtype.type(EPSILON)), axis=-1))


def kl_divergence(y_true: Array, y_pred: Array) -> Array:
    """Σ t·log(t / y) over the last axis: one value for each prediction."""
    t, y = pair(y_true, y_pred)
    t, y = (np.clip(one, y.dtype.type(EPSILON), y.dtype.type(1)) for one in (t, y))
    return np.asarray(np.sum(t * np.log(t / y), axis=-1))
