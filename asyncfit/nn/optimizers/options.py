"""The options that all optimizers share, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.naming import number, positive, whole

__all__ = ["Options", "OptionsBesideDecay", "Settings", "checked"]


class OptionsBesideDecay(TypedDict, total=False):
    """Keywords of every optimizer; `Optimizer` says what they do."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    gradient_accumulation_steps: int | None
    name: str | None


class Options(OptionsBesideDecay, total=False):
    """With `weight_decay`, which stands elsewhere in AdamW."""

    weight_decay: float | None


class Settings(TypedDict):
    """All of them, checked."""

    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    gradient_accumulation_steps: int | None


def checked(kind: str, given: Mapping[str, Any]) -> Settings:
    """All of them, with Keras's defaults.

    Raises:
        InvalidInput: a value that is none, or two ways of clipping at once.
    """
    clips = {name: given.get(name) for name in ("clipnorm", "clipvalue", "global_clipnorm")}
    if len(chosen := [f"{name}={value!r}" for name, value in clips.items() if value is not None]) > 1:
        raise InvalidInput(f"{kind} takes one way of clipping gradients, not {' and '.join(chosen)}")
    limits = {name: None if v is None else positive(f"{kind}({name}=…)", v) for name, v in clips.items()}
    decay, every = given.get("weight_decay"), given.get("ema_overwrite_frequency")
    steps = given.get("gradient_accumulation_steps")
    if not isinstance(averages := given.get("use_ema", False), bool | np.bool_):
        raise InvalidInput(f"{kind}(use_ema=…) is True or False, not {averages!r}")
    momentum = number(f"{kind}(ema_momentum=…)", given.get("ema_momentum", 0.99), least=0.0)
    if momentum > 1.0:
        raise InvalidInput(f"{kind}(ema_momentum=…) must be from 0 to 1, not {momentum!r}")
    return {
        "weight_decay": None if decay is None else number(f"{kind}(weight_decay=…)", decay, least=0.0),
        "clipnorm": limits["clipnorm"],
        "clipvalue": limits["clipvalue"],
        "global_clipnorm": limits["global_clipnorm"],
        "use_ema": bool(averages),
        "ema_momentum": momentum,
        "ema_overwrite_frequency": (
            None if every is None else whole(f"{kind}(ema_overwrite_frequency=…)", every, least=1)
        ),
        "gradient_accumulation_steps": (
            None if steps is None else whole(f"{kind}(gradient_accumulation_steps=…)", steps, least=2)
        ),
    }
