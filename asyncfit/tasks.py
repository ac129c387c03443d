"""What the loops know of a task: whether and by whom it is cancelled, and where a coroutine is suspended."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

__all__ = [
    "awake",
    "cancellations",
    "close_iterator",
    "scope_cancelled",
    "suspended_at",
    "take_back",
    "task_cancelled",
    "was_interrupted",
]


PULSE = 0.1


@contextmanager
def awake() -> Iterator[None]:
    """In a notebook keep asyncio's loop from sleeping for long: its kernel notices an interrupt only when it wakes."""
    try:
        loop = asyncio.get_running_loop() if "ipykernel" in sys.modules else None
    except RuntimeError:  # trio's
        loop = None
    if loop is None:
        yield
        return

    beat: asyncio.TimerHandle

    def again(loop: asyncio.AbstractEventLoop) -> None:
        nonlocal beat
        beat = loop.call_later(PULSE, again, loop)

    again(loop)
    try:
        yield
    finally:
        beat.cancel()


def was_interrupted(error: BaseException) -> bool:
    """Whether `error` is asyncio's own cancellation of this task: no cancel scope's, and no other task's."""
    return isinstance(error, asyncio.CancelledError) and not scope_cancelled() and task_cancelled()


def take_back() -> None:
    """Take back asyncio's own cancellations of this task: it goes on."""
    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass


def cancellations() -> tuple[type[BaseException], ...]:
    """The exceptions by which the loops cancel."""
    trio = sys.modules.get("trio")
    return (asyncio.CancelledError,) if trio is None else (asyncio.CancelledError, trio.Cancelled)


def scope_cancelled() -> bool:
    """Whether a cancel scope around this task has been cancelled."""
    try:
        return anyio.current_effective_deadline() == -math.inf
    except RuntimeError:  # no loop
        return False


def task_cancelled() -> bool:
    """Whether asyncio was asked to cancel this very task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop, or trio's
        return False
    return task is not None and task.cancelling() > 0


async def close_iterator(iterator: Any) -> None:
    """Close an async iterator, if it can be closed.

    A generator that is closed amid a task group of its own raises a group around its GeneratorExit, instead of nothing.
    """
    close = getattr(iterator, "aclose", None)
    if callable(close):
        try:
            await close()
        except BaseExceptionGroup as group:
            if group.split(GeneratorExit)[1] is not None:
                raise


_MACHINERY = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (asyncio, anyio))
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def suspended_at(awaited: Any) -> str | None:
    """File, line and function of the innermost frame that is not the loop's own; None if nothing is awaited."""
    found: str | None = None
    while awaited is not None:
        frame = next((f for f in (getattr(awaited, name, None) for name in _FRAMES) if f is not None), None)
        if frame is not None:
            file = frame.f_code.co_filename
            machinery = file.startswith(_MACHINERY) or f"{os.sep}trio{os.sep}" in file
            if found is None or not machinery:
                found = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        awaited = next((a for a in (getattr(awaited, name, None) for name in _AWAITED) if a is not None), None)
    return found
