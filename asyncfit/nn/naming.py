"""Names and keywords of layers, losses, metrics, optimizers and initializers, as Keras and TF.js spell them.

`"mse"`, `"MSE"`, `"mean_squared_error"` and `"MeanSquaredError"` are one name: what counts are the letters and
digits (`fold`). An unknown name or keyword is answered with the nearest known one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Self, TypeVar, get_args, get_type_hints

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import nearest, unknown

__all__ = [
    "CheckedKeywords",
    "fold",
    "keywords_of",
    "look_up",
    "number",
    "plain_config",
    "positive",
    "whole",
]

T = TypeVar("T")


def fold(name: str) -> str:
    """`"binaryCrossentropy"`, `"binary_crossentropy"` and `"BinaryCrossentropy"` → `"binarycrossentropy"`."""
    return name.replace("_", "").replace("-", "").lower()


def look_up(what: str, name: str, table: Mapping[str, T], spellings: Iterable[str]) -> T:
    """What `table` holds for `name`; its keys are folded, `spellings` are the names to show when it is unknown."""
    try:
        return table[fold(name)]
    except KeyError:
        raise InvalidInput(unknown(what, name, spellings)) from None


@cache
def keywords_of(cls: type) -> tuple[tuple[str, ...], bool]:
    """The keywords that making a `cls` takes, and whether it takes any other as well.

    Keywords that a `TypedDict` names (`**options: Unpack[Options]`) are known ones.
    """
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    named = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    rest = [p for p in parameters if p.kind is p.VAR_KEYWORD]
    if not rest:
        return named, False
    if "Unpack" not in str(rest[0].annotation):
        return named, True
    unpacked = get_args(get_type_hints(cls.__init__)[rest[0].name])  # type: ignore[misc]
    return (*named, *(key for options in unpacked for key in get_type_hints(options))), False


class CheckedKeywords:
    """Refuses unknown keywords with the nearest known one: `Dense(3, kernelInitializer=…)` is told the right name."""

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        if keywords:
            known, any_other = keywords_of(cls)  # type: ignore[arg-type]
            for keyword in keywords:
                if keyword not in known and not any_other:
                    guess = nearest(keyword, known)
                    hint = f"did you mean {guess!r}? " if guess else ""
                    raise TypeError(f"{cls.__name__}() has no keyword {keyword!r}; {hint}it takes: {', '.join(known)}")
        return super().__new__(cls)


def number(where: str, value: object, *, least: float = -math.inf, below: float = math.inf) -> float:
    """`value` as a finite float with `least <= value < below`; `where` names it: `"SGD(momentum=…)"`."""
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if found != found and not isinstance(value, float | np.floating):
        raise InvalidInput(f"{where} must be a number, not {value!r}")
    if not math.isfinite(found) or found < least or found >= below:
        limits = [f"at least {least:g}"] * (least > -math.inf) + [f"below {below:g}"] * (below < math.inf)
        raise InvalidInput(f"{where} must be finite{''.join(f' and {limit}' for limit in limits)}, not {value!r}")
    return found


def positive(where: str, value: object) -> float:
    """`value` as a finite float above 0; `where` names it."""
    found = number(where, value, least=0.0)
    if not found:
        raise InvalidInput(f"{where} must be above 0, not {value!r}")
    return found


def whole(where: str, value: object, *, least: int) -> int:
    """`value` as an int of at least `least`; `where` names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidInput(f"{where} must be a whole number from {least}, not {value!r}")
    return int(value)


def plain_config(
    cls: type, config: Mapping[str, Any], *, ignored: Iterable[str] = (), off: Mapping[str, object] = {}
) -> dict[str, Any]:
    """The entries of a Keras `config` that `cls` takes as keywords.

    `ignored` entries say nothing about the arithmetic (`dtype`, `jit_compile` …). `off` entries are options that we
    do not have: they may stand there with the value that switches them off, or as None; anything else is refused,
    because a model that silently computes something else is worse than none.
    """
    known, any_other = keywords_of(cls)
    found = {}
    for key, value in config.items():
        if key in known:
            found[key] = value
        elif key in ignored:
            continue
        elif key in off:
            if value is not None and value != off[key]:
                raise InvalidInput(f"{cls.__name__}: the option {key}={value!r} is not supported; remove it")
        elif any_other:
            found[key] = value
        else:
            raise InvalidInput(f"{cls.__name__}: {unknown('option', key, known)}")
    return found
