"""What layers over images `(height, width, channels)` and sequences `(steps, channels)` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Shape
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.windows import Window, window

from .base import Layer

__all__ = ["Sizes", "Spatial", "check_data_format", "one_padding", "sizes"]

Sizes = int | Sequence[int]
NAMES = {1: "(steps, channels)", 2: "(height, width, channels)"}


class Spatial(Layer):
    """A layer over `rank` axes and channels, which come last; arrays lie as planes."""

    order: ClassVar[str] = "planes"
    rank: ClassVar[int]
    off_options: ClassVar[Mapping[str, object]] = {}

    def __init__(
        self,
        data_format: str | None,
        *,
        name: str | None,
        input_shape: int | Sequence[int] | None,
        trainable: bool = True,
        activity_regularizer: RegularizerLike = None,
    ) -> None:
        super().__init__(
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        check_data_format(type(self).__name__, data_format)

    @property
    def who(self) -> str:
        """The layer, as messages name it."""
        return f"{type(self).__name__} {self.name!r}"

    def check_rank(self, input_shape: Shape) -> None:
        """Refuse samples that are no images, or no sequences."""
        if len(input_shape) == self.rank + 1:
            return
        missing = ""
        if len(input_shape) == self.rank:
            missing = f"; for one channel reshape x to (rows, {', '.join(map(str, input_shape))}, 1)"
        raise InvalidInput(f"{self.who} takes samples of shape {NAMES[self.rank]}, not {input_shape}{missing}")

    def windows(
        self, input_shape: Shape, taps: Shape, strides: Shape, dilation: Shape, padding: str
    ) -> tuple[Window, Window]:
        """The windows over the height and the width; a sequence is an image of height 1."""
        who = f"{self.who} got samples of shape {input_shape}"
        found = [
            window(who, size, many, stride, apart, padding)
            for size, many, stride, apart in zip(input_shape[:-1], taps, strides, dilation, strict=True)
        ]
        return (found[0], found[1]) if self.rank == 2 else (Window(1, 1, 1, 1, 0, 1), found[0])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"data_format": "channels_last"}


def sizes(where: str, given: Sizes, rank: int, *, least: int = 1) -> Shape:
    """One whole number for each axis; an int stands for all."""
    try:
        found: tuple[Any, ...] = (given,) * rank if isinstance(given, int | np.integer) else tuple(given)
    except TypeError:
        found = ()
    if len(found) != rank or not all(isinstance(s, int | np.integer) and s >= least for s in found):
        several = f" or {rank} of them" if rank > 1 else ""
        raise InvalidInput(f"{where} must be a whole number from {least}{several}, not {given!r}")
    return tuple(int(s) for s in found)


def one_padding(where: str, given: object, known: Sequence[str] = ("valid", "same")) -> str:
    """A padding by its name, in any case."""
    found = given.lower() if isinstance(given, str) else given
    if found not in known:
        causal = "; 'causal' is for Conv1D" if found == "causal" else ""
        raise InvalidInput(f"{where} must be {' or '.join(map(repr, known))}, not {given!r}{causal}")
    return str(found)


def check_data_format(who: str, given: object) -> None:
    """Images have their channels last here."""
    if given not in (None, "channels_last"):
        raise InvalidInput(
            f"{who}(data_format={given!r}): only 'channels_last' is supported; move the channels behind others: "
            "x.transpose(0, 2, 3, 1) for images, x.transpose(0, 2, 1) for sequences"
        )
