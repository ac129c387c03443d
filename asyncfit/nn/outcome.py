"""What a loss and the metrics of one plan see: the output, and buffers that the targets are copied into.

Losses and metrics bind these arrays once. Before a batch the learner copies the targets and the sample weights of the
batch in, whatever their type is; `target_shape` may lack the last axis of length 1 that the output has.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Call, Shape
from .workspace import Workspace

__all__ = ["Outcome", "flat"]


@dataclass(slots=True)
class Outcome:
    """The end of a plan.

    Attributes:
        y: output, `(rows, …, classes)`.
        logits: what the last activation is computed from, if the loss computes that activation itself (into `y`).
        dy: the gradient to write (by `logits` if those are given, else by `y`), or None.
        target_shape: shape of the batch's targets; dense ones are like `y`, labels lack the classes.
        weighted: whether predictions have weights: the batch's sample weights, or by the mask.
        mask: which predictions count, of bool, or None if all do. As in Keras they share the weight of those left out:
            the mean loss is that over those that count.
        begin: calls that must run before the loss does.
    """

    work: Workspace
    y: Array
    logits: Array | None
    dy: Array | None
    target_shape: Shape
    weighted: bool
    mask: Array | None = None
    target_views: list[Array] = field(default_factory=list)
    """To be filled with the targets of the batch."""
    weight_views: list[Array] = field(default_factory=list)
    """To be filled with the sample weights, shaped so that they broadcast."""
    begin: list[Call] = field(default_factory=list)
    _once: bool = False
    _given: bool = False
    _dense: Array | None = None
    _labels: Array | None = None
    _weights: Array | None = None
    _given_weights: Array | None = None

    def __post_init__(self) -> None:
        self._given = self.weighted
        if self.mask is not None:
            self.weighted = True
            if self.mask.size != self.rows:
                raise InvalidInput(
                    f"the mask has {self.mask.shape[1:]} steps for each sample, but the model gives predictions of the "
                    f"shape {self.y.shape[1:]}; end with a layer that passes no mask on, such as Flatten or "
                    "LSTM(return_sequences=False)"
                )

    @property
    def rows(self) -> int:
        """How many predictions there are: samples, times the steps of a sequence."""
        return int(self.y.size // self.y.shape[-1])

    def dense(self) -> Array:
        """The targets, of the shape and layout of `y`."""
        if self._dense is None:
            self._dense = self.work.like(self.y)
            self.target_views.append(self._dense.reshape(self.target_shape))
            assert np.shares_memory(self.target_views[-1], self._dense)
        return self._dense

    def targets(self) -> Array:
        """The targets for a loss of a user's own: like `y` if they fit it, else of the shape that they have."""
        own = self.y.shape
        if self.target_shape == own or (own[-1] == 1 and self.target_shape == own[:-1]):
            return self.dense()
        found = self.work.take(self.target_shape)
        self.target_views.append(found)
        return found

    def labels(self) -> Array:
        """The targets as class numbers, `(rows, 1)`, in the type of `y`."""
        if self._labels is None:
            self._labels = self.work.take((self.rows, 1))
            self.target_views.append(self._labels.reshape(self.target_shape))
        return self._labels

    def weights(self) -> Array:
        """The weights, one for each prediction, `(rows, 1)`; ones if there are none."""
        if self._weights is None:
            self._weights = given = self.given_weights()
            if self.mask is not None:
                self._weights = np.empty_like(given)
                self.begin.append(self._masked(self.mask.reshape(-1, 1), given, self._weights))
        return self._weights

    @property
    def given(self) -> bool:
        """Whether the batch brings sample weights."""
        return self._given

    def given_weights(self) -> Array:
        """The batch's sample weights alone, without the mask, one for each prediction, `(rows, 1)`."""
        if self._given_weights is None:
            self._given_weights = np.ones((self.rows, 1), self.y.dtype)
            if self._given:
                self.weight_views.append(self._given_weights.reshape(self.y.shape[0], -1))
        return self._given_weights

    def counted_once(self) -> Outcome:
        """The same for a loss alone, where those that the mask keeps do not take over the weight of the others."""
        if self.mask is None:
            return self
        found = copy.copy(self)
        found._once, found._weights = True, None
        return found

    def with_mask(self, mask: Array) -> Outcome:
        """The same for a loss alone that leaves out more: what `mask`, one of bool for each prediction, does not keep.

        A mask that the layers found is taken into `mask` in each batch, by a call in `begin`.
        """
        found = copy.copy(self)
        if self.mask is not None:
            theirs = self.mask.reshape(mask.shape)
            self.begin.append(lambda: np.logical_and(mask, theirs, mask))
        found.mask, found.weighted, found._weights = mask, True, None
        return found

    def _masked(self, mask: Array, given: Array, weights: Array) -> Call:
        if self._once:
            return partial(np.multiply, given, mask, weights)

        def run() -> None:
            counted = np.count_nonzero(mask)
            np.multiply(given, mask, weights)
            np.multiply(weights, self.rows / counted if counted else 0.0, weights)

        return run


def flat(array: Array) -> Array:
    """All elements in the order of memory, as a view."""
    found = array.reshape(-1) if array.flags.c_contiguous else array.T.reshape(-1)
    assert np.shares_memory(found, array)
    return found
