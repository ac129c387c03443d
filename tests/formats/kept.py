"""Checkpoints to write: of a trained model, as a run would keep it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncfit import modelfile
from asyncfit.formats.checkpoint_h5 import Saved
from asyncfit.layers import Dense, Dropout, Input
from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array

__all__ = ["X", "Y", "aligned", "kept", "trained"]

RNG = np.random.default_rng(11)
X = RNG.normal(size=(40, 12)).astype(np.float32)
Y = (X @ RNG.normal(size=(12, 3))).argmax(axis=1)


def trained(units: int = 20, batches: int = 5, optimizer: str = "adam", *, name: str = "kept") -> Learner:
    """A model that was trained a little."""
    layers = [Input((12,)), Dense(units, activation="relu"), Dropout(0.0), Dense(3, activation="softmax")]
    learner = Learner(Network(layers, name=name, seed=3), loss="sparse_categorical_crossentropy", optimizer=optimizer)
    for number in range(batches):
        learner.train_batch(X[number * 8 : number * 8 + 8], Y[number * 8 : number * 8 + 8])
    return learner


def aligned(array: Array) -> Array:
    """A copy at a page boundary."""
    memory = np.frombuffer(mmap.mmap(-1, max(1, array.nbytes)), np.uint8)[: array.nbytes]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def kept(learner: Learner, run: Mapping[str, Any] | None = None, **arrays: Array) -> Saved:
    """What a checkpoint keeps of it: the arrays of its state, and the model as parts of them."""
    state = {
        name: aligned(value) if isinstance(value, np.ndarray) else value for name, value in learner.state().items()
    }
    model = modelfile.saved(learner.network, learner, modelfile.training_config(learner), state)
    own = {f"state/{name}": value for name, value in state.items() if isinstance(value, np.ndarray)}
    numbers = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    return Saved(model=model, arrays={**own, **arrays}, run={"state": numbers, **(run or {})})
