"""Random numbers as a function of where they are used: no generator has a state that must be kept.

Philox is a counter-based generator: its stream is a function of a key (128 bits) and a counter (256 bits). The key
says which run, the counter says where in it, so rollback, resume and other executors need nothing stored::

    key      (seed, number of the fit)
    counter  (0, purpose and layer, epoch, step)     the first word counts the blocks that one use draws
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

__all__ = ["Dice", "checked_seed", "initial_stream"]

WORD = (1 << 64) - 1
INITIAL_WEIGHTS, DROPOUT, RECURRENT_INPUTS, RECURRENT_STATES = 1, 2, 20, 21
GAUSSIAN_NOISE, GAUSSIAN_DROPOUT, ALPHA_DROPOUT = 3, 4, 5
OWN_LAYER = 30
"""Purposes: the upper half of the counter's second word."""


def checked_seed(seed: object) -> int:
    """`seed` as an int of 64 bits; None draws one."""
    if seed is None:
        return secrets.randbits(64)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= WORD:
        raise InvalidInput(f"seed must be None or a whole number from 0 to 2**64 - 1, not {seed!r}")
    return int(seed)


def initial_stream(seed: int, layer: int, weight: int) -> np.random.Generator:
    """The stream that the initial values of one weight are drawn from."""
    key = np.array([seed & WORD, 0], np.uint64)
    counter = np.array([0, INITIAL_WEIGHTS << 32 | layer, weight, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class Dice:
    """One Philox generator that can be put at any place; each execution has its own.

    Writing into the arrays of a state made once and setting that costs 0.7 µs; making a Philox costs 7.
    """

    __slots__ = ("_counter", "_key", "_philox", "_state", "generator")

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=np.zeros(2, np.uint64))
        self.generator = np.random.Generator(self._philox)
        self._state: Any = dict(self._philox.state)
        inner = {"counter": np.zeros(4, np.uint64), "key": np.zeros(2, np.uint64)}
        self._state["state"] = inner
        self._counter, self._key = inner["counter"], inner["key"]

    def seek(self, key: tuple[int, int], epoch: int, step: int) -> None:
        """Go to a batch: `key` is (seed, number of the fit); `epoch` and `step` count from 0."""
        self._key[0], self._key[1] = key[0] & WORD, key[1] & WORD
        self._counter[2], self._counter[3] = epoch, step

    def at(self, purpose: int, layer: int) -> np.random.Generator:
        """The generator, at the start of its stream for this layer in the batch that was sought."""
        self._counter[0], self._counter[1] = 0, purpose << 32 | layer
        self._philox.state = self._state
        return self.generator
