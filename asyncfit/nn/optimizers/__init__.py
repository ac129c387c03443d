"""The optimizers, one file each. A new one is a file, a line here and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from asyncfit.errors import InvalidInput
from asyncfit.nn.naming import fold, look_up

from .adadelta import Adadelta as Adadelta
from .adagrad import Adagrad as Adagrad
from .adam import Adam as Adam
from .adam import AdamW as AdamW
from .adamax import Adamax as Adamax
from .base import Optimizer as Optimizer
from .ftrl import Ftrl as Ftrl
from .gradients import Stretch as Stretch
from .lion import Lion as Lion
from .nadam import Nadam as Nadam
from .rmsprop import RMSprop as RMSprop
from .sgd import SGD as SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lion",
    "Nadam",
    "Optimizer",
    "OptimizerLike",
    "RMSprop",
    "Stretch",
    "config",
    "get",
]

OptimizerLike: TypeAlias = str | Optimizer | type[Optimizer] | Mapping[str, Any]

ALL = (SGD, RMSprop, Adam, AdamW, Adamax, Nadam, Adagrad, Adadelta, Ftrl, Lion)
KINDS: dict[str, type[Optimizer]] = {cls.__name__: cls for cls in ALL}
TABLE = {fold(name): cls for name, cls in KINDS.items()}


def get(given: OptimizerLike) -> Optimizer:
    """The optimizer for a name, an optimizer, its class or a config.

    Raises:
        InvalidInput: the name is unknown (the message has the nearest known one), or it is no optimizer of ours.
    """
    if isinstance(given, Optimizer):
        return given
    if isinstance(given, str):
        return look_up("optimizer", given, TABLE, [name.lower() for name in KINDS])()
    if isinstance(given, type) and issubclass(given, Optimizer):
        return given()
    if isinstance(given, Mapping):
        cls = look_up("optimizer", str(given.get("class_name")), TABLE, KINDS)
        return cls.from_config(given.get("config") or {})
    raise InvalidInput(f"an optimizer is a name or an object from asyncfit.optimizers, not {given!r}")


def config(optimizer: Optimizer) -> dict[str, Any]:
    """`{"class_name", "config"}`, as Keras writes it."""
    return {"class_name": type(optimizer).__name__, "config": optimizer.get_config()}
