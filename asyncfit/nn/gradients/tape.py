"""The array that notes what is done with it, and the way back over those notes.

A `Value` holds an array and where it came from: for each `Value` that it was computed of, a call that turns a gradient
by the result into one by that operand. What is no `Value` is a constant. Rules are entered by `rule` (ufuncs) and
`function` (everything else of NumPy); what has no rule raises `Unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, DType, Shape

__all__ = ["FUNCTIONS", "UFUNCS", "Unknown", "Value", "made", "plain", "traced", "unbroadcast"]

Pull = Callable[[Array], Array]
UFUNCS: dict[np.ufunc, Callable[..., Any]] = {}
"""By ufunc: `f(out, *operands)` that gives a pull for each operand, or None for one that has no influence."""
CONSTANT: set[Any] = set()
"""What gives a plain array, because its result does not change with its operands, or jumps."""
FUNCTIONS: dict[Any, Callable[..., Any]] = {}
REDUCTIONS: dict[np.ufunc, Any] = {np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min}
WAY_OUT = (
    "write it with functions that have a rule (elementwise ones, sums, means, products, extrema, matmul, where, "
    "concatenate, indexing …), return (values, gradient) from a loss, or derive from asyncfit's Loss, Activation or "
    "Layer and write its gradient yourself"
)


class Unknown(InvalidInput, TypeError):
    """A gradient was asked for through something that has none here; the message names it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {WAY_OUT}")


class Value:
    """An array whose gradient somebody will ask for. It acts as the array does in operators and NumPy's functions."""

    __slots__ = ("array", "number", "pulls")
    _count = 0

    def __init__(self, array: Array, pulls: tuple[tuple[Value, Pull], ...] = ()) -> None:
        self.array, self.pulls = array, pulls
        Value._count += 1
        self.number = Value._count

    # What NumPy asks for

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        if not how and method == "__call__" and (rule := UFUNCS.get(ufunc)) is not None:
            return _noted(ufunc, rule, inputs, how)  # the usual way, without further questions
        if method == "reduce" and ufunc in REDUCTIONS and how.get("out") in (None, (None,)):
            how.pop("out", None)
            axis = how.pop("axis", inputs[1] if len(inputs) > 1 else 0)
            return FUNCTIONS[REDUCTIONS[ufunc]](inputs[0], axis=axis, **how)
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if how.get("out") is not None:
            raise Unknown(f"np.{name}(out=…) overwrites an array, which has no gradient")
        if how.keys() - {"dtype"}:
            raise Unknown(f"np.{name} with {', '.join(f'{key}=' for key in how)} has no gradient here")
        if method != "__call__":
            raise Unknown(f"np.{name} has no gradient here")
        if ufunc in CONSTANT:
            return ufunc(*(plain(one) for one in inputs), **how)
        rule = UFUNCS.get(ufunc)
        if rule is None:
            raise Unknown(f"np.{name} has no gradient here")
        return _noted(ufunc, rule, inputs, how)

    def __array_function__(self, function: Any, types: Any, args: Any, how: Any) -> Any:
        if function in CONSTANT:
            return function(*(_all_plain(one) for one in args), **{k: _all_plain(v) for k, v in how.items()})
        rule = FUNCTIONS.get(function)
        if rule is None:
            raise Unknown(f"np.{function.__name__} has no gradient here")
        if how.get("out") is not None:
            raise Unknown(f"np.{function.__name__}(out=…) overwrites an array, which has no gradient")
        how.pop("out", None)
        return rule(*args, **how)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise Unknown("turning a value into a plain array (np.array, np.asarray, a function that is not NumPy's) loses "
                      "its gradient")  # fmt: skip

    def __float__(self) -> float:
        raise Unknown("float() loses the gradient of a value")

    __int__ = __index__ = __complex__ = None

    def __bool__(self) -> bool:
        return bool(self.array)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise Unknown("assigning to a part of an array has no gradient (use np.where or np.concatenate)")

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(one, Value) for one in keys):
            raise Unknown("indexing by computed values has no gradient (by integers and bools it has)")
        shape, dtype = self.array.shape, self.array.dtype
        simple = all(one is None or one is Ellipsis or isinstance(one, int | slice | np.integer) for one in keys)

        def pull(g: Array) -> Array:
            found = np.zeros(shape, dtype)
            if simple:
                found[key] = g
            else:
                np.add.at(found, key, g)
            return found

        return made(self.array[key], (self, pull))

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<traced {self.array!r}>"

    # What an array has

    @property
    def shape(self) -> Shape:
        return self.array.shape

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return self.array.size

    @property
    def dtype(self) -> DType:
        return self.array.dtype

    @property
    def T(self) -> Any:  # noqa: N802
        return np.transpose(self)

    def reshape(self, *shape: Any, **how: Any) -> Any:
        return FUNCTIONS[np.reshape](self, shape[0] if len(shape) == 1 else shape, **how)

    def transpose(self, *axes: Any) -> Any:
        return FUNCTIONS[np.transpose](self, axes[0] if len(axes) == 1 else axes or None)

    def flatten(self) -> Any:
        return self.reshape(-1)

    def astype(self, dtype: Any, **how: Any) -> Any:
        dtype = np.dtype(dtype)
        if dtype.kind != "f":
            return self.array.astype(dtype, **how)  # a step function: constant
        mine = self.array.dtype
        return made(self.array.astype(dtype), (self, lambda g: g.astype(mine)))

    def copy(self, order: str = "C") -> Value:
        return self

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            function = getattr(np, name)
            return lambda *args, **how: function(self, *args, **how)
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(np.ndarray, name):
            raise Unknown(f"an array's {name} has no gradient here")
        raise AttributeError(f"an array has no attribute {name!r}")


METHODS = {
    "all", "any", "argmax", "argmin", "argsort", "clip", "cumsum", "dot", "max", "mean", "min", "prod", "ravel",
    "repeat", "round", "squeeze", "std", "sum", "swapaxes", "take", "trace", "var",
}  # fmt: skip
OPERATORS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
    "matmul": np.matmul, "mod": np.remainder, "floordiv": np.floor_divide,
}  # fmt: skip
COMPARISONS = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip


def _enter_operators() -> None:
    def forth(ufunc: np.ufunc) -> Any:
        return lambda self, other: ufunc(self, other)

    def back(ufunc: np.ufunc) -> Any:
        return lambda self, other: ufunc(other, self)

    for name, ufunc in OPERATORS.items():
        setattr(Value, f"__{name}__", forth(ufunc))
        setattr(Value, f"__r{name}__", back(ufunc))
    for name, ufunc in COMPARISONS.items():
        setattr(Value, f"__{name}__", forth(ufunc))
    for name, ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute}.items():
        setattr(Value, f"__{name}__", lambda self, ufunc=ufunc: ufunc(self))
    Value.__hash__ = object.__hash__  # type: ignore[method-assign]


_enter_operators()


def plain(value: Any) -> Any:
    return value.array if isinstance(value, Value) else value


def _all_plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_all_plain(one) for one in value)
    return plain(value)


def _noted(ufunc: np.ufunc, rule: Callable[..., Any], inputs: tuple[Any, ...], how: dict[str, Any]) -> Value:
    operands = [one.array if isinstance(one, Value) else one for one in inputs]
    out = np.asarray(ufunc(*operands, **how))
    pulls = [
        (one, _fitted(pull, one.array))
        for one, pull in zip(inputs, rule(out, *operands), strict=True)
        if isinstance(one, Value) and pull is not None
    ]
    return Value(out, tuple(pulls))


def made(array: Any, *pulls: tuple[Value, Pull]) -> Value:
    return Value(np.asarray(array), pulls)


def unbroadcast(g: Array, shape: Shape) -> Array:
    """The sum over what was repeated when an array of `shape` met others."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, size in enumerate(shape) if size == 1 and g.shape[i + extra] != 1
    )
    return np.asarray(g.sum(axis=axes, keepdims=True) if axes else g).reshape(shape)


def _fitted(pull: Pull, operand: Array) -> Pull:
    shape, dtype = operand.shape, operand.dtype

    def fitted(g: Array) -> Array:
        found = np.asarray(pull(g))
        if found.shape != shape:
            found = unbroadcast(found, shape)
        return found if found.dtype == dtype else found.astype(dtype)

    return fitted


def traced(function: Callable[..., Any], *arrays: Array) -> tuple[Any, Callable[[Any, Array], list[Array]]]:
    """What the function gives for the arrays, and the way back.

    Returns:
        The result as it is (a `Value`, or what does not depend on the arrays), and `back(value, g)`: for the gradient
        `g` of something by `value`, that by each of `arrays`.

    Raises:
        Unknown: the function does something that has no gradient here.
    """
    values = [Value(array) for array in arrays]
    result = function(*values)

    def back(end: Any, g: Array) -> list[Array]:
        found: dict[Value, Array] = {}
        if isinstance(end, Value):
            g = np.asarray(g, end.dtype)
            found[end] = g if g.shape == end.shape else np.broadcast_to(g, end.shape)
            for value in _in_turn(end):
                own = found.get(value)
                if own is None or not value.pulls:
                    continue
                for operand, pull in value.pulls:
                    part, there = pull(own), found.get(operand)
                    found[operand] = part if there is None else there + part
                del found[value]
        return [found[value] if value in found else np.zeros_like(value.array) for value in values]

    return result, back


def _in_turn(end: Value) -> list[Value]:
    """All that `end` was computed of, each before its operands."""
    seen, waiting = {end.number: end}, [end]
    while waiting:
        for operand, _ in waiting.pop().pulls:
            if operand.number not in seen:
                seen[operand.number] = operand
                waiting.append(operand)
    return [seen[number] for number in sorted(seen, reverse=True)]
