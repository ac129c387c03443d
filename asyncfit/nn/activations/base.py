"""What an activation is: a function of a layer's result, and how it and its gradient go into a plan."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.gradients import Value
from asyncfit.nn.gradients.tape import made
from asyncfit.nn.naming import CheckedKeywords
from asyncfit.nn.workspace import Workspace

__all__ = ["Activation", "inside", "linear", "scalar"]


class Activation(CheckedKeywords):
    """An elementwise function of a layer's result (softmax and its like: along the last axis).

    A subclass with options takes them as keywords and keeps each in an attribute of the same name.

    Attributes:
        name: Keras's; with options behind it that are not the usual ones: `"celu(alpha=0.5)"`.
        elementwise: whether each number is taken alone.
        halves: whether the last axis of the output is half as long as that of the input.
    """

    name = "linear"
    elementwise: ClassVar[bool] = True
    halves: ClassVar[bool] = False

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        """Calls that write `y`; `z` stays as it is."""
        return [partial(np.copyto, y, z)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        """Calls that turn `dy` (∂loss/∂y) into ∂loss/∂z in place; `z` and `y` are those that forward has left."""
        return []

    def in_place(self) -> bool:
        """Whether `y` may lie where `z` does, because forward can and backward does without `z`."""
        return False

    def __call__(self, x: Array, *options: Any, **named: Any) -> Array:
        """The function itself; integers become float32. Options as in Keras: `elu(x, alpha=0.5)`."""
        if options or named:
            return self.with_options(*options, **named)(x)
        if isinstance(x, Value):
            return self._noted(x)
        x = np.asarray(x)
        x = x if x.dtype == np.float64 else x.astype(np.float32)
        y = np.empty_like(x)
        for call in self.forward(x, y, Workspace(x.dtype)):
            call()
        return y

    def _noted(self, x: Value) -> Any:
        """The function of a value whose gradient is asked for: in losses and layers of users' own."""
        z, work = np.ascontiguousarray(x.array), Workspace(x.array.dtype)
        y = np.empty_like(z)
        for call in self.forward(z, y, work):
            call()

        def pull(g: Array) -> Array:
            dy = np.array(g, y.dtype, order="C")
            for call in self.backward(z, y, dy, work):
                call()
            return dy

        return made(y, (x, pull))

    def with_options(self, *options: Any, **named: Any) -> Self:
        """The same function with options as Keras's function takes them, for a layer: `elu.with_options(alpha=0.5)`."""
        if (options or named) and type(self).__init__ is object.__init__:
            raise TypeError(f"{self.name} takes no options but the array itself")
        return type(self)(*options, **named)

    def full_name(self) -> str:
        """The name with the options that are not the usual ones."""
        others = self.get_config()
        told = f"({', '.join(f'{name}={value!r}' for name, value in others.items())})" if others else ""
        return f"{type(self).name}{told}"

    def get_config(self) -> dict[str, Any]:
        """The options that are not the usual ones."""
        parameters = list(inspect.signature(type(self).__init__).parameters.values())[1:]
        named = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
        return {name: getattr(self, name) for name, usual in named.items() if getattr(self, name) != usual}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        """Copies of ours are the same object again."""
        from . import SPELLINGS, get

        return (get, (self.name,)) if SPELLINGS.get(self.name) is self and not self.halves else super().__reduce__()


def scalar(value: float, like: Array) -> Array:
    """A constant in the type of `like`; a 0-d array costs half of what a Python float costs in a call."""
    return np.array(value, like.dtype)


def inside(z: Array, low: float, high: float, out: Array, scratch: Array) -> list[Call]:
    """Write 1 where low < z < high, and 0 elsewhere."""
    return [
        partial(np.greater, z, scalar(low, z), out),
        partial(np.less, z, scalar(high, z), scratch),
        partial(np.multiply, out, scratch, out),
    ]


linear = Activation()
