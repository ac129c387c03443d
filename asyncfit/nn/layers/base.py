"""What a layer is: settings, the shapes of its weights and output, and a plan of its arithmetic.

A layer holds no work buffers: `plan` binds the arrays of one execution into calls, so one layer may be executed by
several threads at once, each with its own workspace. Subclass it for a layer of your own::

    class Scale(Layer):
        '''y = x · factor, one factor per feature.'''

        def weight_specs(self, input_shape):
            return [Weight("factor", input_shape[-1:], initializers.get("ones"))]

        def plan(self, at):
            factor = at.weights["factor"]
            at.forward.append(lambda: np.multiply(at.x, factor, at.y))
            if at.dy is not None:
                at.backward.append(lambda: np.sum(at.x * at.dy, axis=0, out=at.grads["factor"]))
                if at.dx is not None:
                    at.backward.append(lambda: np.multiply(at.dy, factor, at.dx))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import snake
from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.activations import Activation, linear
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.constraints import Constraint
from asyncfit.nn.initializers import Initializer
from asyncfit.nn.naming import CheckedKeywords, keywords_of, plain_config
from asyncfit.nn.regularizers import Regularizer, RegularizerLike
from asyncfit.nn.workspace import Place

__all__ = ["Layer", "Weight", "shape_of"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that a layer asks for; `trainable=False` is for statistics that no gradient changes.

    While it is trained, the penalty of its `regularizer` counts in the loss and its `constraint` holds after each step.
    """

    name: str
    shape: Shape
    initializer: Initializer
    trainable: bool = True
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None


SETTINGS: dict[str, Any] = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}
"""What a layer's settings say of each of its weights, as `kernel_initializer`, and where that is read and written."""


class Layer(CheckedKeywords):
    """Base of all layers. `input_shape` (without the batch) is for the first layer of a model.

    Attributes:
        name: unique in its model; given or made when the layer is added: `dense`, `dense_1`, …
        activation: what follows the layer's own arithmetic; `plan` need not care (but see `followed_by`).
        supports_masking: whether the mask of the input, if it has one, is that of the output as well (Keras's name).
        ends_mask: whether the layer makes use of a mask, so that it may end here.
        makes_mask: whether the layer finds a mask itself, of `mask_shape_for`: `plan` writes `Place.new_mask`.
        order: how images and sequences lie in `Place`: "rows" (in C order), "planes" (see plan.py), or "any": input and
            output lie alike, whichever way.
        rows_apart: whether each row of the output depends on that row of the input alone.
        takes_integers: whether the layer would rather have whole numbers than floats as `Place.x`.
        words: how many different ones there may be, from 0; None if that does not matter.
        trainable: whether its weights are trained; a change holds once the model is compiled again.
        input_shape, output_shape: without the batch; None until the model is built.
        arrays: the live weights by name, views of the network's flat array; empty until the model is built.
    """

    activation: Activation = linear
    supports_masking: bool = False
    ends_mask: ClassVar[bool] = False
    makes_mask: bool = False
    order: ClassVar[str] = "rows"
    takes_integers: bool = False
    words: int | None = None
    rows_apart: ClassVar[bool] = True
    ignored_options: ClassVar[tuple[str, ...]] = ("dtype", "batch_input_shape", "batch_shape", "ragged", "sparse")
    off_options: ClassVar[Mapping[str, object]] = {}

    def __init__(
        self,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
        activity_regularizer: RegularizerLike = None,
    ) -> None:
        if name is not None and not _is_name(name):
            raise InvalidInput(f"the name of a layer is a text that can be kept in a file, without '/', not {name!r}")
        self.given_name = name
        self.name = name or snake(type(self).__name__)
        where = f"{type(self).__name__}(input_shape=…)"
        self.given_shape = None if input_shape is None else shape_of(where, input_shape)
        self.trainable = bool(trainable)
        self.activity_regularizer = activity_regularizer
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None
        self.arrays: dict[str, Array] = {}

    # What a kind of layer overrides

    @property
    def followed_by(self) -> Activation:
        """What the plan puts behind the layer's own calls: its `activation`, unless that works inside (LSTM …)."""
        return self.activation

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        """The weights for inputs of this shape, trained ones first."""
        return ()

    def output_shape_for(self, input_shape: Shape) -> Shape:
        """The shape of the output; raises InvalidInput for an input that the layer cannot take."""
        return input_shape

    def mask_shape_for(self, input_shape: Shape) -> Shape:
        """The shape of the mask that a layer with `makes_mask` finds."""
        raise NotImplementedError(f"{type(self).__name__} has no mask_shape_for()")

    def wants_ones(self, input_shape: Shape) -> bool:
        """Whether the plan shall hand the input with a column of ones behind it (`Place.ones`)."""
        return False

    def passes(self, training: bool) -> bool:
        """Whether the output is the input, reshaped at most: then `plan` is not called, and nothing is computed."""
        return False

    def is_random(self) -> bool:
        """Whether training draws random numbers."""
        return False

    def plan(self, at: Place) -> None:
        """Append to `at.forward` the calls that write `at.y`, and, if `at.dy` is not None, to `at.backward` those that
        overwrite `at.grads` and (unless it is None) `at.dx`. The calls take no arguments: bind the arrays here.
        """
        raise NotImplementedError(f"{type(self).__name__} has no plan()")

    def absorbs(self, following: Layer) -> bool:
        """Whether `plan_with` computes this layer and the following one better than the two by themselves."""
        return False

    def plan_with(self, at: Place, following: Layer) -> None:
        """`plan` for this layer and the following one: `at.y` is the output of that. `activation` comes after both."""
        raise NotImplementedError(f"{type(self).__name__} has no plan_with()")

    def get_config(self) -> dict[str, Any]:
        """Settings as plain JSON types, in the dialect that Keras 2, Keras 3 and TF.js all read."""
        found = {"name": self.name, "trainable": self.trainable, "dtype": "float32"}
        if self.activity_regularizer is not None:
            found["activity_regularizer"] = regularizers.config(self.activity_regularizer)
        return found

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        given, penalty = dict(config), None
        if "activity_regularizer" not in keywords_of(cls)[0]:  # type: ignore[arg-type]
            penalty = given.pop("activity_regularizer", None)
        made = cls(**plain_config(cls, given, ignored=cls.ignored_options, off=cls.off_options))
        assert isinstance(made, cls)
        if penalty is not None:
            made.activity_regularizer = penalty
        return made

    @property
    def activity_regularizer(self) -> Regularizer | None:
        """The penalty on the layer's output that counts in the loss, divided by the number of rows.

        Layers that do not take it as a keyword have it set, before the model is compiled.
        """
        return self._activity_regularizer

    @activity_regularizer.setter
    def activity_regularizer(self, given: RegularizerLike) -> None:
        self._activity_regularizer = regularizers.get(given)

    # Weights

    def weight(self, name: str, shape: Shape, of: str | None = None) -> Weight:
        """A weight with what the layer's settings say of it: `kernel_initializer`, `kernel_regularizer` … for "kernel".

        `of` is for a weight that goes by another name there: "beta" for `beta_initializer`.
        """
        of = of or name
        initializer: Initializer = getattr(self, f"{of}_initializer")
        regularizer, constraint = (getattr(self, f"{of}_{what}", None) for what in ("regularizer", "constraint"))
        return Weight(name, tuple(shape), initializer, True, regularizer, constraint)

    def weight_config(self, *names: str) -> dict[str, Any]:
        """Those settings of the weights so named, for `get_config`."""
        return {
            f"{name}_{what}": module.config(getattr(self, f"{name}_{what}", None))
            for what, module in SETTINGS.items()
            for name in names
        }

    @property
    def weights(self) -> list[Array]:
        """The live weights; changing them changes the model."""
        return list(self.arrays.values())

    def get_weights(self) -> list[Array]:
        """Copies of the weights."""
        return [a.copy() for a in self.weights]

    def count_params(self) -> int:
        return sum(a.size for a in self.weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def shape_of(where: str, given: int | Sequence[int] | None) -> Shape:
    """A shape without the batch, as a tuple of whole numbers above 0; an int is a vector's length."""
    sizes = (given,) if isinstance(given, int | np.integer) else given
    try:
        shape = tuple(int(s) for s in sizes)  # type: ignore[union-attr]
    except TypeError:
        raise InvalidInput(f"{where} must be a shape of whole numbers without the batch, not {given!r}") from None
    if not shape or any(s < 1 or s != given_size for s, given_size in zip(shape, sizes or (), strict=True)):
        raise InvalidInput(f"{where} must be a shape of whole numbers from 1 without the batch, not {given!r}")
    return shape


def _is_name(name: object) -> bool:
    """Whether a layer can be called so: text that names a group of a file."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeError:
        return False
    return True
