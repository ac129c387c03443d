"""Layers of users' own, as they are written with `add_weight` and `call`: see `Layer`.

`call` never sees the layer itself, for one layer may be executed by several threads at once, each with other weights.
It runs on a stand-in: a copy that has, for each weight that was asked for, the array of that execution, or in training
one that notes what is done with it (`asyncfit.nn.gradients`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.gradients import Value, traced
from asyncfit.nn.streams import OWN_LAYER
from asyncfit.nn.workspace import Place

from .weights import Weight

if TYPE_CHECKING:
    from .base import Layer

__all__ = ["Asked", "Promise", "checked_call", "checked_shape", "is_plain", "plan_call", "shape_by_call"]

EXTRAS = ("training", "mask", "rng")
"""What `call` may take besides the input."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What `add_weight` gives: in `call` the weight is in its place. Elsewhere it is `layer.arrays[name]`."""

    name: str
    shape: Shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise InvalidInput(
            f"the weight {self.name!r} has values in call() alone; elsewhere: layer.arrays[{self.name!r}]"
        )


class Kept(Value):
    """A weight that no gradient changes, in training: `assign` gives it other values."""

    __slots__ = ("changed",)

    def __init__(self, array: Array) -> None:
        super().__init__(array.copy())
        self.changed = False

    def assign(self, value: Any) -> None:
        """The weight's values from now on. No gradient goes through them."""
        given = np.asarray(value.array if isinstance(value, Value) else value)
        if given.shape != self.array.shape:
            raise InvalidInput(f"assign() got an array of the shape {given.shape} for a weight of {self.array.shape}")
        self.array, self.changed = given.astype(self.array.dtype), True


class Asked:
    """The weights that a layer has asked for, in `__init__` and in `build`."""

    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self.shape: Shape | None = None
        self.outputs: dict[Shape, Shape] = {}
        self._first: int | None = None
        self._open = True

    def add(self, layer: Layer, weight: Weight) -> Promise:
        if not self._open:
            raise InvalidInput(f"add_weight() of {told(layer)} belongs in __init__ or build(self, input_shape)")
        if not weight.name:
            taken, number = {known.name for known in self.weights}, 0
            while (name := f"variable_{number}" if number else "variable") in taken:
                number += 1
            object.__setattr__(weight, "name", name)
        if any(known.name == weight.name for known in self.weights):
            raise InvalidInput(f"{told(layer)} asks for two weights named {weight.name!r}")
        self.weights.append(weight)
        return Promise(weight.name, weight.shape)

    def all(self, layer: Layer, input_shape: Shape) -> Sequence[Weight]:
        """The weights for inputs of this shape, trained ones first; `build` runs once for it."""
        if self.shape != input_shape:
            self._first = len(self.weights) if self._first is None else self._first
            del self.weights[self._first :]
            self.shape, self._open = None, True
            try:
                layer.build((None, *input_shape))
            except Exception as error:
                error.add_note(f"raised in build() of {told(layer)}, for input_shape={(None, *input_shape)}")
                raise
            finally:
                self._open = False
            self.shape = input_shape
        return sorted(self.weights, key=lambda weight: not weight.trainable)


def told(layer: Layer) -> str:
    return f"{type(layer).__name__} {layer.name!r}"


def checked_call(cls: type, call: Callable[..., Any]) -> tuple[str, ...]:
    """Which of `training`, `mask` and `rng` a `call` takes; refuses what it cannot be given."""
    parameters = list(inspect.signature(call).parameters.values())[1:]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named or named[0].kind is inspect.Parameter.KEYWORD_ONLY or named[0].name in EXTRAS:
        raise TypeError(f"{cls.__name__}.call takes the input first: def call(self, x)")
    if other := [p.name for p in named[1:] if p.name not in EXTRAS and p.default is p.empty]:
        raise TypeError(
            f"{cls.__name__}.call takes one input, and if it likes {', '.join(EXTRAS)}; it cannot be given {other[0]!r}"
        )
    return tuple(p.name for p in named[1:] if p.name in EXTRAS)


class Caller:
    """Runs a layer's `call` on stand-ins."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._holders = [name for name, value in layer.__dict__.items() if holds(value)]

    def __call__(self, x: Any, weights: Mapping[str, Any], how: dict[str, Any]) -> Any:
        layer = self.layer
        stand = object.__new__(type(layer))
        inside = stand.__dict__
        inside.update(layer.__dict__)
        inside["arrays"] = dict(weights)
        for name in self._holders:
            inside[name] = filled(inside[name], weights)
        before = dict(inside)
        try:
            result = stand.call(x, **how)
        except Exception as error:
            raise self.named(error) from error.__cause__
        if len(before) != len(inside) or any(before.get(name, before) is not value for name, value in inside.items()):
            changed = next(name for name, value in inside.items() if before.get(name, before) is not value)
            slip = (
                f"; write self.{changed}.assign(…), which weights with trainable=False have in training"
                if changed in self._holders
                else ", which is lost; what it needs later is a weight: add_weight(trainable=False), self.….assign(…)"
            )
            raise InvalidInput(f"call() of {told(layer)} has set self.{changed}{slip}")
        return result

    def named(self, error: Exception) -> Exception:
        """The error so that it names the layer."""
        where = f"call() of {told(self.layer)}"
        if isinstance(error, InvalidInput):
            return InvalidInput(f"{where}: {error}")
        if isinstance(error, AttributeError) and error.name == "assign":
            return InvalidInput(
                f"{where}: assign() is there in training alone, for weights asked for with trainable=False; take "
                "call(self, x, training=False) and write it below `if training:`"
            )
        error.add_note(f"raised in {where}")
        return error

    def checked(self, result: Any, x: Array, shape: tuple[int, ...] | None) -> Array:
        """What `call` gave as a plain array, of that shape unless it is None."""
        where = f"call() of {told(self.layer)} gave"
        found = result.array if isinstance(result, Value) else result
        if not isinstance(found, np.ndarray | np.generic | int | float) or np.asarray(found).dtype.kind not in "fiub":
            raise InvalidInput(f"{where} {type(found).__name__}, not an array of numbers")
        found = np.asarray(found)
        if shape is not None and found.shape != shape:
            raise InvalidInput(
                f"{where} an array of the shape {found.shape} for an input of {x.shape}; it must be {shape}, by "
                "its output shape"
            )
        return found


def holds(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(holds, value))
    return any(map(holds, value.values())) if isinstance(value, dict) else isinstance(value, Promise)


def filled(value: Any, weights: Mapping[str, Any]) -> Any:
    """`value` with weights in place of promises."""
    if isinstance(value, Promise):
        return weights[value.name]
    if isinstance(value, list | tuple):
        return type(value)(filled(one, weights) for one in value)
    return {key: filled(one, weights) for key, one in value.items()} if isinstance(value, dict) else value


def shape_by_call(layer: Layer, input_shape: Shape, extras: tuple[str, ...], specs: Sequence[Weight]) -> Shape:
    """The shape of the output, by a call with two samples and weights of zeros."""
    x = np.broadcast_to(np.float32(0), (2, *input_shape))
    weights = {spec.name: np.broadcast_to(np.float32(0), spec.shape) for spec in specs}
    caller = Caller(layer)
    try:
        with np.errstate(all="ignore"):
            result = caller(x, weights, dict.fromkeys(extras) | ({"training": False} if "training" in extras else {}))
    except Exception as error:
        error.add_note("its output shape was looked for by a call with zeros; compute_output_shape() spares that")
        raise
    return checked_shape(layer, "call()", caller.checked(result, x, None).shape, 2)


def checked_shape(layer: Layer, where: str, found: Any, rows: int | None) -> Shape:
    """The shape without the batch, of one with it."""
    good = isinstance(found, tuple | list) and len(found) > 1 and found[0] in (rows, None)
    if not good or not all(isinstance(size, int | np.integer) and size > 0 for size in found[1:]):
        raise InvalidInput(
            f"{where} of {told(layer)} gives the shape {found!r}; it must have the batch first ({rows}), and whole "
            "numbers from 1 behind it"
        )
    return tuple(int(size) for size in found[1:])


def plan_call(layer: Layer, at: Place, extras: tuple[str, ...], specs: Sequence[Weight]) -> None:
    """The plan of a layer by its `call`: forward runs it, backward leads the gradient back over its notes."""
    caller, dice, index, y = Caller(layer), at.dice, at.index, at.y
    x, dy, dx, grads, training = read_only(at.x), at.dy, at.dx, at.grads, at.training
    mask = None if at.mask is None else read_only(at.mask)
    kept = {spec.name: at.weights[spec.name] for spec in specs if training and not spec.trainable}
    fixed = {name: read_only(array) for name, array in at.weights.items() if name not in kept}
    noted = list(grads) if dy is not None else []
    sources = [*([x] if dx is not None else []), *(fixed[name] for name in noted)]
    targets = [*([dx] if dx is not None else []), *(grads[name] for name in noted)]
    has_rng = "rng" in extras and training
    how = {name: value for name, value in (("training", training), ("mask", mask), ("rng", None)) if name in extras}
    notes: list[Any] = []

    def run(*values: Any) -> Any:
        mine = how | {"rng": dice.at(OWN_LAYER, index)} if has_rng else how
        states = {name: Kept(array) for name, array in kept.items()}
        weights = {**fixed, **dict(zip(noted, values[len(values) - len(noted) :], strict=True)), **states}
        result = caller(values[0] if dx is not None else x, weights, mine)
        array = caller.checked(result, x, y.shape)
        for name, state in states.items():
            if state.changed:
                np.copyto(kept[name], state.array)
        np.copyto(y, array, casting="same_kind")
        return result

    def forward() -> None:
        if targets:
            notes[:] = traced(run, *sources)
        else:
            run()

    def backward() -> None:
        assert dy is not None
        result, back = notes
        notes.clear()
        try:
            found = back(result, dy)
        except Exception as error:
            raise caller.named(error) from error.__cause__
        for target, gradient in zip(targets, found, strict=True):
            np.copyto(target, gradient)

    at.forward.append(forward)
    if targets:
        at.backward.append(backward)


def is_plain(value: Any) -> bool:
    """Whether JSON holds it as it is."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(one) for key, one in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
