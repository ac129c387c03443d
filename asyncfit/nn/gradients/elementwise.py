"""Rules of functions that take each number alone: NumPy's ufuncs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .tape import CONSTANT, UFUNCS

__all__: list[str] = []

LN2, LN10 = float(np.log(2)), float(np.log(10))


def one(slope: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """The rule of a function of one array, of its derivative: `slope(out, a)`."""
    return lambda out, a: (lambda g: g * slope(out, a),)


def power(out: Any, a: Any, b: Any) -> Any:
    def by_base(g: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return g * np.where(np.equal(b, 0), 0, b * np.power(a, np.where(np.equal(b, 0), 1, np.subtract(b, 1))))

    def by_exponent(g: Any) -> Any:
        return g * out * np.log(np.where(np.greater(a, 0), a, 1))

    return by_base, by_exponent


def extreme(out: Any, a: Any, b: Any) -> Any:
    """Where both are equal each gets half."""
    return lambda g: g * share(out, a, b), lambda g: g * share(out, b, a)


def share(out: Any, mine: Any, other: Any) -> Any:
    return np.where(np.equal(mine, other), 0.5, np.equal(mine, out)).astype(np.asarray(out).dtype)


UFUNCS.update(
    {
        np.add: lambda out, a, b: (lambda g: g, lambda g: g),
        np.subtract: lambda out, a, b: (lambda g: g, lambda g: -g),
        np.multiply: lambda out, a, b: (lambda g: g * b, lambda g: g * a),
        np.divide: lambda out, a, b: (lambda g: g / b, lambda g: -g * out / b),
        np.remainder: lambda out, a, b: (lambda g: g, lambda g: -g * np.floor_divide(a, b)),
        np.fmod: lambda out, a, b: (lambda g: g, lambda g: -g * np.trunc(a / b)),
        np.power: power,
        np.float_power: power,
        np.maximum: extreme,
        np.minimum: extreme,
        np.fmax: extreme,
        np.fmin: extreme,
        np.hypot: lambda out, a, b: (lambda g: g * a / out, lambda g: g * b / out),
        np.arctan2: lambda out, a, b: (lambda g: g * b / (a * a + b * b), lambda g: -g * a / (a * a + b * b)),
        np.logaddexp: lambda out, a, b: (lambda g: g * np.exp(a - out), lambda g: g * np.exp(b - out)),
        np.logaddexp2: lambda out, a, b: (lambda g: g * np.exp2(a - out), lambda g: g * np.exp2(b - out)),
        np.copysign: lambda out, a, b: (lambda g: g * np.sign(a) * np.sign(out), None),
        np.negative: one(lambda out, a: -1),
        np.positive: one(lambda out, a: 1),
        np.absolute: one(lambda out, a: np.sign(a)),
        np.fabs: one(lambda out, a: np.sign(a)),
        np.square: one(lambda out, a: 2 * a),
        np.sqrt: one(lambda out, a: 0.5 / out),
        np.cbrt: one(lambda out, a: 1 / (3 * out * out)),
        np.reciprocal: one(lambda out, a: -out * out),
        np.exp: one(lambda out, a: out),
        np.exp2: one(lambda out, a: out * LN2),
        np.expm1: one(lambda out, a: out + 1),
        np.log: one(lambda out, a: 1 / a),
        np.log2: one(lambda out, a: 1 / (a * LN2)),
        np.log10: one(lambda out, a: 1 / (a * LN10)),
        np.log1p: one(lambda out, a: 1 / (1 + a)),
        np.sin: one(lambda out, a: np.cos(a)),
        np.cos: one(lambda out, a: -np.sin(a)),
        np.tan: one(lambda out, a: 1 + out * out),
        np.sinh: one(lambda out, a: np.cosh(a)),
        np.cosh: one(lambda out, a: np.sinh(a)),
        np.tanh: one(lambda out, a: 1 - out * out),
        np.arcsin: one(lambda out, a: 1 / np.sqrt(1 - a * a)),
        np.arccos: one(lambda out, a: -1 / np.sqrt(1 - a * a)),
        np.arctan: one(lambda out, a: 1 / (1 + a * a)),
        np.arcsinh: one(lambda out, a: 1 / np.sqrt(a * a + 1)),
        np.arccosh: one(lambda out, a: 1 / np.sqrt(a * a - 1)),
        np.arctanh: one(lambda out, a: 1 / (1 - a * a)),
        np.deg2rad: one(lambda out, a: np.pi / 180),
        np.rad2deg: one(lambda out, a: 180 / np.pi),
    }
)
CONSTANT.update(
    {
        np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.logical_and, np.logical_or,
        np.logical_xor, np.logical_not, np.isnan, np.isinf, np.isfinite, np.signbit, np.sign, np.floor, np.ceil,
        np.rint, np.trunc, np.floor_divide, np.heaviside,
    }
)  # fmt: skip
