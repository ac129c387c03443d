"""The arrays and calls of a recurrent layer in one plan: what it does before, between and behind its steps.

Forward: step by step the input times the kernel, the state times the recurrent kernel, and the gates. Where the two
sums are simply added (`joined`), state and input lie one behind the other, so that one product gives both; else those
of all inputs come first. Back: step by step the gradient by the state and what the step adds to the gradients of the
weights (of small steps, many in one product), then the gradient of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from asyncfit.nn.activations import Activation, sigmoid, tanh
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blas import WORTH_A_CALL, add_product, turn
from asyncfit.nn.streams import RECURRENT_INPUTS, RECURRENT_STATES
from asyncfit.nn.workspace import Place, Workspace

if TYPE_CHECKING:
    from .recurrent import Recurrent

__all__ = ["OverTime", "Run"]

Run = tuple[int, int, int, float]
"""Gates from, to (as Keras orders them), where they go, and by what they are multiplied on the way."""
APART = 1 << 13
"""From so many numbers of a step a product for each step costs less than laying the numbers of many side by side."""
AT_ONCE = 1 << 20
"""Numbers that are laid side by side for one product."""
TOGETHER = 1 << 16
"""Numbers that are worked on at a time where several steps can be: they stay in the cache."""


class OverTime:
    """One execution of `layer` at `at`.

    Attributes:
        steps, rows, units: sizes; `features` of the input, `ones` behind it (1 with a bias), `more` ones behind the
            state (1 if that has a bias of its own).
        weights: by their plain names.
        x: `(steps, rows, features + ones)`, what the kernel is multiplied with; `(steps, features + ones, rows)` if
            `joined`, and then a part of h.
        h: `(steps + 1, units + more, rows)`, what the recurrent kernel is multiplied with at each step; if `joined`
            it is `(steps + 1, units + features + ones, rows)`.
        state: `(steps + 1, units, rows)`: the state before each step and behind the last; h unless that is dropped out.
        z: `(steps, gates·units, rows)`: the gates, before and (where it can be the same array as `y`) behind their
            activations.
        wx, wh: kernel and recurrent kernel, turned, with their biases, in the order and scale of `runs()`; if `joined`
            they are parts of `w`, which h is multiplied with.
        kept: arrays like `state` that a step must leave as they are where the mask leaves it out.
        dz: gradient by z. dh: by the state. flows: `dh` and what else a step leaves as it is where it is masked.
        start, adds: calls that prepare the sums of `products`, and that add to them, step by step.
    """

    joined: ClassVar[bool] = False

    def __init__(self, layer: Recurrent, at: Place) -> None:
        self.layer, self.at = layer, at
        self.rows, self.steps, features = at.x.shape
        self.units = units = layer.units
        width = layer.gates * units
        self.weights = {name.rpartition("/")[2]: w for name, w in at.weights.items()}
        self.grads = {name.rpartition("/")[2]: g for name, g in at.grads.items()}
        bias = self.weights.get("bias")
        ones, more = int(bias is not None), int(bias is not None and bias.ndim == 2)
        self.dropping = at.training and layer.dropout > 0
        self.dropping_states = at.training and layer.recurrent_dropout > 0
        self.features = features
        if self.joined:
            self.h = at.take((self.steps + 1, units + features + ones, self.rows))
            self.w = at.take((width, units + features + ones))
            self.x, self.wh, self.wx = self.h[: self.steps, units:], self.w[:, :units], self.w[:, units:]
            self.inputs = self.x[:, :features].transpose(0, 2, 1)
        else:
            self.h = at.take((self.steps + 1, units + more, self.rows))
            self.x = at.take((self.steps, self.rows, features + ones))
            self.wx, self.wh = at.take((width, features + ones)), at.take((width, units + more))
            self.inputs = self.x[..., :features]
        self.state = at.take((self.steps + 1, units, self.rows)) if self.dropping_states else self.h[:, :units]
        self.z = self.take_steps(width)
        self.part = at.take((width, self.rows))
        self.kept, self.scratch = [self.state], Workspace(at.x.dtype)
        if bias is not None:
            at.enter.append(partial((self.x[:, features] if self.joined else self.x[..., features]).fill, 1))
        if more:
            at.enter.append(partial(self.h[:, units].fill, 1))
        at.enter.append(partial(self.h[0, :units].fill, 0))
        at.enter.append(partial(self.state[0].fill, 0))
        self.learns = at.dy is not None
        if self.learns:
            self.dh, self.flows = self.take(units), list[Array]()
            self.flows.append(self.dh)
            self.dz = self.take_steps(self.width())
            self.start, self.adds = list[Call](), [list[Call]() for _ in range(self.steps)]

    # What a kind of layer gives

    def width(self) -> int:
        """How many numbers a step has in `dz`."""
        return self.layer.gates * self.units

    def runs(self) -> Sequence[Run]:
        """How gates are ordered and scaled where they are computed."""
        raise NotImplementedError

    def forth(self, t: int) -> list[Call]:
        """Calls that go from `state[t]` to `state[t + 1]`; `z[t]` holds x · kernel + bias, unless `joined`."""
        raise NotImplementedError

    def slopes(self, part: slice) -> list[Call]:
        """Calls that prepare the way back through some steps, as far as it does not depend on the gradient."""
        raise NotImplementedError

    def back(self, t: int) -> list[Call]:
        """Calls that write `dz[t]`, and turn `dh`, the gradient by the state behind step t, into that before it."""
        raise NotImplementedError

    def learn(self) -> list[Call]:
        """Calls that write the gradients of the weights from `dz`; this is for gates in Keras's order in it."""
        if self.joined:
            (total,), calls = self.products((slice(None), self.h))
            of_h, of_x = total[:, : self.units], total[:, self.units :]
        else:
            (of_x, of_h), calls = self.products((slice(None), self.x), (slice(None), self.h))
        calls.append(partial(np.copyto, self.grads["kernel"], of_x[:, : self.features].T))
        calls.append(partial(np.copyto, self.grads["recurrent_kernel"], of_h.T))
        if "bias" in self.grads:
            calls.append(partial(np.copyto, self.grads["bias"], of_x[:, self.features]))
        return calls

    def input_gradient(self) -> tuple[Array, Array, list[Call]]:
        """Kernel and `dz` so that their product is the gradient by the input, and what must be called before."""
        return self.weights["kernel"], self.dz, []

    # What it may use

    def take(self, width: int) -> Array:
        """Room for one step."""
        return self.at.take((width, self.rows))

    def take_steps(self, width: int, more: int = 0) -> Array:
        """Room for all steps (and `more`)."""
        found = self.at.take((self.steps + more, width, self.rows))
        if self.at.mask is not None:  # a step that nobody takes leaves there what was there: let it be numbers
            self.at.enter.append(partial(found.fill, 0))
        return found

    def apply(self, activation: Activation, z: Array, y: Array, *, halved: bool = True) -> list[Call]:
        """Calls that write y from z, which is `halved` already where the activation is the sigmoid."""
        if activation is sigmoid and halved:  # 1 / (1 + e^−2z) = (1 + tanh z) / 2: half as long as by way of e^−z
            half = np.array(0.5, z.dtype)
            return [partial(np.tanh, z, y), partial(np.multiply, y, half, y), partial(np.add, y, half, y)]
        self.scratch.restart()
        return activation.forward(z, y, self.scratch)

    def slope(self, activation: Activation, z: Array, y: Array, out: Array) -> list[Call]:
        """Calls that write the derivative by z (not halved) where it is z, and y."""
        if activation is sigmoid:
            return [partial(np.multiply, y, y, out), partial(np.subtract, y, out, out)]
        if activation is tanh:
            return [partial(np.multiply, y, y, out), partial(np.subtract, np.array(1, y.dtype), out, out)]
        self.scratch.restart()
        return [partial(out.fill, 1), *activation.backward(z, y, out, self.scratch)]

    def pull(self, weight: Array, dz: Array, out: Array) -> list[Call]:
        """Calls that write the gradient by the state that `weight`, `(units, …)`, was multiplied with."""
        calls: list[Call] = [partial(np.dot, weight, dz, out)]
        return [*calls, partial(np.multiply, out, self.drop_h, out)] if self.dropping_states else calls

    def products(self, *pairs: tuple[slice, Array]) -> tuple[list[Array], list[Call]]:
        """Sums over all steps: of parts of `dz`'s width, times `x` or an array like `h`; and the calls that write them.

        What a big step adds is computed once it is there (`adds`). The gradients of small ones are laid side by side,
        so that there is one product for many of them.
        """
        width, rows = self.dz.shape[1], self.rows
        if width * rows >= APART:
            return [self._summed(part, array) for part, array in pairs], []
        each = max(1, min(self.steps, AT_ONCE // (width * rows)))
        room = self.at.take((width * each * rows,))
        operands = [a if a is self.x else self.at.take((a.shape[1] * each * rows,)) for _, a in pairs]
        sizes = [(len(range(width)[part]), a.shape[2 if a is self.x else 1]) for part, a in pairs]
        totals, sums = [self.at.take(size) for size in sizes], [self.at.take(size) for size in sizes]
        calls: list[Call] = []
        for begin in range(0, self.steps, each):
            end = min(self.steps, begin + each)
            dz = beside(self.dz[begin:end], room, calls)
            for (part, array), mine, total, more in zip(pairs, operands, totals, sums, strict=True):
                steps = array[begin:end]
                right = steps.reshape(-1, steps.shape[2]) if array is self.x else beside(steps, mine, calls).T
                calls.append(partial(np.dot, dz[part], right, more if begin else total))
                if begin:
                    calls.append(partial(np.add, total, more, total))
        return totals, calls

    def _summed(self, part: slice, array: Array) -> Array:
        turned = array if array is self.x else array.transpose(0, 2, 1)
        total, scratch = (self.at.take((len(range(self.dz.shape[1])[part]), turned.shape[2])) for _ in range(2))
        self.start.append(partial(total.fill, 0))
        for t, calls in enumerate(self.adds):
            calls += add_product(total, self.dz[t, part], turned[t], scratch)
        return total

    # The whole

    def plan(self) -> None:
        at = self.at
        forth = [self.forth(t) for t in range(self.steps)]
        at.forward += [*self._prepare(), *self._load()]
        if not self.joined:
            at.forward.append(partial(np.matmul, self.wx, self.x.transpose(0, 2, 1), self.z))
        drop: list[list[Call]] = [[] for _ in range(self.steps)]
        if self.dropping_states:
            for t in range(self.steps):
                drop[t].append(partial(np.multiply, self.state[t + 1], self.drop_h, self.h[t + 1, : self.units]))
        if at.mask is None:
            at.forward += [call for t in range(self.steps) for call in (*forth[t], *drop[t])]
        else:
            at.forward.append(self._masked_forth(forth, drop))
        at.forward += self._give()
        if not self.learns:
            return
        prepare: list[list[Call]] = [[] for _ in range(self.steps)]
        each = max(1, TOGETHER // (self.z.shape[1] * self.rows))
        for begin in range(0, self.steps, each):
            end = min(self.steps, begin + each)
            prepare[end - 1] = self.slopes(slice(begin, end))
        learn = self.learn() if self.grads else []
        back = [[*self.back(t), *self.adds[t]] for t in range(self.steps)]
        take, gradient = self._take_gradient()
        at.backward += [*take, *self.start]
        if at.mask is None:
            for t in reversed(range(self.steps)):
                at.backward += [*gradient[t], *prepare[t], *back[t]]
        else:
            at.backward.append(self._masked_back(gradient, prepare, back))
        at.backward += learn
        if at.dx is not None:
            kernel, dz, before = self.input_gradient()
            dx = at.take((self.steps, self.rows, self.features))
            at.backward += [*before, partial(np.matmul, dz.transpose(0, 2, 1), kernel.T, dx)]
            if self.dropping:
                at.backward.append(partial(np.multiply, dx, self.drop_x, dx))
            at.backward.append(partial(np.copyto, self._in_time(at.dx).transpose(1, 0, 2), dx))

    def _in_time(self, array: Array) -> Array:
        """An array with the steps on its second axis, in the order in which the layer goes over them."""
        return array[:, ::-1] if self.layer.go_backwards else array

    def _prepare(self) -> list[Call]:
        calls, runs = [], self.runs()
        calls += scaled(self.weights["kernel"], self.units, runs, self.wx[:, : self.features])
        calls += scaled(self.weights["recurrent_kernel"], self.units, runs, self.wh[:, : self.units])
        if (bias := self.weights.get("bias")) is not None:
            rows = bias if bias.ndim == 2 else bias[None]
            calls += scaled(rows[0], self.units, runs, self.wx[:, -1])
            calls += [] if len(rows) == 1 else scaled(rows[1], self.units, runs, self.wh[:, -1])
        return calls

    def _load(self) -> list[Call]:
        """The input, step by step; the masks of dropout are the same at all steps of a sample."""
        at, layer = self.at, self.layer
        x, source = self.inputs, self._in_time(at.x)
        if self.joined and x[0].size >= WORTH_A_CALL:
            calls = [call for t in range(self.steps) for call in turn(source[:, t], x[t].T)]
        else:
            calls = [partial(np.copyto, x, source.transpose(1, 0, 2))]
        if self.dropping:
            self.drop_x = at.take((self.rows, self.features))
            calls.append(self._draw(RECURRENT_INPUTS, layer.dropout, self.drop_x))
            calls.append(partial(np.multiply, x, self.drop_x, x))
        if self.dropping_states:
            self.drop_h = self.take(self.units)
            calls += [self._draw(RECURRENT_STATES, layer.recurrent_dropout, self.drop_h)]
        return calls

    def _draw(self, purpose: int, rate: float, mask: Array) -> Call:
        dice, kind, least = self.at.dice, mask.dtype.type, np.array(rate, mask.dtype)
        scale = np.array(0.0 if rate == 1.0 else 1.0 / (1.0 - rate), mask.dtype)
        seed = self.layer.seed
        place = self.at.index if seed is None else self.at.index ^ (seed * 0x9E3779B1 + 1 & 0xFFFFFFFF)

        def draw() -> None:
            dice.at(purpose, place).random(None, kind, mask)
            np.greater_equal(mask, least, mask)
            np.multiply(mask, scale, mask)

        return draw

    def _give(self) -> list[Call]:
        """The output; with `zero_output_for_mask` it is 0 where the mask leaves a step out."""
        y, state = self.at.y, self.state
        zero = self.layer.zero_output_for_mask and self.at.mask is not None
        if self.layer.return_sequences:
            calls: list[Call] = [partial(np.copyto, y, state[1:].transpose(2, 0, 1))]
            return [*calls, partial(np.multiply, y, self.counts.T[:, :, None], y)] if zero else calls
        calls = [partial(np.copyto, y, state[-1].T)]
        return [*calls, partial(np.multiply, y, self.counts[-1][:, None], y)] if zero else calls

    def _take_gradient(self) -> tuple[list[Call], list[list[Call]]]:
        """Calls that begin the way back, and those that add what comes from the output at each step."""
        dy, dh, each = self.at.dy, self.dh, [list[Call]() for _ in range(self.steps)]
        assert dy is not None
        zero = self.layer.zero_output_for_mask and self.at.mask is not None
        begin: list[Call] = [partial(flow.fill, 0) for flow in self.flows]
        if not self.layer.return_sequences:
            begin.append(partial(np.copyto, dh, dy.T))
            return [*begin, partial(np.multiply, dh, self.counts[-1], dh)] if zero else begin, each
        turned = self.take_steps(self.units)
        begin.append(partial(np.copyto, turned, dy.transpose(1, 2, 0)))
        if zero:
            begin.append(partial(np.multiply, turned, self.counts[:, None], turned))
        for t in range(self.steps):
            each[t].append(partial(np.add, dh, turned[t], dh))
        return begin, each

    # With a mask

    def _masked_forth(self, forth: Sequence[list[Call]], drop: Sequence[list[Call]]) -> Call:
        """Goes over the steps; one that no sample counts in costs nothing but a copy."""
        mask, rows, steps, kept = self.at.mask, self.rows, self.steps, self.kept
        assert mask is not None
        source = self._in_time(mask).T
        self.counts = self.at.take((steps, rows))
        out, self.numbers = self.at.take((steps, rows), bool), [0] * steps  # which samples skip a step, and how many
        counts, numbers = self.counts, self.numbers

        def run() -> None:
            np.copyto(counts, source)
            np.logical_not(source, out)
            numbers[:] = np.count_nonzero(out, axis=1).tolist()
            for t in range(steps):
                if numbers[t] < rows:
                    for call in forth[t]:
                        call()
                if numbers[t]:
                    where = out[t] if numbers[t] < rows else True
                    for array in kept:
                        np.copyto(array[t + 1], array[t], where=where)
                for call in drop[t]:
                    call()

        self.skipped = out
        return run

    def _masked_back(
        self, gradient: Sequence[list[Call]], prepare: Sequence[list[Call]], back: Sequence[list[Call]]
    ) -> Call:
        rows, steps, flows, dz = self.rows, self.steps, self.flows, self.dz
        counts, out, numbers = self.counts, self.skipped, self.numbers
        past = [self.take(self.units) for _ in flows]

        def run() -> None:
            for t in reversed(range(steps)):
                for call in gradient[t]:
                    call()
                for call in prepare[t]:
                    call()
                if numbers[t] == rows:
                    dz[t] = 0
                    continue
                if numbers[t]:  # what belongs to samples that skip this step goes past it
                    for flow, kept in zip(flows, past, strict=True):
                        np.multiply(flow, out[t], kept)
                        np.multiply(flow, counts[t], flow)
                for call in back[t]:
                    call()
                if numbers[t]:
                    for flow, kept in zip(flows, past, strict=True):
                        np.add(flow, kept, flow)

        return run


def beside(array: Array, room: Array, calls: list[Call]) -> Array:
    """`(steps, width, rows)` as `(width, steps · rows)` in `room`, once what is added to `calls` has run."""
    steps, width, rows = array.shape
    found = room[: array.size].reshape(width, steps, rows)
    calls.append(partial(np.copyto, found, array.transpose(1, 0, 2)))
    return found.reshape(width, steps * rows)


def scaled(source: Array, units: int, runs: Sequence[Run], target: Array) -> list[Call]:
    """Calls that put weights `(…, gates·units)`, turned, with gates in the order and scale of `runs`, into `target`."""
    calls: list[Call] = []
    for begin, end, to, factor in runs:
        part = source[..., begin * units : end * units].T
        place = target[to * units : (to + end - begin) * units]
        by = np.array(factor, source.dtype)
        calls.append(partial(np.copyto, place, part) if factor == 1 else partial(np.multiply, part, by, place))
    return calls
