"""Bad input, told before anything runs: what was given, what was expected, what to do.

Only shapes, types and ranges are looked at, never the data, so this is cheap and may run on an event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import DType, Shape
from .losses import Loss
from .metrics import Metric

__all__ = ["check_samples", "check_targets", "check_weights"]


def check_samples(dtype: DType | type | str) -> None:
    """Samples are numbers that float32 can hold."""
    numeric("x", np.dtype(dtype))


def check_targets(
    loss: Loss,
    metrics: Iterable[Metric],
    output: Shape,
    targets: Sequence[int],
    dtype: DType | type | str,
    limits: tuple[float, float] | None,
) -> None:
    """Targets must fit the loss and the output; shapes are without the batch.

    Args:
        limits: the smallest and the largest target, if known; labels are checked to be classes of the output.
    """
    targets, dtype = tuple(targets), np.dtype(dtype)
    numeric("y", dtype)
    if loss.sparse:
        if targets not in (output[:-1], (*output[:-1], 1)):
            one_hot = "; one-hot targets go with 'categorical_crossentropy'" if targets == output else ""
            raise InvalidInput(
                f"{loss.name} takes one class number for each prediction, y of shape {with_batch(output[:-1])}, "
                f"but y has the shape {with_batch(targets)}{one_hot}"
            )
        if output[-1] < 2:
            raise InvalidInput(
                f"{loss.name} needs one output for each class, but the model ends with {output[-1]}; "
                "for two classes and one output use 'binary_crossentropy'"
            )
        if limits is not None:
            labels(loss.name, output[-1], limits, getattr(loss, "ignore_class", None))
    elif not loss.called and not fits(output, targets):
        hint = ""
        if of_classes(loss) and targets in (output[:-1], (*output[:-1], 1)):
            hint = "; for class numbers use 'sparse_categorical_crossentropy'"
        elif len(targets) == len(output):
            hint = f"; give the last layer {targets[-1]} unit{'s' * (targets[-1] != 1)}, or other targets"
        raise InvalidInput(
            f"the model gives outputs of shape {with_batch(output)}, so {loss.name} needs y of that shape, "
            f"not {with_batch(targets)}{hint}"
        )
    if of_classes(loss) and output[-1] < 2:
        raise InvalidInput(
            f"{loss.name} needs one output for each class, but the model ends with 1; use 'binary_crossentropy'"
        )
    for metric in metrics:
        if metric.sparse and targets not in (output[:-1], (*output[:-1], 1)):
            raise InvalidInput(f"the metric {metric.name} takes class numbers, not y of shape {with_batch(targets)}")
        if metric.sparse is False and not fits(output, targets):
            raise InvalidInput(
                f"the metric {metric.name} needs y of the output's shape {with_batch(output)}, "
                f"not {with_batch(targets)}"
            )


def labels(loss: str, classes: int, limits: tuple[float, float], ignored: int | None) -> None:
    """Class numbers must be those of outputs. Where one that stands for "ignore" is the lowest or the highest target,
    the next to it is not known, and not looked at.
    """
    low, high = (0.0 if limit == ignored else limit for limit in limits)
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > classes - 1:
        raise InvalidInput(
            f"{loss} takes class numbers from 0 to {classes - 1}, because the model ends with {classes} units, "
            f"but y goes from {low:g} to {high:g}"
            f"{'; labels that begin with 1 need y - 1' if low == 1 and high == classes else ''}"
        )


def check_weights(shape: Sequence[int], dtype: DType | type | str, output: Shape) -> None:
    """Sample weights: one for each sample, or one for each prediction of a sequence; `shape` is without the batch."""
    numeric("sample_weight", np.dtype(dtype))
    if tuple(shape) not in ((), (1,), output[:-1]):
        expected = " or ".join(dict.fromkeys((with_batch(()), with_batch(output[:-1]))))
        raise InvalidInput(f"sample_weight has the shape {with_batch(shape)}, but must have {expected}")


def of_classes(loss: Loss) -> bool:
    return type(loss).__name__ in ("CategoricalCrossentropy", "CategoricalFocalCrossentropy")


def numeric(what: str, dtype: DType) -> None:
    if dtype.kind not in "fiub":
        raise InvalidInput(f"{what} must hold real numbers, not {dtype}")


def fits(output: Shape, targets: Shape) -> bool:
    return targets == output or (output[-1] == 1 and targets == output[:-1])


def with_batch(shape: Sequence[int]) -> str:
    return f"(rows{''.join(f', {s}' for s in shape)}{',' * (not shape)})"
