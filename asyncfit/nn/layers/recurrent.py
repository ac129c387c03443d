"""What LSTM, GRU and SimpleRNN have in common: settings, weights, files. Their arithmetic runs in `over_time.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations, constraints, initializers, regularizers
from asyncfit.nn.activations import Activation, ActivationLike, linear
from asyncfit.nn.arrays import Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import Initializer, InitializerLike
from asyncfit.nn.naming import number, whole
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer, Weight
from .over_time import OverTime

__all__ = ["Recurrent"]


class Recurrent(Layer):
    """Goes over a sequence, `(steps, features)` → `(units,)` or, with `return_sequences`, `(steps, units)`.

    The arithmetic of a kind is its `arithmetic`; weights lie as Keras's: kernel `(features, gates·units)`, recurrent
    kernel `(units, gates·units)`, bias. Arrays over time lie time first, samples last: whatever one step reads or
    writes is then one block of memory, and a gate's values are as well.

    Steps that the input's mask leaves out change nothing: state and output stay those of the step before.
    """

    ends_mask = True
    gates: ClassVar[int]
    cell: ClassVar[str]
    arithmetic: type[OverTime]
    ignored_options = (*Layer.ignored_options, "implementation", "time_major", "use_cudnn")
    recurrent_activation: Activation = linear

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        kind = type(self).__name__
        if return_state:
            raise InvalidInput(
                f"{kind}(return_state=True) gives several outputs, which a model of layers in a row cannot pass on; "
                "leave it out"
            )
        if stateful:
            raise InvalidInput(
                f"{kind}(stateful=True) is not supported: each batch begins with a state of zeros; leave it out"
            )
        self.units = whole(f"{kind}(units=…)", units, least=1)
        self.activation = self.elementwise("activation", activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = rate(f"{kind}(dropout=…)", dropout)
        self.recurrent_dropout = rate(f"{kind}(recurrent_dropout=…)", recurrent_dropout)
        self.seed = None if seed is None else whole(f"{kind}(seed=…)", seed, least=0)
        self.return_sequences, self.go_backwards = bool(return_sequences), bool(go_backwards)
        self.supports_masking = self.return_sequences
        self.unroll, self.zero_output_for_mask = bool(unroll), bool(zero_output_for_mask)

    def elementwise(self, what: str, given: ActivationLike) -> Activation:
        found = activations.get(given)
        if not found.elementwise:
            raise InvalidInput(
                f"{type(self).__name__}({what}={found.name!r}): inside a recurrent layer an activation takes each "
                f"number alone, which {found.name} does not; put Activation({found.name!r}) behind the layer"
            )
        return found

    @property
    def followed_by(self) -> Activation:
        return linear

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        width = self.gates * self.units
        shapes = {"kernel": (input_shape[-1], width), "recurrent_kernel": (self.units, width)}
        specs = [self.weight(f"{self.cell}/{n}", s, n.replace("_kernel", "")) for n, s in shapes.items()]
        if self.use_bias:
            bias = self.weight(f"{self.cell}/bias", self.bias_shape(), "bias")
            specs.append(replace(bias, initializer=self.bias_start()))
        return specs

    def bias_shape(self) -> Shape:
        return (self.gates * self.units,)

    def bias_start(self) -> Initializer:
        return self.bias_initializer

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise InvalidInput(
                f"{self.name!r} ({type(self).__name__}) takes sequences, (steps, features) a sample, but each sample "
                f"has the shape {input_shape}"
            )
        return (input_shape[0], self.units) if self.return_sequences else (self.units,)

    def is_random(self) -> bool:
        return self.dropout > 0.0 or self.recurrent_dropout > 0.0

    def plan(self, at: Place) -> None:
        if at.mask is not None and at.mask.shape != at.x.shape[:2]:
            raise InvalidInput(
                f"{self.name!r} ({type(self).__name__}) has {at.x.shape[1]} steps for each sample, but its mask has "
                f"the shape {at.mask.shape[1:]}"
            )
        self.arithmetic(self, at).plan()

    def get_config(self) -> dict[str, Any]:
        found = {
            "activity_regularizer": None,
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "return_state": False,
            "go_backwards": self.go_backwards,
            "stateful": False,
            "unroll": self.unroll,
            "units": self.units,
            "activation": activations.config(self.activation),
            "use_bias": self.use_bias,
            **self.weight_config("kernel", "recurrent", "bias"),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
        }
        if self.seed is not None:
            found["seed"] = self.seed
        if self.zero_output_for_mask:
            found["zero_output_for_mask"] = True
        return found


def rate(where: str, value: float) -> float:
    found = number(where, value, least=0.0)
    if found > 1.0:
        raise InvalidInput(f"{where} is the share to drop, from 0 to 1, not {value!r}")
    return found
