"""What has to wait for a thread: a look at data sets of HDF5 files, which even their shape may take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from .kinds import BatchSource, batch_source
from .stored import is_dataset, opened

__all__ = ["Later", "later"]

P = ParamSpec("P")
T = TypeVar("T", covariant=True)


class Later(Generic[T]):
    """Stands for a plan. `resolved`, called off the loop, looks at the data and makes it, or raises InvalidInput.

    `rewindable`, `source` and `fed` are those of the plan that is to come.
    """

    rows: None = None

    def __init__(
        self, make: Callable[[], T], *, source: BatchSource | None = None, other: BatchSource | None = None
    ) -> None:
        self.resolved = make
        self.source = source
        self.fed = any(one is not None and one.kind != "listed" for one in (source, other))
        self.rewindable = all(one is None or one.rewindable for one in (source, other))


def later(plan: Callable[P, T], check: Callable[..., object]) -> Callable[P, T | Later[T]]:
    """`plan`, put off if there are HDF5 data sets among x, y, sample_weight and validation_data.

    Args:
        check: checks the other arguments, at once; it takes those that it names.
    """
    signature = inspect.signature(plan)
    checked = inspect.signature(check).parameters

    @functools.wraps(plan)
    def planned(*args: P.args, **kwargs: P.kwargs) -> T | Later[T]:
        given = signature.bind(*args, **kwargs)
        values: dict[str, Any] = {name: given.arguments.get(name) for name in ("x", "y", "sample_weight")}
        held = given.arguments.get("validation_data")
        if isinstance(held, tuple | list) and len(held) <= 3:
            values |= {f"validation_data[{i}]": value for i, value in enumerate(held)}
        if not any(is_dataset(value) for value in values.values()):
            return plan(*args, **kwargs)
        given.apply_defaults()
        check(**{name: value for name, value in given.arguments.items() if name in checked})

        def make() -> T:
            weights = ("sample_weight", "validation_data[2]")
            open_ = {name: opened(name, value, load=name in weights) for name, value in values.items()}
            for name in given.arguments:
                if name in open_:
                    given.arguments[name] = open_[name]
            if len(open_) > 3:
                given.arguments["validation_data"] = tuple(list(open_.values())[3:])
            return plan(*given.args, **given.kwargs)

        x, other = (batch_source(name, given.arguments.get(name)) for name in ("x", "validation_data"))
        return Later(make, source=x, other=other)

    return planned
