"""A run's work as a worker process gets it: with the model itself, or with the name of what makes one there."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..compute import Work
from ..errors import InvalidInput
from ..protocol import State

__all__ = ["check_factory", "parcel"]


def parcel(work: Work, factory: str | None, *, replaceable: bool = False) -> Work:
    """The work as the worker gets it.

    Args:
        replaceable: another worker may have to go on with it.
    """
    trainable: Any = work.trainable
    if factory is not None:
        trainable = _FromFactory(factory, dict(trainable.state()))
    inline: Any = work.inline
    if inline is not None:
        mark = None if work.again is None else work.again.mark
        inline = inline.parcel(None if mark is None else mark.names)
    return dataclasses.replace(
        work, trainable=trainable, inline=inline, mirrored=True, replaceable=replaceable, early=tuple(work.early)
    )


class _FromFactory:
    """Stands for a model that is made in the worker."""

    def __init__(self, factory: str, state: State) -> None:
        self._factory, self._state = factory, state

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_by, (self._factory, self._state)


def _made_by(factory: str, state: State) -> Any:
    import importlib

    module, _, name = factory.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        trainable = function()
        trainable.load_state(state)
    except BaseException as error:
        error.add_note(f"in ProcessExecutor(factory={factory!r}), which makes the model in the worker process")
        raise
    return trainable


def check_factory(factory: object) -> None:
    module, colon, name = factory.partition(":") if isinstance(factory, str) else ("", "", "")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise InvalidInput(f"factory={factory!r} should name a function as 'package.module:function'")
    if module == "__main__":
        raise InvalidInput(f"factory={factory!r}: a worker does not import the main module; move it to one of its own")
