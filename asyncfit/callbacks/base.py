"""What the shipped callbacks share: a name, a state that starts afresh with each run, and a voice for `verbose=1`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, ClassVar

import numpy as np

from ..callback import Callback
from ..errors import InvalidInput
from ..events import TrainBegin
from ..names import unknown

__all__ = ["DECIDES", "SAVES", "ShippedCallback", "StatefulCallback", "flag", "logger"]

DECIDES = 100
"""The `order` of callbacks that decide: they see what users' callbacks, at 0, added to the logs."""
SAVES = 200
"""The `order` of callbacks that save: they come last."""

logger = logging.getLogger("asyncfit")


def flag(where: str, value: object) -> bool:
    """`value`, which is True or False; `where` names it: `"CSVLogger(append=…)"`."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{where} is True or False, not {value!r}")
    return bool(value)


class ShippedCallback(Callback):
    """A name, and a voice.

    Args:
        name: what statistics and messages call it; by default the class's name.
        verbose: 0 is silent; 1 tells on the logger "asyncfit", at INFO, what it does.
    """

    def __init__(self, *, name: str | None = None, verbose: int = 0) -> None:
        owner = type(self).__name__
        if name is not None:
            if not isinstance(name, str) or not name:  # type: ignore[redundant-expr]
                raise TypeError(f"{owner}(name=…) takes text, not {name!r}")
            self.name = name
        if not isinstance(verbose, int):
            raise InvalidInput(f"{owner}(verbose=…) is 0 (silent) or 1 (messages), not {verbose!r}")
        self.verbose = int(verbose)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or type(self).__name__

    def say(self, message: str, *values: object) -> None:
        """Log at INFO what it does, if it is to be verbose."""
        if self.verbose > 0:
            logger.info("%s: " + message, self.label, *values)


class StatefulCallback(ShippedCallback):
    """A callback with a memory: `keeps` names the attributes that make it up, `reset` gives them their first values.

    The same object may serve one run after another: each `TrainBegin` resets it, unless `load_state_dict` was called
    since its last run, for then the run goes on where that state was taken.
    """

    keeps: ClassVar[Mapping[str, type]] = {}
    """The attributes that `state_dict` holds, and of which type each is: numbers, text or arrays; those that are None
    are left out."""

    def __init__(self, *, name: str | None = None, verbose: int = 0) -> None:
        super().__init__(name=name, verbose=verbose)
        self._loaded = False
        self.reset()

    def reset(self) -> None:
        """Forget all that earlier runs brought."""

    def on_train_begin(self, event: TrainBegin) -> Awaitable[None] | None:
        """A subclass that has an `on_train_begin` of its own calls this first."""
        if not self._loaded:
            self.reset()
        self._loaded = False
        return None

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember, in numbers, text and arrays."""
        return {key: copy.copy(value) for key in self.keeps if (value := getattr(self, key)) is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, in the next run, where `state_dict` was called.

        Raises:
            InvalidInput: it is no such mapping, or has an entry that is unknown here or of another type; nothing was
                changed.
        """
        given: Any = state
        if not isinstance(given, Mapping):
            raise InvalidInput(f"{self.label}.load_state_dict takes what state_dict gave, not {given!r}")
        for key in state:
            if key not in self.keeps:
                raise InvalidInput(f"{self.label}.load_state_dict: {unknown('entry', key, self.keeps)}")
        what = f"{self.label}.load_state_dict:"
        checked = {key: _of_kind(self.keeps[key], value, f"{what} {key!r}") for key, value in state.items()}
        self.reset()
        for key, value in checked.items():
            setattr(self, key, value)
        self._loaded = True

    def forget_state(self) -> None:
        """What was loaded was for a run that never began: the next one is not to go on with it."""
        self._loaded = False
        self.reset()


def _of_kind(kind: type, value: Any, what: str) -> Any:
    """A copy of `value`, which is to be of that type; a number of NumPy's is a number."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim and kind is not np.ndarray):
        value = value.item()
    if type(value) is int:
        if (kind is float and abs(value) < 2**63) or (kind is int and -1 <= value < 2**63):
            return kind(value)
    elif kind is not int and isinstance(value, kind):
        return copy.copy(value)
    raise InvalidInput(f"{what} is of type {kind.__name__}, so this state is damaged: {value!r:.200}")
