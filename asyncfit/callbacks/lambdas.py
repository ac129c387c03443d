"""`LambdaCallback`: a callback from functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from ..callback import ALIASES, Callback, hook_line, hook_names, subscription_of
from ..names import nearest
from ..subscriptions import OnError

__all__ = ["LambdaCallback"]

Function = Callable[[Any], Awaitable[object] | object]


class LambdaCallback(Callback):
    """A callback from functions of one argument, the event; plain or async.

    `LambdaCallback(on_epoch_end=lambda event: print(event.epoch, event.logs["loss"]))`

    Args:
        on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_begin, on_train_batch_end: called at
            these events.
        gates, order, thread, timeout, on_error, name: as for every `Callback`.
        hooks: functions for any other hook, such as `on_validation_end` or `on_event`.

    Raises:
        TypeError: a hook is unknown, or a function cannot be called with an event; the message has the line to write.
    """

    def __init__(
        self,
        on_epoch_begin: Function | None = None,
        on_epoch_end: Function | None = None,
        on_train_begin: Function | None = None,
        on_train_end: Function | None = None,
        on_train_batch_begin: Function | None = None,
        on_train_batch_end: Function | None = None,
        *,
        gates: Literal["epoch", "batch", "none"] = "epoch",
        order: int = 0,
        thread: bool = False,
        timeout: float | None = None,
        on_error: OnError = "raise",
        name: str | None = None,
        **hooks: Function | None,
    ) -> None:
        self.gates, self.order, self.thread, self.timeout = gates, order, thread, timeout
        self.on_error, self.name = on_error, name
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **hooks,
        }
        for hook, function in given.items():
            _check_name(hook)
            if function is not None:
                _check_function(hook, function)
                setattr(self, hook, function)
        subscription_of(self)  # finds the rest of what cannot be


def _check_name(hook: str) -> None:
    known = [*hook_names(), *ALIASES]
    if hook in known:
        return
    guess = nearest(hook, known)
    meant = f"did you mean {guess}?" if guess else f"hooks are {', '.join(sorted(known))}"
    raise TypeError(f"LambdaCallback knows no hook {hook}; {meant}")


def _check_function(hook: str, function: object) -> None:
    """Refuse a function that was written for Keras, of `(epoch, logs)`, `(batch, logs)` or `(logs)`."""
    if not callable(function) or isinstance(function, type):
        return  # the subscription says what is wrong
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(None)
        fits = not any(name in ("epoch", "batch", "logs") for name in signature.parameters)
    except TypeError:
        fits = False
    if not fits:
        raise TypeError(
            f"LambdaCallback({hook}=…) takes a function of one argument, the event, not of {signature}. "
            f"Write {hook_line(hook, '{}=lambda event: …')}"
        )
