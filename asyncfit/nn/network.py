"""Network: layers in a row, their shapes, and all weights in one flat array.

It knows no loss, no optimizer and no data: `learner.py` trains it, `asyncfit.Sequential` is its front. Trained weights
lie in `params`, one behind the other in the order of the layers; what no gradient changes (a frozen layer's weights,
later the statistics of batch normalization) lies in `fixed`. The layers' arrays are views of the two, so a snapshot is
one copy and an optimizer step runs over everything at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import snake

from . import configs
from .activations import linear
from .arrays import Array, DType, Shape
from .constraints import Constraint
from .layers import InputLayer, Layer
from .penalties import Penalty
from .plan import Plan
from .regularizers import Regularizer
from .streams import Dice, checked_seed, initial_stream
from .summary import summary_lines
from .workspace import Workspace

__all__ = ["Network", "Slot"]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a weight lies: `offset` counts elements in `params` (trained) or `fixed`; and what holds for it."""

    layer: str
    name: str
    shape: Shape
    trainable: bool
    offset: int
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def path(self) -> str:
        return f"{self.layer}/{self.name}"

    def view(self, flat: Array) -> Array:
        """This weight within a flat array."""
        return flat[self.offset : self.offset + self.size].reshape(self.shape)


class Network:
    """Layers in a row.

    It is built (gets shapes and weights) as soon as the shape of its input is known: from an `Input` layer, from
    `input_shape=` of the first layer, else from the first data, by `build`.

    Args:
        layers: the layers, an `Input` first if you like.
        name: "sequential" if left out.
        seed: initial weights, dropout and shuffling are functions of it; None draws one.

    Attributes:
        params, fixed: the flat arrays (float32); empty until it is built.
        slots: where each weight lies, in Keras's order.
        frozen: names of the layers that were not trainable when this was built.
        input_shape: without the batch; None until known.
    """

    def __init__(
        self,
        layers: Iterable[Layer] = (),
        *,
        name: str | None = None,
        seed: int | None = None,
        _dtype: DType | type = np.float32,
    ) -> None:
        self.name = name or "sequential"
        self.seed = checked_seed(seed)
        self.seed_given = seed is not None
        self.dtype = np.dtype(_dtype)
        self.layers: list[Layer] = []
        self.input_layer: InputLayer | None = None
        self.built = False
        self.slots: list[Slot] = []
        self.frozen: frozenset[str] = frozenset()
        self.params: Array = np.empty(0, self.dtype)
        self.fixed: Array = np.empty(0, self.dtype)
        if isinstance(layers, Layer):
            raise InvalidInput(f"Network(layers=…) takes a list: [{type(layers).__name__}(…)]")
        for layer in layers:
            self._take(layer)
        if self.input_layer and self.layers:  # once, for it takes as long as there are layers
            self._build(self.input_layer.shape)

    # Layers and shapes

    @property
    def input_shape(self) -> Shape | None:
        return self.input_layer.shape if self.input_layer else None

    @property
    def output_shape(self) -> Shape | None:
        return self.layers[-1].output_shape if self.built else None

    def add(self, layer: Layer) -> None:
        """Put a layer behind the others; weights that are there already keep their values."""
        before = len(self.layers)
        self._take(layer)
        if self.input_layer and len(self.layers) > before:
            try:
                self._build(self.input_layer.shape)
            except InvalidInput:
                self.layers.pop()
                raise

    def _take(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            slip = "; add the parentheses and settings" if isinstance(layer, type) else ""
            raise InvalidInput(f"a layer is an object from asyncfit.layers, not {layer!r}{slip}")
        if any(layer is known for known in self.layers) or layer.arrays:
            raise InvalidInput(f"the layer {layer.name!r} is part of a model already; make a new one")
        if isinstance(layer, InputLayer):
            if self.layers or self.input_layer:
                raise InvalidInput("Input comes first, and once")
            layer.name = layer.given_name or "input"
            self.input_layer = layer
            return
        self._name(layer)
        if not self.layers and self.input_layer is None and layer.given_shape is not None:
            self.input_layer = InputLayer(layer.given_shape, name="input")
        self.layers.append(layer)

    def _name(self, layer: Layer) -> None:
        """Names count within the model (dense, dense_1 …), so that building it twice gives the same names."""
        taken = {known.name for known in self.layers}
        if layer.given_name is not None:
            if layer.given_name in taken:
                raise InvalidInput(f"two layers are named {layer.given_name!r}; names are unique in a model")
            layer.name = layer.given_name
            return
        stem = snake(type(layer).__name__)
        number = sum(type(known) is type(layer) and known.given_name is None for known in self.layers)
        while (name := f"{stem}_{number}" if number else stem) in taken:
            number += 1
        layer.name = name

    def build(self, input_shape: Sequence[int]) -> None:
        """Give the network its input shape (without the batch) and its weights; nothing happens if it has them.

        Raises:
            InvalidInput: the network has no layers, or was built for another shape; names the layer, what it got and
                what it expects.
        """
        shape = tuple(int(s) for s in input_shape)
        if not self.layers:
            raise InvalidInput(f"the model {self.name!r} has no layers; add one first")
        if self.input_layer is not None:
            self.check_input(shape)
        else:
            self._build(shape)
            self.input_layer = InputLayer(shape, name="input")

    def check_input(self, shape: Shape) -> None:
        """Refuse samples of another shape than the one that the network is built for."""
        expected, first = self.input_shape, self.layers[0]
        if expected is not None and shape != expected:
            raise InvalidInput(
                f"{type(first).__name__} {first.name!r} got samples of shape {shape} but expects {expected}"
                f"{slip(shape, expected)}"
            )

    def _build(self, shape: Shape) -> None:
        offsets = [0, 0]
        slots: list[Slot] = []
        fresh: list[Callable[[], Array]] = []
        shapes: list[tuple[Shape, Shape]] = []
        for index, layer in enumerate(self.layers):
            output = layer.output_shape_for(shape)
            for number, spec in enumerate(layer.weight_specs(shape)):
                trainable = spec.trainable and layer.trainable
                slot = Slot(
                    layer.name,
                    spec.name,
                    tuple(spec.shape),
                    trainable,
                    offsets[trainable],
                    spec.regularizer,
                    spec.constraint,
                )
                for rule in (spec.regularizer, spec.constraint):
                    if rule is not None:
                        rule.check(f"the weight {slot.path}", slot.shape)
                offsets[trainable] += slot.size
                slots.append(slot)
                fill, size = spec.initializer.fill, slot.shape
                fresh.append(lambda f=fill, s=size, i=index, n=number: f(s, initial_stream(self.seed, i, n)))  # type: ignore[misc]
            if layer.activity_regularizer is not None:
                layer.activity_regularizer.check(f"the output of {layer.name!r}", (1, *output))
            shapes.append((shape, output))
            shape = output
        old = {s.path: s.view(self.params if s.trainable else self.fixed) for s in self.slots}
        fixed, params = (np.empty(size, self.dtype) for size in offsets)
        for slot, values in zip(slots, fresh, strict=True):
            slot.view(params if slot.trainable else fixed)[...] = old[slot.path] if slot.path in old else values()
        self.slots, self.params, self.fixed, self.built = slots, params, fixed, True
        self.frozen = frozenset(layer.name for layer in self.layers if not layer.trainable)
        for layer, (layer.input_shape, layer.output_shape) in zip(self.layers, shapes, strict=True):
            layer.arrays = self.arrays_of(layer, params, fixed)

    @property
    def words(self) -> int | None:
        """If the input is whole numbers for an Embedding: how many different ones it knows."""
        for layer in self.layers:
            if layer.words is not None:
                return layer.words
            if not layer.passes(training=False) or layer.followed_by is not linear:
                return None
        return None

    def drop_masks(self) -> list[Layer]:
        """The layers that get a mask, do not know of masks, and so neither heed it nor pass it on."""
        masked, found = False, []
        for layer in self.layers:
            if masked and not (layer.supports_masking or layer.makes_mask or layer.ends_mask):
                found.append(layer)
            masked = layer.makes_mask or (masked and layer.supports_masking)
        return found

    def split_differs(self) -> bool:
        """Whether layers' `trainable` was changed since this was built."""
        if not self.built:
            return False
        learning = [
            weight.trainable and layer.trainable
            for layer in self.layers
            for weight in layer.weight_specs(layer.input_shape or ())
        ]
        frozen = frozenset(layer.name for layer in self.layers if not layer.trainable)
        return frozen != self.frozen or learning != [slot.trainable for slot in self.slots]

    def resplit(self) -> Self:
        """This network, or, if layers' `trainable` was changed since it was built, one with the weights split anew.

        That one has the same layers, and a copy of the weights; the layers' `arrays` are views of it from now on.
        """
        if not self.split_differs():
            return self
        twin = self.twin()
        assert self.input_shape is not None
        twin._build(self.input_shape)
        return twin

    def claim(self) -> None:
        """Make the layers' `arrays` views of this network's weights."""
        for layer in self.layers:
            layer.arrays = self.arrays_of(layer, self.params, self.fixed)

    # Weights

    def arrays_of(self, layer: Layer, params: Array, fixed: Array | None) -> dict[str, Array]:
        """The weights of a layer by name, as views of these flat arrays; without `fixed` the trained ones."""
        return {
            s.name: s.view(params if s.trainable else fixed)  # type: ignore[arg-type]
            for s in self.slots
            if s.layer == layer.name and (s.trainable or fixed is not None)
        }

    def get_weights(self) -> list[Array]:
        """Copies of all weights in Keras's order: layer by layer, kernel before bias."""
        return [s.view(self.params if s.trainable else self.fixed).copy() for s in self.slots]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights; `weights` are arrays in the order of `get_weights`.

        Raises:
            InvalidInput: a number or shape differs, or they hold no real numbers; nothing was changed.
        """
        self.require_built("set_weights")
        if not isinstance(weights, Sequence | np.ndarray):
            raise InvalidInput(f"set_weights takes a list of arrays, as get_weights() gives it, not {weights!r}")
        if len(weights) != len(self.slots):
            raise InvalidInput(
                f"{self.name!r} has {len(self.slots)} weights ({', '.join(s.path for s in self.slots)}), "
                f"but {len(weights)} were given"
            )
        arrays = [np.asarray(w) for w in weights]
        for slot, array in zip(self.slots, arrays, strict=True):
            if array.shape != slot.shape:
                raise InvalidInput(f"the weight {slot.path} has the shape {slot.shape}, but {array.shape} was given")
            if array.dtype.kind not in "fiub":
                raise InvalidInput(f"the weight {slot.path} takes real numbers, but {array.dtype} was given")
        places = [slot.view(self.params if slot.trainable else self.fixed) for slot in self.slots]
        converted = [array.astype(place.dtype) for place, array in zip(places, arrays, strict=True)]  # all, or none
        for place, array in zip(places, converted, strict=True):
            place[...] = array

    def count_params(self) -> int:
        self.require_built("count_params")
        return self.params.size + self.fixed.size

    def require_built(self, what: str) -> None:
        """Refuse `what`, because it needs weights."""
        if not self.built:
            raise InvalidInput(
                f"{what}: {self.name!r} has no weights yet; begin with Input((features,)), give the first layer "
                "input_shape=, or fit first"
            )

    def twin(self, params: Array | None = None, fixed: Array | None = None) -> Self:
        """The same layers in a network of its own, which may get more of them without this one noticing.

        It shares the flat arrays of this one, or has those given; the layers' own `arrays` stay this one's.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.layers = list(self.layers)
        twin.params = self.params if params is None else params
        twin.fixed = self.fixed if fixed is None else fixed
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled network has its layers' arrays as views of its flat arrays again."""
        self.__dict__.update(state)
        if self.built:
            self.claim()

    # Execution

    @property
    def random(self) -> bool:
        """Whether training draws random numbers."""
        return any(layer.is_random() for layer in self.layers)

    def plan(
        self,
        rows: int,
        workspace: Workspace,
        *,
        params: Array | None = None,
        fixed: Array | None = None,
        grads: Array | None = None,
        dice: Dice | None = None,
        penalties: list[Penalty] | None = None,
        given: Array | None = None,
    ) -> Plan:
        """The calls for `rows` samples, on the live weights or on other flat arrays; with `grads`, for training.

        What layers' outputs cost by their activity regularizers is appended to `penalties`, unless that is None. An
        input that is `given` is bound as it lies, if that can be: then the plan's `x` is that array.
        """
        self.require_built("plan")
        params, fixed = self.params if params is None else params, self.fixed if fixed is None else fixed
        return Plan(
            self.layers,
            rows,
            workspace,
            dice or Dice(),
            lambda layer: self.arrays_of(layer, params, fixed),
            None if grads is None else lambda layer: self.arrays_of(layer, grads, None),
            penalties,
            self.frozen,
            given,
        )

    # Description

    def get_config(self) -> dict[str, Any]:
        """`{"name", "layers": [{"class_name", "config"}, …]}` in the dialect that Keras 2, Keras 3 and TF.js read."""
        inputs = [self.input_layer] if self.input_layer else []
        return configs.write(self.name, [*inputs, *self.layers])

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        custom_objects: Mapping[str, type[Layer]] | None = None,
        seed: int | None = None,
    ) -> Self:
        """The network that a Keras 3, Keras 2 or TF.js config describes, with new weights.

        Raises:
            InvalidInput: a layer or option that we do not have; the message names it.
        """
        name, layers = configs.read(config, custom_objects or {})
        return cls(layers, name=name, seed=seed)

    def summary_lines(self) -> list[str]:
        """The table that Keras's `summary()` prints, line by line."""
        return summary_lines(self.name, self.layers, self.params.size, self.fixed.size)


def slip(found: Shape, expected: Shape) -> str:
    """What was probably meant, as the end of a message about two shapes."""
    if not found:
        return "; reshape x to (rows, 1)" if expected == (1,) else "; x needs one row for each sample"
    if math.prod(found) == math.prod(expected):
        if len(expected) == 1:
            return f"; put Flatten(input_shape={found}) first"
        return f"; reshape x to (rows, {', '.join(map(str, expected))})"
    return "; build the model anew for other data"
