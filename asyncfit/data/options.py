"""The numbers and small mappings that `fit`, `evaluate` and `predict` take beside the data: types and ranges.

Each check returns the value in the one type that the rest of the code uses. Nothing here looks at data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from asyncfit.errors import InvalidInput

__all__ = ["class_weights", "flag", "fraction", "validation_frequency", "whole"]


def whole(name: str, value: object, least: int = 1, why: str = "") -> int:
    """`value` as an int of at least `least`; NumPy's integers pass, bools and floats do not."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if value >= least:
            return int(value)
        problem = "is too small" if value > 0 or least <= 0 else "is not positive"
    else:
        problem = f"is a {type(value).__name__}, not a whole number"
        if isinstance(value, float | np.floating) and float(value).is_integer() and value >= least:
            problem += f"; write {name}={int(value)}"
    reason = f" ({why})" if why else ""
    raise InvalidInput(f"{name}={_short(value)} {problem}; give a whole number from {least} up{reason}")


def flag(name: str, value: object, hint: str = "") -> bool:
    """`value` as a bool; what merely counts as true does not pass."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise InvalidInput(f"{name}={_short(value)} is neither True nor False{hint and f'; {hint}'}")


def fraction(name: str, value: object) -> float:
    """`value` as a float in [0, 1)."""
    if isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool):
        if 0 <= value < 1:
            return float(value)
        hint = ""
        if 1 < value <= 100:
            hint = f"; for {float(value):g} % write {name}={float(value) / 100:g}"
        raise InvalidInput(f"{name}={_short(value)} is outside [0, 1): it is the share of the rows{hint}")
    raise InvalidInput(
        f"{name}={_short(value)} is a {type(value).__name__}; give the share of the rows as a number from 0 to "
        "below 1, such as 0.2"
    )


def validation_frequency(value: object) -> int | frozenset[int]:
    """Every n-th epoch, or the epochs (counted from 1, as Keras counts here) after which to validate."""
    name = "validation_freq"
    if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping):
        return frozenset(whole(f"{name}: epoch", e, 1, "epochs count from 1 here") for e in value)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return validation_frequency(value.tolist())
    return whole(name, value, 1, "or a list of epochs, counted from 1, after which to validate")


def class_weights(value: object) -> dict[int, float]:
    """`class_weight` as a dict of class number → weight."""
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"class_weight is a {type(value).__name__} ({_short(value)}); give a dict of class number to weight, "
            "such as {0: 1.0, 1: 5.0}"
        )
    checked: dict[int, float] = {}
    for key, weight in value.items():
        if not isinstance(key, int | np.integer | np.bool_):
            raise InvalidInput(
                f"class_weight has the key {_short(key)}, a {type(key).__name__}; its keys are class numbers as "
                "they stand in y, such as {0: 1.0, 1: 5.0}"
            )
        if not isinstance(weight, int | float | np.floating | np.integer) or isinstance(weight, bool):
            raise InvalidInput(f"class_weight[{key}]={_short(weight)} is a {type(weight).__name__}; give a number")
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidInput(f"class_weight[{key}]={_short(weight)}: give a finite weight of at least 0")
        checked[int(key)] = float(weight)
    return checked


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
