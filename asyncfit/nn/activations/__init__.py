"""Activations: the value and its gradient side by side, as calls on arrays that are bound once.

Each is an object that works as a function (`relu(x)`), has Keras's name, and can bind itself into a plan: `forward`
writes y from z, `backward` turns the gradient by y into the one by z, in place. Formulas and defaults are Keras 3's.
No formula overflows: exponents are never positive (but for e^z itself, and where they are cut).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.custom import anything
from asyncfit.nn.naming import fold, look_up, plain_config

from .base import Activation as Activation
from .base import linear as linear
from .base import scalar as scalar
from .gated import GELU as GELU
from .gated import GLU as GLU
from .gated import Mish as Mish
from .gated import SiLU as SiLU
from .own import ActivationFunction as ActivationFunction
from .pieces import HardShrink as HardShrink
from .pieces import HardSigmoid as HardSigmoid
from .pieces import HardSiLU as HardSiLU
from .pieces import HardTanh as HardTanh
from .pieces import SoftShrink as SoftShrink
from .pieces import SparsePlus as SparsePlus
from .pieces import SparseSigmoid as SparseSigmoid
from .pieces import Threshold as Threshold
from .rectified import CELU as CELU
from .rectified import ELU as ELU
from .rectified import SELU as SELU
from .rectified import LeakyReLU as LeakyReLU
from .rectified import ReLU as ReLU
from .rectified import ReLU6 as ReLU6
from .shares import LogSoftmax as LogSoftmax
from .shares import Softmax as Softmax
from .shares import Sparsemax as Sparsemax
from .smooth import Exponential as Exponential
from .smooth import LogSigmoid as LogSigmoid
from .smooth import Sigmoid as Sigmoid
from .smooth import Softplus as Softplus
from .smooth import Softsign as Softsign
from .smooth import Squareplus as Squareplus
from .smooth import Tanh as Tanh
from .smooth import TanhShrink as TanhShrink

__all__ = ["Activation", "ActivationFunction", "ActivationLike", "config", "get", "linear"]

ActivationLike: TypeAlias = str | Activation | Callable[[Array], Array] | Mapping[str, Any] | None

relu, relu6, leaky_relu, elu, selu, celu = ReLU(), ReLU6(), LeakyReLU(), ELU(), SELU(), CELU()
tanh, sigmoid, softplus, exponential, softsign = Tanh(), Sigmoid(), Softplus(), Exponential(), Softsign()
log_sigmoid, tanh_shrink, squareplus = LogSigmoid(), TanhShrink(), Squareplus()
silu, gelu, mish, glu = SiLU(), GELU(), Mish(), GLU()
softmax, log_softmax, sparsemax = Softmax(), LogSoftmax(), Sparsemax()
hard_sigmoid, hard_silu, hard_tanh, sparse_sigmoid = HardSigmoid(), HardSiLU(), HardTanh(), SparseSigmoid()
sparse_plus, soft_shrink, hard_shrink, threshold = SparsePlus(), SoftShrink(), HardShrink(), Threshold()
swish, hard_swish = silu, hard_silu

SPELLINGS: dict[str, Activation] = {
    a.name: a
    for a in (
        linear, relu, relu6, leaky_relu, elu, selu, celu, tanh, sigmoid, softplus, exponential, softsign, log_sigmoid,
        tanh_shrink, squareplus, silu, gelu, mish, glu, softmax, log_softmax, sparsemax, hard_sigmoid, hard_silu,
        hard_tanh, sparse_sigmoid, sparse_plus, soft_shrink, hard_shrink, threshold,
    )
} | {"swish": silu, "hard_swish": hard_silu}  # fmt: skip
TABLE = {fold(name): activation for name, activation in SPELLINGS.items()}
AS_LAYERS = {"leaky_relu": "LeakyReLU", "relu": "ReLU", "elu": "ELU", "softmax": "Softmax"}
"""What Keras has layers for, which may stand where an activation is asked for: only they take options there."""


def get(given: ActivationLike, *, may_halve: bool = False) -> Activation:
    """The activation for a name, None (linear), a config, an activation or a layer that is nothing but one.

    Raises:
        InvalidInput: the name is unknown (the message has the nearest known one), it needs options, or halves its
            input and not `may_halve`.
    """
    found = _get(given)
    if found.halves and not may_halve:
        raise InvalidInput(f"{found.name} halves what it gets, so it is a layer of its own: Activation({found.name!r})")
    if isinstance(found, Threshold):
        found.require_options()
    return found


def _get(given: ActivationLike) -> Activation:
    if given is None:
        return linear
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        own = anything(given)
        if own is None:
            return look_up("activation", given, TABLE, SPELLINGS)
        return _get(own() if isinstance(own, type) else own)
    if isinstance(given, Mapping):
        if (own := anything(str(given.get("class_name")))) is not None:
            return _get((own if isinstance(own, type) else type(own))(**(given.get("config") or {})))
        usual = look_up("activation", str(given.get("class_name")), TABLE, SPELLINGS)
        settings = dict(given.get("config") or {})
        if isinstance(usual, LeakyReLU) and "alpha" in settings:
            settings["negative_slope"] = settings.pop("alpha")
        options = plain_config(type(usual), settings, ignored=("name", "trainable", "dtype"))
        return usual.with_options(**options) if options else usual
    within = getattr(given, "activation", None)
    if isinstance(within, Activation) and given.passes(True):  # type: ignore[attr-defined]
        return within
    function: Any = given
    if callable(function) and not isinstance(function, type) and not hasattr(function, "output_shape_for"):
        return ActivationFunction(function)
    raise InvalidInput(f"an activation is a name, one of asyncfit.activations or a function of an array, not {given!r}")


def config(activation: Activation) -> str | dict[str, Any]:
    """What stands in a layer's config: the name or, with other than the usual options, `{"class_name", "config"}`.

    Keras reads the second of ReLU, LeakyReLU, ELU and Softmax; others have no options in Keras's files.
    """
    options = activation.get_config()
    if not options:
        return activation.name
    name = type(activation).name
    if name not in AS_LAYERS:
        return {"class_name": name, "config": options}
    return {"module": "keras.layers", "class_name": AS_LAYERS[name], "config": options, "registered_name": None}
