"""The losses, by family. A new one is a class (and a function) in its family's file and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.naming import fold, look_up

from .base import Loss as Loss
from .crossentropy import BinaryCrossentropy as BinaryCrossentropy
from .crossentropy import CategoricalCrossentropy as CategoricalCrossentropy
from .crossentropy import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from .crossentropy import binary_crossentropy as binary_crossentropy
from .crossentropy import categorical_crossentropy as categorical_crossentropy
from .crossentropy import sparse_categorical_crossentropy as sparse_categorical_crossentropy
from .regression import MeanAbsoluteError as MeanAbsoluteError
from .regression import MeanSquaredError as MeanSquaredError
from .regression import mean_absolute_error as mean_absolute_error
from .regression import mean_squared_error as mean_squared_error

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "LossLike",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "config",
    "get",
    "mean_absolute_error",
    "mean_squared_error",
    "sparse_categorical_crossentropy",
]

LossLike: TypeAlias = str | Loss | type[Loss] | Callable[..., Array] | Mapping[str, Any]

KINDS: dict[Callable[..., Array], type[Loss]] = {
    mean_squared_error: MeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
    binary_crossentropy: BinaryCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
}
SPELLINGS: dict[str, type[Loss]] = {cls.name: cls for cls in KINDS.values()} | {
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
}
TABLE = {fold(name): cls for name, cls in SPELLINGS.items()}


def get(given: LossLike) -> Loss:
    """The loss for a name, a loss, its class, its function or a config.

    Raises:
        InvalidInput: the name is unknown (the message has the nearest known one), or it is no loss of ours.
    """
    if isinstance(given, Loss):
        return given
    if isinstance(given, str):
        return look_up("loss", given, TABLE, SPELLINGS)()
    if isinstance(given, type) and issubclass(given, Loss):
        return given()
    if isinstance(given, Mapping):
        cls = look_up("loss", str(given.get("class_name")), TABLE, SPELLINGS)
        settings = given.get("config")
        return cls.from_config(settings) if isinstance(settings, Mapping) else cls()
    if callable(given) and given in KINDS:  # type: ignore[redundant-expr]
        return KINDS[given]()
    raise InvalidInput(
        f"a loss is a name or an object from asyncfit.losses, not {given!r}; for one of your own derive from "
        "asyncfit.losses.Loss and write its bind"
    )


def config(loss: Loss) -> str | dict[str, Any]:
    """What a training config holds: the name, or class and settings where those are not the defaults."""
    settings = loss.get_config()
    if type(loss) in KINDS.values() and settings == type(loss)().get_config():
        return loss.name
    return {"class_name": type(loss).__name__, "config": settings}
