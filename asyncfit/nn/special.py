"""Special functions that NumPy lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from .arrays import Array, Call
from .blocks import cut

__all__ = ["erf_calls"]

ERF_ABOVE = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
             -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
ERF_BELOW = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
             -1.42647390514189e-02)  # fmt: skip


def erf_calls(x: Array, square: Array, above: Array, below: Array) -> list[Call]:
    """Calls that turn `x` into its error function, by way of three arrays like it.

    float32: the rational approximation x·P(x²)/Q(x²) on |x| ≤ 4 that Eigen uses (1e-7); float64 (gradient checks): the
    C library's, element by element.
    """
    if x.dtype != np.float32:
        exact = np.frompyfunc(math.erf, 1, 1)
        return [lambda: np.copyto(x, exact(x), casting="unsafe")]
    return [
        *cut(x, -4, 4, x),
        partial(np.multiply, x, x, square),
        *polynomial_calls(square, ERF_ABOVE, above),
        *polynomial_calls(square, ERF_BELOW, below),
        partial(np.multiply, above, x, above),
        partial(np.divide, above, below, x),
    ]


def polynomial_calls(x: Array, factors: Sequence[float], out: Array) -> list[Call]:
    """Horner's scheme; the factor of the highest power comes first."""
    first, *others = (np.array(factor, x.dtype) for factor in factors)
    calls: list[Call] = [partial(np.multiply, x, first, out)]
    for number, factor in enumerate(others):
        calls += [partial(np.multiply, out, x, out)] if number else []
        calls.append(partial(np.add, out, factor, out))
    return calls
