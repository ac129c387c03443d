"""The losses, by family. A new one is a class (and a function) in its family's file and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.custom import anything
from asyncfit.nn.naming import fold, look_up

from .base import MEAN
from .base import Loss as Loss
from .called import LossFunction as LossFunction
from .crossentropy import BinaryCrossentropy as BinaryCrossentropy
from .crossentropy import CategoricalCrossentropy as CategoricalCrossentropy
from .crossentropy import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from .crossentropy import binary_crossentropy as binary_crossentropy
from .crossentropy import categorical_crossentropy as categorical_crossentropy
from .crossentropy import sparse_categorical_crossentropy as sparse_categorical_crossentropy
from .focal import BinaryFocalCrossentropy as BinaryFocalCrossentropy
from .focal import CategoricalFocalCrossentropy as CategoricalFocalCrossentropy
from .focal import binary_focal_crossentropy as binary_focal_crossentropy
from .focal import categorical_focal_crossentropy as categorical_focal_crossentropy
from .hinge import CategoricalHinge as CategoricalHinge
from .hinge import Hinge as Hinge
from .hinge import SquaredHinge as SquaredHinge
from .hinge import categorical_hinge as categorical_hinge
from .hinge import hinge as hinge
from .hinge import squared_hinge as squared_hinge
from .probabilistic import KLDivergence as KLDivergence
from .probabilistic import Poisson as Poisson
from .probabilistic import kl_divergence as kl_divergence
from .probabilistic import poisson as poisson
from .regression import Huber as Huber
from .regression import LogCosh as LogCosh
from .regression import MeanAbsoluteError as MeanAbsoluteError
from .regression import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from .regression import MeanSquaredError as MeanSquaredError
from .regression import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from .regression import huber as huber
from .regression import log_cosh as log_cosh
from .regression import mean_absolute_error as mean_absolute_error
from .regression import mean_absolute_percentage_error as mean_absolute_percentage_error
from .regression import mean_squared_error as mean_squared_error
from .regression import mean_squared_logarithmic_error as mean_squared_logarithmic_error
from .similarity import CosineSimilarity as CosineSimilarity
from .similarity import Dice as Dice
from .similarity import Tversky as Tversky
from .similarity import cosine_similarity as cosine_similarity
from .similarity import dice as dice
from .similarity import tversky as tversky

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Dice",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunction",
    "LossLike",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "config",
    "cosine_similarity",
    "dice",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "tversky",
]

LossLike: TypeAlias = str | Loss | type[Loss] | Callable[..., Array] | Mapping[str, Any]

KINDS: dict[Callable[..., Array], type[Loss]] = {
    binary_crossentropy: BinaryCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
    binary_focal_crossentropy: BinaryFocalCrossentropy,
    categorical_focal_crossentropy: CategoricalFocalCrossentropy,
    categorical_hinge: CategoricalHinge,
    hinge: Hinge,
    squared_hinge: SquaredHinge,
    kl_divergence: KLDivergence,
    poisson: Poisson,
    huber: Huber,
    log_cosh: LogCosh,
    mean_absolute_error: MeanAbsoluteError,
    mean_absolute_percentage_error: MeanAbsolutePercentageError,
    mean_squared_error: MeanSquaredError,
    mean_squared_logarithmic_error: MeanSquaredLogarithmicError,
    cosine_similarity: CosineSimilarity,
    dice: Dice,
    tversky: Tversky,
}
SPELLINGS: dict[str, type[Loss]] = {cls.name: cls for cls in KINDS.values()} | {
    "bce": BinaryCrossentropy,
    "cosine": CosineSimilarity,
    "cosine_proximity": CosineSimilarity,
    "huber_loss": Huber,
    "kld": KLDivergence,
    "kullback_leibler_divergence": KLDivergence,
    "logcosh": LogCosh,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
TABLE = {fold(name): cls for name, cls in SPELLINGS.items()}


def get(given: LossLike) -> Loss:
    """The loss for a name, a loss, its class, its function or a config.

    Raises:
        InvalidInput: the name is unknown (the message has the nearest known one), or it is no loss of ours.
    """
    if isinstance(given, Loss):
        return given
    own = anything(_name_in(given))
    if own is not None:
        return _own(own, given)
    if isinstance(given, str):
        return look_up("loss", given, TABLE, SPELLINGS)()
    if isinstance(given, type) and issubclass(given, Loss):
        return given()
    if isinstance(given, Mapping):
        cls = look_up("loss", str(given.get("class_name")), TABLE, SPELLINGS)
        settings = given.get("config")
        return cls.from_config(settings) if isinstance(settings, Mapping) else cls()
    if isinstance(given, Hashable) and given in KINDS:
        return KINDS[given]()
    if callable(given):
        return LossFunction(given)
    raise InvalidInput(
        f"a loss is a name, an object from asyncfit.losses or a function f(y_true, y_pred), not {given!r}"
    )


def _name_in(given: LossLike) -> str:
    """What a name or a config calls a loss that may be a user's."""
    if not isinstance(given, Mapping):
        return given if isinstance(given, str) else ""
    inner = given.get("config")
    if given.get("class_name") == "function":  # as Keras 3 writes functions
        return str(inner)
    function = inner.get("fn") if isinstance(inner, Mapping) else None
    return str(given.get("class_name") if function is None else function)


def _own(own: Any, given: LossLike) -> Loss:
    """What a user calls so, in a file that was read with `custom_objects`."""
    settings = given.get("config") if isinstance(given, Mapping) else None
    if not isinstance(settings, Mapping):
        return get(own)
    if isinstance(own, type) and issubclass(own, Loss):
        return own.from_config(settings)
    return LossFunction(own, settings.get("reduction", MEAN), settings.get("name"))


def config(loss: Loss) -> str | dict[str, Any]:
    """What a training config holds: the name, or class and settings where those are not the defaults."""
    if isinstance(loss, LossFunction) and loss.reduction == MEAN:
        return str(loss.get_config()["fn"])
    settings = loss.get_config()
    if type(loss) in KINDS.values() and settings == type(loss)().get_config():
        return loss.name
    return {"class_name": type(loss).__name__, "config": settings}
