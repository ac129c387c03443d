"""Activations: the value and its gradient side by side, as calls on arrays that are bound once.

Each is an object that works as a function (`relu(x)`), has Keras's name, and can bind itself into a plan: `forward`
writes y from z, `backward` turns the gradient by y into the one by z, in place. Formulas and defaults are Keras 3's.
No formula overflows: exponents are never positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Call
from .naming import fold, look_up, number
from .special import erf
from .workspace import Workspace

__all__ = [
    "Activation",
    "ActivationLike",
    "elu",
    "gelu",
    "get",
    "leaky_relu",
    "linear",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "swish",
    "tanh",
]


class Activation:
    """An elementwise function (softmax: along the last axis) of a layer's result."""

    name = "linear"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        """Calls that write `y`; `z` stays as it is."""
        return [partial(np.copyto, y, z)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        """Calls that turn `dy` (∂loss/∂y) into ∂loss/∂z in place; `z` and `y` are those that forward has left."""
        return []

    def __call__(self, x: Array) -> Array:
        """The function itself; integers become float32."""
        x = np.asarray(x)
        x = x if x.dtype == np.float64 else x.astype(np.float32)
        y = np.empty_like(x)
        for call in self.forward(x, y, Workspace(x.dtype)):
            call()
        return y

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        """Copies of ours are the same object again."""
        return (get, (self.name,)) if SPELLINGS.get(self.name) is self else super().__reduce__()


ActivationLike: TypeAlias = str | Activation | Callable[[Array], Array] | None


def scalar(value: float, like: Array) -> Array:
    """A constant in the type of `like`; a 0-d array costs half of what a Python float costs in a call."""
    return np.array(value, like.dtype)


class ReLU(Activation):
    """y = max(z, 0); at 0 the gradient is 0."""

    name = "relu"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [partial(np.maximum, z, scalar(0, z), out=y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        # y is not negative, so its bits, as a whole number, are 0 where it is 0: six times as fast as np.sign
        whole = np.dtype(f"u{y.itemsize}")
        slope, bits = work.like(dy, whole), dy.view(whole)
        return [
            partial(np.minimum, y.view(whole), np.array(1, whole), out=slope),
            partial(np.multiply, bits, slope, bits),
        ]


class LeakyReLU(Activation):
    """y = z above 0, `negative_slope`·z below (and the slope at 0). Keras 3's function has the slope 0.2."""

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.2) -> None:
        self.negative_slope = number("leaky_relu(negative_slope=…)", negative_slope, least=0.0, below=1.0)

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [partial(np.multiply, z, scalar(self.negative_slope, z), y), partial(np.maximum, z, y, out=y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.greater, z, scalar(0, z), slope),
            partial(np.multiply, slope, scalar(1 - self.negative_slope, z), slope),
            partial(np.add, slope, scalar(self.negative_slope, z), slope),
            partial(np.multiply, dy, slope, dy),
        ]


class ELU(Activation):
    """y = z above 0, e^z − 1 below."""

    name = "elu"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        below, zero = work.like(z), scalar(0, z)
        return [
            partial(np.minimum, z, zero, out=below),
            partial(np.expm1, below, below),
            partial(np.maximum, z, zero, out=y),
            partial(np.add, y, below, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)  # y + 1 below 0, and 1 above
        return [
            partial(np.minimum, y, scalar(0, y), out=slope),
            partial(np.add, slope, scalar(1, y), slope),
            partial(np.multiply, dy, slope, dy),
        ]


class Tanh(Activation):
    """y = tanh z; y' = 1 − y²."""

    name = "tanh"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [partial(np.tanh, z, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.multiply, y, y, slope),
            partial(np.subtract, scalar(1, y), slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


def sigmoid_calls(z: Array, y: Array) -> list[Call]:
    """1 / (1 + e^−z), with −z cut where e^−z would leave the type's range."""
    most = scalar(87 if z.dtype == np.float32 else 700, z)
    return [
        partial(np.negative, z, y),
        partial(np.minimum, y, most, out=y),
        partial(np.exp, y, y),
        partial(np.add, y, scalar(1, y), y),
        partial(np.reciprocal, y, y),
    ]


class Sigmoid(Activation):
    """y = 1 / (1 + e^−z); y' = y(1 − y)."""

    name = "sigmoid"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return sigmoid_calls(z, y)

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.subtract, scalar(1, y), y, slope),
            partial(np.multiply, slope, y, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class Softmax(Activation):
    """y = e^z / Σ e^z along the last axis; ∂loss/∂z = y·(dy − Σ dy·y)."""

    name = "softmax"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        each = work.take((*z.shape[:-1], 1))
        return [
            partial(np.maximum.reduce, z, -1, out=each, keepdims=True),
            partial(np.subtract, z, each, y),
            partial(np.exp, y, y),
            partial(np.add.reduce, y, -1, out=each, keepdims=True),
            partial(np.divide, y, each, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        scratch, each = work.like(dy), work.take((*dy.shape[:-1], 1))
        return [
            partial(np.multiply, dy, y, scratch),
            partial(np.add.reduce, scratch, -1, out=each, keepdims=True),
            partial(np.subtract, dy, each, dy),
            partial(np.multiply, dy, y, dy),
        ]


class Softplus(Activation):
    """y = log(1 + e^z) = max(z, 0) + log(1 + e^−|z|); y' = sigmoid z = e^(z − y)."""

    name = "softplus"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        rest = work.like(z)
        return [
            partial(np.copysign, z, scalar(-1, z), rest),
            partial(np.exp, rest, rest),
            partial(np.log1p, rest, rest),
            partial(np.maximum, z, scalar(0, z), out=y),
            partial(np.add, y, rest, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.subtract, z, y, slope),
            partial(np.exp, slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


def normal_cdf_calls(z: Array, out: Array) -> list[Call]:
    """Φ(z) = (1 + erf(z/√2)) / 2."""
    return [
        partial(np.multiply, z, scalar(math.sqrt(0.5), z), out),
        partial(erf, out, out),
        partial(np.add, out, scalar(1, z), out),
        partial(np.multiply, out, scalar(0.5, z), out),
    ]


class GELU(Activation):
    """y = z·Φ(z), Φ(z) = (1 + erf(z/√2)) / 2; y' = Φ(z) + z·φ(z). Keras's default, not the tanh approximation."""

    name = "gelu"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        part = work.like(z)
        return [
            *normal_cdf_calls(z, part),
            partial(np.multiply, part, z, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope, part = work.like(dy), work.like(dy)
        return [
            partial(np.multiply, z, z, slope),
            partial(np.multiply, slope, scalar(-0.5, z), slope),
            partial(np.exp, slope, slope),
            partial(np.multiply, slope, scalar(1 / math.sqrt(2 * math.pi), z), slope),
            partial(np.multiply, slope, z, slope),
            *normal_cdf_calls(z, part),
            partial(np.add, slope, part, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class SiLU(Activation):
    """y = z·s, s = sigmoid z; y' = s + y(1 − s)."""

    name = "silu"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [*sigmoid_calls(z, y), partial(np.multiply, y, z, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        s, slope = work.like(dy), work.like(dy)
        return [
            *sigmoid_calls(z, s),
            partial(np.subtract, scalar(1, y), s, slope),
            partial(np.multiply, slope, y, slope),
            partial(np.add, slope, s, slope),
            partial(np.multiply, dy, slope, dy),
        ]


linear = Activation()
relu, leaky_relu, elu, tanh, sigmoid = ReLU(), LeakyReLU(), ELU(), Tanh(), Sigmoid()
softmax, softplus, gelu, silu = Softmax(), Softplus(), GELU(), SiLU()
swish = silu

SPELLINGS: dict[str, Activation] = {
    a.name: a for a in (linear, relu, leaky_relu, elu, tanh, sigmoid, softmax, softplus, gelu, silu)
} | {"swish": silu}
TABLE = {fold(name): activation for name, activation in SPELLINGS.items()}


def get(given: ActivationLike) -> Activation:
    """The activation for a name, None (linear) or an activation.

    Raises:
        InvalidInput: the name is unknown (the message has the nearest known one), or a function of the user's own.
    """
    if given is None:
        return linear
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        return look_up("activation", given, TABLE, SPELLINGS)
    raise InvalidInput(
        f"an activation is a name or one of asyncfit.activations, not {given!r}; for a function of your own derive "
        "from asyncfit.activations.Activation and write its forward and backward"
    )
