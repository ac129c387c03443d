"""GRU: two gates decide how much of the state is used for the next one, and how much of it stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.nn import activations
from asyncfit.nn.activations import ActivationLike, sigmoid
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .over_time import OverTime, Run
from .recurrent import Recurrent

__all__ = ["GRU"]


class Steps(OverTime):
    """With `reset_after`: what is multiplied with the gate r is `rec`'s last third, U·h + b of the new state.

    `dz` holds there four parts, (new, z, r, r·new): the first three are the gradient by the input's side, the last
    three that by the state's side.
    """

    def __init__(self, layer: Recurrent, at: Place) -> None:
        super().__init__(layer, at)
        inner, gate, units = layer.activation, layer.recurrent_activation, self.units
        self.two = 2 * units
        fast = inner.in_place() and gate.in_place()
        self.y = self.z if fast else self.take_steps(3 * units)
        self.zg, self.r, self.new = (self.y[:, k * units : (k + 1) * units] for k in range(3))
        self.gap = self.take_steps(units)  # state − new
        if self.learns:
            self.stays, self.rest = self.take(units), self.take_steps(units)

    def runs(self) -> Sequence[Run]:
        gate = 0.5 if self.layer.recurrent_activation is sigmoid else 1.0
        return [(0, 2, 0, gate), (2, 3, 2, 0.5 if self.layer.activation is sigmoid else 1.0)]

    def mix(self, t: int) -> list[Call]:
        """h' = new + z·(h − new)."""
        now, gap = self.state[t + 1], self.gap[t]
        return [
            partial(np.subtract, self.state[t], self.new[t], gap),
            partial(np.multiply, self.zg[t], gap, now),
            partial(np.add, now, self.new[t], now),
        ]

    def mix_slopes(self, part: slice, dz: Array, dnew: Array) -> list[Call]:
        """∂h'/∂z into `dz`, ∂h'/∂new into `dnew`."""
        two, (zg, new, gap) = self.two, (a[part] for a in (self.zg, self.new, self.gap))
        gate, inner, z = self.layer.recurrent_activation, self.layer.activation, self.z[part]
        rest = self.rest[part]
        return [
            *self.slope(gate, z[:, : self.units], zg, dz),
            partial(np.multiply, dz, gap, dz),
            *self.slope(inner, z[:, two:], new, dnew),
            partial(np.subtract, np.array(1, rest.dtype), zg, rest),
            partial(np.multiply, dnew, rest, dnew),
        ]


class ResetAfter(Steps):
    def __init__(self, layer: Recurrent, at: Place) -> None:
        super().__init__(layer, at)
        self.rec = self.take_steps(3 * self.units)

    def width(self) -> int:
        return 4 * self.units

    def forth(self, t: int) -> list[Call]:
        z, y, rec, two, part = self.z[t], self.y[t], self.rec[t], self.two, self.part[: self.units]
        return [
            partial(np.dot, self.wh, self.h[t], rec),
            partial(np.add, z[:two], rec[:two], z[:two]),
            *self.apply(self.layer.recurrent_activation, z[:two], y[:two]),
            partial(np.multiply, self.r[t], rec[two:], part),
            partial(np.add, z[two:], part, z[two:]),
            *self.apply(self.layer.activation, z[two:], self.new[t]),
            *self.mix(t),
        ]

    def slopes(self, part: slice) -> list[Call]:
        units, dz = self.units, self.dz[part]
        dr = dz[:, 2 * units : 3 * units]
        scale = self.runs()[1][3]  # what is multiplied with r is scaled where the new state's sum is
        return [
            *self.mix_slopes(part, dz[:, units : 2 * units], dz[:, :units]),
            *self.slope(self.layer.recurrent_activation, self.z[part, units : self.two], self.r[part], dr),
            partial(np.multiply, dr, self.rec[part, self.two :], dr),
            *([] if scale == 1 else [partial(np.multiply, dr, np.array(1 / scale, dr.dtype), dr)]),
        ]

    def back(self, t: int) -> list[Call]:
        dz, dh, units = self.dz[t], self.dh, self.units
        both = dz[: 2 * units].reshape(2, units, self.rows)
        new, dr, last = dz[:units], dz[2 * units : 3 * units], dz[3 * units :]
        return [
            partial(np.multiply, both, dh, both),
            partial(np.multiply, dr, new, dr),
            partial(np.multiply, new, self.r[t], last),
            partial(np.multiply, dh, self.zg[t], self.stays),
            *self.pull(self.weights["recurrent_kernel"], dz[units:], dh),
            partial(np.add, dh, self.stays, dh),
        ]

    def learn(self) -> list[Call]:
        units, features, two, grads = self.units, self.features, self.two, self.grads
        (of_x, of_h), calls = self.products((slice(3 * units), self.x), (slice(units, None), self.h))
        kernel, recurrent = grads["kernel"], grads["recurrent_kernel"]
        calls += [
            partial(np.copyto, kernel[:, :two], of_x[units:, :features].T),
            partial(np.copyto, kernel[:, two:], of_x[:units, :features].T),
            partial(np.copyto, recurrent, of_h[:, :units].T),
        ]
        if "bias" in grads:
            bias = grads["bias"]
            calls += [
                partial(np.copyto, bias[0, :two], of_x[units:, features]),
                partial(np.copyto, bias[0, two:], of_x[:units, features]),
                partial(np.copyto, bias[1], of_h[:, units]),
            ]
        return calls

    def input_gradient(self) -> tuple[Array, Array, list[Call]]:
        kernel, two, units = self.weights["kernel"], self.two, self.units
        turned = self.at.take(kernel.shape)
        turn: list[Call] = [
            partial(np.copyto, turned[:, :units], kernel[:, two:]),
            partial(np.copyto, turned[:, units:], kernel[:, :two]),
        ]
        return turned, self.dz[:, : 3 * units], turn


class ResetBefore(Steps):
    def __init__(self, layer: Recurrent, at: Place) -> None:
        super().__init__(layer, at)
        self.used = self.take_steps(self.units)  # r·h
        if self.learns:
            self.dused = self.take(self.units)

    def forth(self, t: int) -> list[Call]:
        z, y, part, two = self.z[t], self.y[t], self.part, self.two
        return [
            partial(np.dot, self.wh[:two], self.h[t], part[:two]),
            partial(np.add, z[:two], part[:two], z[:two]),
            *self.apply(self.layer.recurrent_activation, z[:two], y[:two]),
            partial(np.multiply, self.r[t], self.h[t], self.used[t]),
            partial(np.dot, self.wh[two:], self.used[t], part[two:]),
            partial(np.add, z[two:], part[two:], z[two:]),
            *self.apply(self.layer.activation, z[two:], self.new[t]),
            *self.mix(t),
        ]

    def slopes(self, part: slice) -> list[Call]:
        units, dz, before = self.units, self.dz[part], self.h[part]
        dr = dz[:, units : self.two]
        return [
            *self.mix_slopes(part, dz[:, :units], dz[:, self.two :]),
            *self.slope(self.layer.recurrent_activation, self.z[part, units : self.two], self.r[part], dr),
            partial(np.multiply, dr, before, dr),
        ]

    def back(self, t: int) -> list[Call]:
        dz, dh, dused, units, two = self.dz[t], self.dh, self.dused, self.units, self.two
        recurrent = self.weights["recurrent_kernel"]
        drop = [partial(np.multiply, dused, self.drop_h, dused)] if self.dropping_states else []
        return [
            partial(np.multiply, dz[:units], dh, dz[:units]),
            partial(np.multiply, dz[two:], dh, dz[two:]),
            partial(np.dot, recurrent[:, two:], dz[two:], dused),
            partial(np.multiply, dz[units:two], dused, dz[units:two]),
            partial(np.multiply, dused, self.r[t], dused),
            *drop,
            partial(np.multiply, dh, self.zg[t], self.stays),
            *self.pull(recurrent[:, :two], dz[:two], dh),
            partial(np.add, dh, self.stays, dh),
            partial(np.add, dh, dused, dh),
        ]

    def learn(self) -> list[Call]:
        features, two, grads = self.features, self.two, self.grads
        pairs = (slice(None), self.x), (slice(two), self.h), (slice(two, None), self.used)
        (of_x, of_h, of_used), calls = self.products(*pairs)
        calls += [
            partial(np.copyto, grads["kernel"], of_x[:, :features].T),
            partial(np.copyto, grads["recurrent_kernel"][:, :two], of_h.T),
            partial(np.copyto, grads["recurrent_kernel"][:, two:], of_used.T),
        ]
        return [*calls, partial(np.copyto, grads["bias"], of_x[:, features])] if "bias" in grads else calls


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014).

    z, r = recurrent_activation(x · kernel + h · recurrent_kernel + bias), each with its part of the weights;
    new = activation(x · kernel + r·(h · recurrent_kernel + bias₂) + bias₁) with `reset_after`,
    else activation(x · kernel + (r·h) · recurrent_kernel + bias); h' = z·h + (1 − z)·new.

    Weights: kernel `(features, 3·units)`, recurrent_kernel `(units, 3·units)`, both in the order z, r, new; bias
    `(2, 3·units)` with `reset_after` (for the input and for the state), else `(3·units,)`.

    Dropout of inputs and states draws one mask for each sample, the same at all steps and for all gates (Gal &
    Ghahramani 2016).
    """

    gates, cell = 3, "gru_cell"

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
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
        *,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
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
        self.reset_after = bool(reset_after)
        self.arithmetic = ResetAfter if reset_after else ResetBefore

    def bias_shape(self) -> Shape:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def get_config(self) -> dict[str, Any]:
        own = {"recurrent_activation": activations.config(self.recurrent_activation), "reset_after": self.reset_after}
        return super().get_config() | own
