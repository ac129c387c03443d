"""What a layer is: settings, the shapes of its weights and output, and a plan of its arithmetic.

A layer holds no work buffers: `plan` binds the arrays of one execution into calls, so one layer may be executed by
several threads at once, each with its own workspace. Users' layers have a `call` instead, or a `plan` where speed
counts: see `Layer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.names import snake
from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.activations import Activation, linear
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import Initializer, InitializerLike
from asyncfit.nn.naming import CheckedKeywords, keywords_of, plain_config
from asyncfit.nn.regularizers import Regularizer, RegularizerLike
from asyncfit.nn.workspace import Place

from .called import Asked, checked_call, checked_shape, is_plain, plan_call, shape_by_call
from .weights import Weight

__all__ = ["Layer", "Weight", "shape_of"]


SETTINGS: dict[str, Any] = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}
"""What a layer's settings say of each of its weights, as `kernel_initializer`, and where that is read and written."""


class Layer(CheckedKeywords):
    """Base of all layers, and of your own. `input_shape` (without the batch) is for the first layer of a model.

    A layer of your own is a subclass with a `call`, written in NumPy, as in Keras::

        class Scaled(Layer):
            '''y = x @ kernel · factor'''

            def __init__(self, units, **kwargs):  # name=, input_shape=, trainable=, activity_regularizer=
                super().__init__(**kwargs)
                self.units = units

            def build(self, input_shape):  # (None, …, features)
                self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
                self.factor = self.add_weight(shape=(self.units,), initializer="ones", name="factor")

            def call(self, x):  # (rows, …, features)
                return x @ self.kernel * self.factor

            def get_config(self):
                return {**super().get_config(), "units": self.units}

    - `call` takes the input, `(rows, *input_shape)`, and if its parameters are named so `training` (a bool), `mask`
      (which steps of the input count, or None) and `rng`: in training a `numpy.random.Generator` whose numbers are a
      function of the run's seed, the layer, the epoch and the step, so that a run that is resumed draws the same; None
      elsewhere. Other random numbers are not found again.
    - It gives an array with the batch as its first axis and at least one more. Gradients by the input and the weights
      are found by noting what it does: operators, NumPy's elementwise functions, sums, means, extrema, products,
      matmul, einsum, where, concatenate, reshaping, indexing, asyncfit's activations. What has no gradient is named in
      an error. In training arrays are thus not `numpy.ndarray`, and nothing may be written into them.
    - Weights that no gradient changes, `add_weight(trainable=False)`, are changed by `self.mean.assign(…)` if
      `training`. What else `call` sets on `self` would be lost, and is an error.
    - The shape of the output is found by one call with zeros, unless there is a
      `compute_output_shape(self, input_shape)`, from and to shapes with None for the batch.
    - A mask goes on unchanged to the next layer if `supports_masking = True`, as in Keras; it has the first axes of the
      output. Else it ends here, and `compile` logs a warning unless `call` takes it.
    - `rows_apart = False` belongs to a layer whose rows influence each other, as statistics of the batch do.
    - Layers inside of such a layer are not supported. Outside of `call` the weights are `layer.arrays[name]`.
    - `get_config` may be left out if each keyword of `__init__` is kept in an attribute of the same name, and is a
      plain number, text, list or dict. `load_model(…, custom_objects={"Scaled": Scaled})` makes it again.
      In a process of its own the class must be importable: defined in a module, not in the script or a function.

    Where speed counts, bound calls that allocate nothing take the place of `build` and `call`, and gradients are
    written by hand::

        class Scale(Layer):
            '''y = x · factor, one factor per feature.'''

            def weight_specs(self, input_shape):
                return [Weight("factor", input_shape[-1:], initializers.Ones())]

            def plan(self, at):
                factor = at.weights["factor"]
                at.forward.append(lambda: np.multiply(at.x, factor, at.y))
                if at.dy is not None:
                    at.backward.append(lambda: np.sum(at.x * at.dy, axis=0, out=at.grads["factor"]))
                    if at.dx is not None:
                        at.backward.append(lambda: np.multiply(at.dy, factor, at.dx))

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
    rows_apart: bool = True
    ignored_options: ClassVar[tuple[str, ...]] = ("dtype", "batch_input_shape", "batch_shape", "ragged", "sparse")
    off_options: ClassVar[Mapping[str, object]] = {}
    _extras: ClassVar[tuple[str, ...] | None] = None
    """What its `call` takes besides the input; None without a `call`."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "call" in cls.__dict__:
            cls._extras = checked_call(cls, cls.call)
            cls.ends_mask = cls.ends_mask or "mask" in cls._extras
        if cls._extras is not None and cls.plan is not Layer.plan:
            raise TypeError(f"{cls.__name__} has a call() and a plan(); a layer has one of the two")

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
        self._asked = Asked()

    # What a user's layer with a `call` overrides

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Ask for weights by `add_weight`, for inputs of this shape, the batch (None) included."""

    def call(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The output for an input."""
        raise NotImplementedError(f"{type(self).__name__} has no call()")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output, the batch (None) included."""
        raise NotImplementedError(f"{type(self).__name__} has no compute_output_shape()")

    def add_weight(
        self,
        shape: int | Sequence[int] = (),
        initializer: InitializerLike | None = None,
        *,
        dtype: Any = None,
        trainable: bool = True,
        regularizer: RegularizerLike = None,
        constraint: ConstraintLike = None,
        name: str | None = None,
    ) -> Any:
        """Ask for a weight, in `__init__` or `build`; what it gives stands for it in `call`.

        Args:
            shape: `()` is a single number.
            initializer: "glorot_uniform" if left out.
            dtype: taken for Keras's sake; weights have the type of the model, float32.
            trainable: False for what no gradient changes.
            regularizer, constraint: what it costs while it is trained, and what holds for it after each step.
            name: under which it is saved; unique in the layer; "variable", "variable_1" … if left out.

        Raises:
            InvalidInput: a wrong shape or name, an unknown initializer, or it is too late.
        """
        where = f"{type(self).__name__}.add_weight"
        if name is not None and not _is_name(name):
            raise InvalidInput(f"{where}(name=…) is a text that can be kept in a file, without '/', not {name!r}")
        if dtype is not None and str(getattr(dtype, "__name__", dtype)) not in ("float32", "float"):
            raise InvalidInput(f"{where}(dtype=…): weights are float32, not {dtype!r}")
        empty = not isinstance(shape, int | np.integer | str) and not len(shape)
        weight = Weight(
            name or "",
            () if empty else shape_of(f"{where}(shape=…)", shape),
            initializers.get("glorot_uniform" if initializer is None else initializer),
            bool(trainable),
            regularizers.get(regularizer),
            constraints.get(constraint),
        )
        return self._asked.add(self, weight)

    # What a kind of layer overrides

    @property
    def followed_by(self) -> Activation:
        """What the plan puts behind the layer's own calls: its `activation`, unless that works inside (LSTM …)."""
        return self.activation if self._extras is None else linear

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        """The weights for inputs of this shape, trained ones first."""
        return () if self._extras is None else self._asked.all(self, input_shape)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        """The shape of the output; raises InvalidInput for an input that the layer cannot take."""
        if self._extras is None:
            return input_shape
        specs = self.weight_specs(input_shape)
        known = self._asked.outputs
        if input_shape not in known:
            if type(self).compute_output_shape is Layer.compute_output_shape:
                shape = shape_by_call(self, input_shape, self._extras, specs)
            else:
                given = self.compute_output_shape((None, *input_shape))
                shape = checked_shape(self, "compute_output_shape()", given, None)
            if self.supports_masking and shape[:1] != input_shape[:1] and len(input_shape) > 1:
                raise InvalidInput(
                    f"{type(self).__name__} {self.name!r} makes {shape} of {input_shape}, so a mask of its input's "
                    "steps does not fit its output; leave out supports_masking = True"
                )
            known[input_shape] = shape
        return known[input_shape]

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
        return "rng" in (self._extras or ())

    def plan(self, at: Place) -> None:
        """Append to `at.forward` the calls that write `at.y`, and, if `at.dy` is not None, to `at.backward` those that
        overwrite `at.grads` and (unless it is None) `at.dx`. The calls take no arguments: bind the arrays here.
        """
        if self._extras is None:
            raise NotImplementedError(f"{type(self).__name__} has no call(), and no plan()")
        assert self.input_shape is not None
        plan_call(self, at, self._extras, self.weight_specs(self.input_shape))

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
        if self._extras is not None and type(self).get_config is Layer.get_config:
            for keyword in keywords_of(type(self))[0]:  # type: ignore[arg-type]
                if keyword not in (*keywords_of(Layer)[0], *self.ignored_options):
                    found[keyword] = self._plain(keyword)
        return found

    def _plain(self, keyword: str) -> Any:
        """A keyword of `__init__` for the config."""
        value = getattr(self, keyword, self)
        if not is_plain(value):
            raise InvalidInput(
                f"{type(self).__name__} {self.name!r} keeps no plain {keyword!r} in self.{keyword}, so it cannot be "
                "saved by itself; add get_config(self), which gives {**super().get_config(), "
                f"{keyword!r}: …}}"
            )
        return value

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
    if isinstance(sizes, Sequence) and None in sizes:
        raise InvalidInput(
            f"{where} must be a shape of whole numbers without the batch, not {given!r}; where None means any length, "
            "give the greatest, and pad what is shorter with zeros, which Embedding(mask_zero=True) or Masking() leave "
            "out"
        )
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
