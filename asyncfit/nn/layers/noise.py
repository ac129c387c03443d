"""GaussianNoise, GaussianDropout, AlphaDropout: noise in training, nothing elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncfit.nn.activations import scalar
from asyncfit.nn.arrays import Shape
from asyncfit.nn.streams import ALPHA_DROPOUT, GAUSSIAN_DROPOUT, GAUSSIAN_NOISE
from asyncfit.nn.workspace import Place

from .dropout import NoiseShape, noise_in, noise_of
from .random import Random, in_a_line

__all__ = ["AlphaDropout", "GaussianDropout", "GaussianNoise"]

ALPHA = 1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
"""Where SELU goes for very negative inputs, with the other sign."""


class GaussianNoise(Random):
    """y = x + n, n normal with mean 0 and standard deviation `stddev`, at most 1; y = x outside training."""

    def __init__(
        self,
        stddev: float,
        seed: int | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__("stddev", stddev, seed, name=name, input_shape=input_shape, trainable=trainable)
        self.stddev = self._strength

    def plan(self, at: Place) -> None:
        x, y, dice, place = at.x, at.y, at.dice, self.stream(at)
        noise, stddev, kind = at.like(x), scalar(self.stddev, x), x.dtype.type
        drawn = in_a_line(noise)

        def forward() -> None:
            dice.at(GAUSSIAN_NOISE, place).standard_normal(None, kind, drawn)
            np.multiply(drawn, stddev, drawn)
            np.add(x, noise, y)

        at.forward.append(forward)
        if at.dx is not None:
            dy, dx = at.dy, at.dx
            assert dy is not None
            at.backward.append(lambda: np.copyto(dx, dy))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"stddev": self.stddev, "seed": self.seed}


class GaussianDropout(Random):
    """y = x·n, n normal with mean 1 and standard deviation √(rate / (1 − rate)); y = x outside training (Srivastava et
    al. 2014, 10). `rate` is below 1.
    """

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__("rate", rate, seed, whole_range=False, name=name, input_shape=input_shape, trainable=trainable)
        self.rate = self._strength

    def plan(self, at: Place) -> None:
        x, y, dice, place = at.x, at.y, at.dice, self.stream(at)
        factor, one, kind = at.like(x), scalar(1, x), x.dtype.type
        stddev, drawn = scalar(math.sqrt(self.rate / (1.0 - self.rate)), x), in_a_line(factor)

        def forward() -> None:
            dice.at(GAUSSIAN_DROPOUT, place).standard_normal(None, kind, drawn)
            np.multiply(drawn, stddev, drawn)
            np.add(drawn, one, drawn)
            np.multiply(x, factor, y)

        at.forward.append(forward)
        if at.dx is not None:
            dy, dx = at.dy, at.dx
            assert dy is not None
            at.backward.append(lambda: np.multiply(dy, factor, dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}


class AlphaDropout(Random):
    """Dropout that keeps mean and variance of what SELU makes: y = a·(x·m − A·(1 − m)) + b, m = 0 with probability
    `rate`, below 1, else 1 (Klambauer et al. 2017); y = x outside training.

    A = 1.758 is where SELU goes for very negative inputs, a = ((1 − rate)·(1 + rate·A²))^−½, b = a·A·rate.

    Args:
        noise_shape: the shape of m, see `Dropout`.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: NoiseShape = None,
        seed: int | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__("rate", rate, seed, whole_range=False, name=name, input_shape=input_shape, trainable=trainable)
        self.rate = self._strength
        self.noise_shape = noise_of(type(self).__name__, noise_shape)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        noise_in(self, self.noise_shape, (None, *input_shape))
        return input_shape

    def plan(self, at: Place) -> None:
        x, y, dice, place = at.x, at.y, at.dice, self.stream(at)
        shape, rate, kind = noise_in(self, self.noise_shape, x.shape), scalar(self.rate, x), x.dtype.type
        mask = at.like(x) if shape == x.shape else at.take(shape)
        drawn = in_a_line(mask)
        a = ((1.0 - self.rate) * (1.0 + self.rate * ALPHA**2)) ** -0.5
        scale, alpha = scalar(a, x), scalar(ALPHA, x)
        rest = scalar(a * ALPHA * self.rate - a * ALPHA, x)  # y = (x + A)·(a·m) + rest

        def forward() -> None:
            dice.at(ALPHA_DROPOUT, place).random(None, kind, drawn)
            np.greater_equal(drawn, rate, drawn)
            np.multiply(drawn, scale, drawn)
            np.add(x, alpha, y)
            np.multiply(y, mask, y)
            np.add(y, rest, y)

        at.forward.append(forward)
        if at.dx is not None:
            dy, dx = at.dy, at.dx
            assert dy is not None
            at.backward.append(lambda: np.multiply(dy, mask, dx))

    def get_config(self) -> dict[str, Any]:
        noise = None if self.noise_shape is None else list(self.noise_shape)
        return super().get_config() | {"rate": self.rate, "noise_shape": noise, "seed": self.seed}
