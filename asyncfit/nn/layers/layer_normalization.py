"""LayerNormalization, UnitNormalization: a sample, or a step of it, gets mean 0 and variance 1, or length 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.activations import scalar
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.blocks import blocks
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import number
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.rowwise import Rows, axes_in
from asyncfit.nn.workspace import Place

from .base import Layer, Weight
from .reshape import wholes

__all__ = ["LayerNormalization", "UnitNormalization"]


class LayerNormalization(Layer):
    """y = gamma·(x - mean) / √(variance + epsilon) + beta (Ba et al. 2016), mean and variance along `axis`.

    Weights: gamma (with `scale`), beta (with `center`), of the lengths of those axes.

    Args:
        axis: one axis of a sample or several, from 1; -1 is the last.
        rms_scaling: y = gamma·x / √(variance + epsilon), without beta; Keras calls it deprecated.
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        *,
        rms_scaling: bool = False,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        axes = wholes("LayerNormalization(axis=…)", axis)
        self.axis: int | list[int] = int(axis) if isinstance(axis, int) else list(axes)
        self.epsilon = number("LayerNormalization(epsilon=…)", epsilon, least=0.0)
        self.center, self.scale, self.rms_scaling = bool(center), bool(scale), bool(rms_scaling)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        shape = tuple(input_shape[axis - 1] for axis in self._axes(input_shape))
        found = [self.weight("gamma", shape)] if self.scale or self.rms_scaling else []
        return [*found, self.weight("beta", shape)] if self.center and not self.rms_scaling else found

    def _axes(self, input_shape: Shape) -> tuple[int, ...]:
        return axes_in(f"{type(self).__name__} {self.name!r}", self.axis, input_shape)

    def plan(self, at: Place) -> None:
        rows = Rows(at, self._axes(at.x.shape[1:]))
        gamma, beta = (at.weights[name].reshape(-1) if name in at.weights else None for name in ("gamma", "beta"))
        normal, scratch = at.like(rows.x), at.like(rows.x)  # (x - mean) · inverse; with rms_scaling x - mean
        number, length = rows.x.shape
        inverse, mean = at.take((number, 1)), at.take((number, 1))
        share, epsilon = np.full(length, 1 / length, at.x.dtype), scalar(self.epsilon, at.x)
        calls = list(rows.load)
        for x, y, n, s, m, r in blocks(rows.x, rows.y, normal, scratch, mean, inverse):
            calls += [
                partial(np.dot, x, share, m[:, 0]),
                partial(np.subtract, x, m, n),
                partial(np.multiply, n, n, s),
                partial(np.dot, s, share, r[:, 0]),
                partial(np.add, r, epsilon, r),
                partial(np.sqrt, r, r),
                partial(np.reciprocal, r, r),
            ]
            if self.rms_scaling:
                calls += [partial(np.multiply, x, r, y), partial(np.multiply, y, gamma, y)]
                continue
            calls.append(partial(np.multiply, n, r, n))
            calls.append(partial(np.copyto, y, n) if gamma is None else partial(np.multiply, n, gamma, y))
            if beta is not None:
                calls.append(partial(np.add, y, beta, y))
        at.forward += [*calls, *rows.store]
        if rows.dy is None:
            return
        at.backward += rows.load_back
        at.backward += self._weights_back(at, rows, normal, scratch, inverse)
        if rows.dx is not None:
            if self.rms_scaling:
                at.backward += self._rms_back(rows, gamma, normal, scratch, mean, inverse, share)
            else:
                at.backward += self._back(rows, gamma, normal, scratch, mean, inverse, share)
        at.backward += rows.store_back

    def _weights_back(self, at: Place, rows: Rows, normal: Array, scratch: Array, inverse: Array) -> list[Call]:
        """The gradients of gamma, Σ dy·normal, and beta, Σ dy, as products with ones."""
        assert rows.dy is not None
        ones, calls = np.ones(len(normal), normal.dtype), list[Call]()
        if "beta" in at.grads:
            calls.append(partial(np.dot, ones, rows.dy, at.grads["beta"].reshape(-1)))
        if "gamma" in at.grads:
            for x, n, dy, s, r in blocks(rows.x, normal, rows.dy, scratch, inverse):
                calls.append(partial(np.multiply, dy, x if self.rms_scaling else n, s))
                if self.rms_scaling:
                    calls.append(partial(np.multiply, s, r, s))
            calls.append(partial(np.dot, ones, scratch, at.grads["gamma"].reshape(-1)))
        return calls

    @staticmethod
    def _back(
        rows: Rows, gamma: Array | None, normal: Array, scratch: Array, mean: Array, inverse: Array, share: Array
    ) -> list[Call]:
        """dx = (g - mean of g - n·(mean of g·n)) · inverse, with g = dy·gamma and n normalized."""
        assert rows.dy is not None
        assert rows.dx is not None
        calls: list[Call] = []
        for dy, dx, n, s, m, r in blocks(rows.dy, rows.dx, normal, scratch, mean, inverse):
            g = dy if gamma is None else dx
            if gamma is not None:
                calls.append(partial(np.multiply, dy, gamma, dx))
            calls += [
                partial(np.multiply, g, n, s),
                partial(np.dot, s, share, m[:, 0]),
                partial(np.multiply, n, m, s),
                partial(np.dot, g, share, m[:, 0]),
                partial(np.subtract, g, s, dx),
                partial(np.subtract, dx, m, dx),
                partial(np.multiply, dx, r, dx),
            ]
        return calls

    @staticmethod
    def _rms_back(
        rows: Rows, gamma: Array | None, centered: Array, scratch: Array, mean: Array, inverse: Array, share: Array
    ) -> list[Call]:
        """dx = g·inverse - (x - mean)·inverse³·(mean of g·x), with g = dy·gamma."""
        assert rows.dy is not None
        assert rows.dx is not None
        calls: list[Call] = []
        for x, dy, dx, c, s, m, r in blocks(rows.x, rows.dy, rows.dx, centered, scratch, mean, inverse):
            calls += [
                partial(np.multiply, dy, gamma, dx),
                partial(np.multiply, dx, x, s),
                partial(np.dot, s, share, m[:, 0]),
                partial(np.multiply, m, r, m),
                partial(np.multiply, m, r, m),
                partial(np.multiply, c, m, s),
                partial(np.subtract, dx, s, dx),
                partial(np.multiply, dx, r, dx),
            ]
        return calls

    def get_config(self) -> dict[str, Any]:
        found = super().get_config() | {
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **self.weight_config("beta", "gamma"),
        }
        return found | {"rms_scaling": True} if self.rms_scaling else found  # Keras 2 and TF.js do not know it


class UnitNormalization(Layer):
    """y = x / √(Σ x²), the sum along `axis`, one axis of a sample or several; a row of zeros stays as it is."""

    supports_masking = True
    off_options: ClassVar[Mapping[str, object]] = {"activity_regularizer": None}

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        axes = wholes("UnitNormalization(axis=…)", axis)
        self.axis: int | list[int] = int(axis) if isinstance(axis, int) else list(axes)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._axes(input_shape)
        return input_shape

    def _axes(self, input_shape: Shape) -> tuple[int, ...]:
        return axes_in(f"{type(self).__name__} {self.name!r}", self.axis, input_shape)

    def plan(self, at: Place) -> None:
        rows = Rows(at, self._axes(at.x.shape[1:]))
        ones, most = np.ones(rows.x.shape[1], at.x.dtype), scalar(1e12, at.x)
        inverse, scratch = at.take((len(rows.x), 1)), at.like(rows.x)
        at.forward += rows.load
        for x, y, s, r in blocks(rows.x, rows.y, scratch, inverse):
            at.forward += [
                partial(np.multiply, x, x, s),
                partial(np.dot, s, ones, r[:, 0]),
                partial(np.sqrt, r, r),
                partial(np.reciprocal, r, r),
                partial(np.minimum, r, most, out=r),
                partial(np.multiply, x, r, y),
            ]
        at.forward += rows.store
        if rows.dy is None or rows.dx is None:
            return
        at.backward += rows.load_back
        pull = at.take((len(rows.x), 1))
        for y, dy, dx, s, r, p in blocks(rows.y, rows.dy, rows.dx, scratch, inverse, pull):
            at.backward += [
                partial(np.multiply, dy, y, s),
                partial(np.dot, s, ones, p[:, 0]),
                partial(np.multiply, y, p, s),
                partial(np.subtract, dy, s, dx),
                partial(np.multiply, dx, r, dx),
            ]
        at.backward += rows.store_back

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}
