"""Embedding: a vector of trained numbers for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import whole
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer, Weight

__all__ = ["Embedding"]


class Embedding(Layer):
    """Whole numbers from 0 to `input_dim` − 1 become rows of a matrix: `(…,)` → `(…, output_dim)`.

    With `mask_zero` the number 0 stands for a step that is not there: layers behind skip it (see `Masking`).

    Weights: embeddings `(input_dim, output_dim)`.

    Raises:
        InvalidInput: a number is out of range: before a run, if the data is in memory, else while it runs; nothing was
            changed by that batch.
    """

    ignored_options = (*Layer.ignored_options, "input_length")
    off_options: ClassVar[Mapping[str, object]] = dict.fromkeys(
        ("lora_alpha", "lora_rank", "quantization_config", "weights")
    )
    takes_integers = True

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: InitializerLike = "uniform",
        embeddings_regularizer: RegularizerLike = None,
        embeddings_constraint: ConstraintLike = None,
        mask_zero: bool = False,
        *,
        activity_regularizer: RegularizerLike = None,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        self.input_dim = self.words = whole("Embedding(input_dim=…)", input_dim, least=1)
        self.output_dim = whole("Embedding(output_dim=…)", output_dim, least=1)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = self.makes_mask = bool(mask_zero)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        return [self.weight("embeddings", (self.input_dim, self.output_dim))]

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def mask_shape_for(self, input_shape: Shape) -> Shape:
        return input_shape

    def plan(self, at: Place) -> None:
        words, table = at.x, at.weights["embeddings"]
        if words.dtype != np.intp:
            words = at.take(at.x.shape, np.intp)
            at.forward.append(partial(np.copyto, words, at.x, casting="unsafe"))
        at.forward.append(self._checked(words))
        at.forward.append(partial(np.take, table, words, 0, at.y, "clip"))  # "raise" would copy first
        if at.new_mask is not None:
            at.forward.append(partial(np.not_equal, words, np.intp(0), at.new_mask))
        if at.dx is not None:
            at.backward.append(partial(at.dx.fill, 0))
        if at.dy is not None and at.grads:
            at.backward.append(summed_by_word(at, words.reshape(-1), at.dy, at.grads["embeddings"]))

    def _checked(self, words: Array) -> Call:
        unsigned, words_known = words.view(np.uintp), self.input_dim  # what is below 0 is very large there

        def check() -> None:
            if unsigned.max() >= words_known:
                raise InvalidInput(
                    f"{self.name!r} (Embedding) takes whole numbers from 0 to {words_known - 1}, but x goes from "
                    f"{words.min()} to {words.max()}; a larger input_dim takes more words"
                )

        return check

    def get_config(self) -> dict[str, Any]:
        return {
            "activity_regularizer": None,
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            **self.weight_config("embeddings"),
            "mask_zero": self.mask_zero,
        }


def summed_by_word(at: Place, words: Array, dy: Array, grad: Array) -> Call:
    """A call that sets `grad`: for each word the sum of the rows of `dy` where it stands, else 0.

    Rows are sorted by word (16 bits sort six times as fast as 64). Most words of a large vocabulary stand there once:
    their rows are copied; those of the others are gathered and added up.
    """
    rows, width = len(words), grad.shape[1]
    given = dy.reshape(rows, width)
    key = at.take((rows,), np.uint16 if len(grad) <= 1 << 16 else np.intp)
    gathered, sums = at.take((rows, width)), at.take((rows, width))
    begins, single, ordered = np.empty(rows + 1, bool), np.empty(rows, bool), np.empty(rows, np.intp)
    begins[0] = begins[rows] = True

    def run() -> None:
        grad.fill(0)
        np.copyto(key, words, casting="unsafe")
        order = key.argsort(kind="stable")
        np.take(words, order, 0, ordered, "clip")
        np.not_equal(ordered[1:], ordered[:-1], begins[1:rows])
        np.logical_and(begins[:-1], begins[1:], single)
        once = order[single]
        np.take(given, once, 0, gathered[: len(once)], "clip")
        grad[ordered[single]] = gathered[: len(once)]
        if len(once) == rows:
            return
        np.logical_not(single, single)
        several = order[single]
        part = gathered[: len(several)]
        np.take(given, several, 0, part, "clip")
        starts = begins[:-1][single].nonzero()[0]
        total = sums[: len(starts)]
        np.add.reduceat(part, starts, 0, None, total)
        grad[ordered[single][starts]] = total

    return run
