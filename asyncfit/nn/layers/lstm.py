"""LSTM: a state that is carried along, and three gates that decide what goes into it, stays in it and comes out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.nn import activations
from asyncfit.nn.activations import ActivationLike, sigmoid, tanh
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import Initializer, InitializerLike
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .over_time import OverTime, Run
from .recurrent import Recurrent

__all__ = ["LSTM"]


class Steps(OverTime):
    """Gates in the order i, f, o, g, so that those with the same activation lie together; `dz` is in Keras's order."""

    joined = True

    def __init__(self, layer: Recurrent, at: Place) -> None:
        super().__init__(layer, at)
        inner, gate = layer.activation, layer.recurrent_activation
        fast = inner.in_place() and gate.in_place()
        self.y = self.z if fast else self.take_steps(4 * self.units)
        self.c, self.out = self.take_steps(self.units, 1), self.take_steps(self.units)
        at.enter.append(partial(self.c[0].fill, 0))
        self.kept.append(self.c)
        self.i, self.f, self.o, self.g = (self.y[:, k * self.units : (k + 1) * self.units] for k in range(4))
        if self.learns:
            self.dc = self.take(self.units)
            self.flows.append(self.dc)
            self.by_c = self.take_steps(self.units)

    def runs(self) -> Sequence[Run]:
        gate = 0.5 if self.layer.recurrent_activation is sigmoid else 1.0
        inner = 0.5 if self.layer.activation is sigmoid else 1.0
        return [(0, 2, 0, gate), (3, 4, 2, gate), (2, 3, 3, inner)]

    def forth(self, t: int) -> list[Call]:
        z, y, three, part = self.z[t], self.y[t], slice(3 * self.units), self.part[: self.units]
        i, f, o, g, c, now = self.i[t], self.f[t], self.o[t], self.g[t], self.c[t], self.c[t + 1]
        inner, gate = self.layer.activation, self.layer.recurrent_activation
        calls: list[Call] = [partial(np.dot, self.w, self.h[t], z)]
        if gate is sigmoid and inner is tanh:  # both begin with tanh
            both = self.apply(sigmoid, z[three], y[three])
            calls += [partial(np.tanh, z, y), *both[1:]]
        else:
            calls += [*self.apply(gate, z[three], y[three]), *self.apply(inner, z[3 * self.units :], g)]
        return [
            *calls,
            partial(np.multiply, f, c, now),
            partial(np.multiply, i, g, part),
            partial(np.add, now, part, now),
            *self.apply(inner, now, self.out[t], halved=False),
            partial(np.multiply, o, self.out[t], self.state[t + 1]),
        ]

    def slopes(self, part: slice) -> list[Call]:
        z, y, dz, units = self.z[part], self.y[part], self.dz[part], self.units
        inner, gate = self.layer.activation, self.layer.recurrent_activation
        i, o, g, out, by_c = (a[part] for a in (self.i, self.o, self.g, self.out, self.by_c))
        di, df, dg, do = (dz[:, k * units : (k + 1) * units] for k in range(4))
        two, third, last = slice(2 * units), slice(2 * units, 3 * units), slice(3 * units, None)
        before, behind = self.c[part], self.c[part.start + 1 : part.stop + 1]
        return [
            *self.slope(gate, z[:, two], y[:, two], dz[:, two]),
            *self.slope(gate, z[:, third], o, do),
            *self.slope(inner, z[:, last], g, dg),
            *self.slope(inner, behind, out, by_c),
            partial(np.multiply, di, g, di),
            partial(np.multiply, df, before, df),
            partial(np.multiply, dg, i, dg),
            partial(np.multiply, do, out, do),
            partial(np.multiply, by_c, o, by_c),
        ]

    def back(self, t: int) -> list[Call]:
        dz, dh, dc, units, part = self.dz[t], self.dh, self.dc, self.units, self.part[: self.units]
        three, do = dz[: 3 * units].reshape(3, units, self.rows), dz[3 * units :]
        return [
            partial(np.multiply, dh, self.by_c[t], part),
            partial(np.add, dc, part, dc),
            partial(np.multiply, three, dc, three),
            partial(np.multiply, do, dh, do),
            partial(np.multiply, dc, self.f[t], dc),
            *self.pull(self.weights["recurrent_kernel"], dz, dh),
        ]


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    With z = x · kernel + h · recurrent_kernel + bias for each gate: i, f, o = recurrent_activation(z),
    g = activation(z); c' = f·c + i·g; h' = o·activation(c'). Gates lie in the order i, f, g, o as in Keras.

    Weights: kernel `(features, 4·units)`, recurrent_kernel `(units, 4·units)`, bias `(4·units,)`; with
    `unit_forget_bias` that of the forget gate begins with ones.

    Dropout of inputs and states draws one mask for each sample, the same at all steps and for all gates (Gal &
    Ghahramani 2016).
    """

    gates, cell, arithmetic = 4, "lstm_cell", Steps

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        *,
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
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint,
            dropout=dropout, recurrent_dropout=recurrent_dropout, seed=seed, return_sequences=return_sequences,
            return_state=return_state, go_backwards=go_backwards, stateful=stateful, unroll=unroll,
            zero_output_for_mask=zero_output_for_mask, name=name, input_shape=input_shape, trainable=trainable,
        )  # fmt: skip
        self.recurrent_activation = self.elementwise("recurrent_activation", recurrent_activation)
        self.unit_forget_bias = bool(unit_forget_bias)

    def bias_start(self) -> Initializer:
        return ForgetNothing(self.bias_initializer, self.units) if self.unit_forget_bias else self.bias_initializer

    def get_config(self) -> dict[str, Any]:
        own = {
            "recurrent_activation": activations.config(self.recurrent_activation),
            "unit_forget_bias": self.unit_forget_bias,
        }
        return super().get_config() | own


class ForgetNothing(Initializer):
    """The bias of all gates, with that of the forget gate 1, so that the state lives on at first (Jozefowicz 2015)."""

    def __init__(self, others: Initializer, units: int) -> None:
        self.others, self.units = others, units

    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        found = self.others.fill(shape, rng)
        found[self.units : 2 * self.units] = 1
        return found
