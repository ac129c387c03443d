"""A fact that tasks wait for, whatever loop and thread they are in."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable

import anyio
import anyio.lowlevel

__all__ = ["Signal", "loop_caller"]


class Signal:
    """Set once, from any thread; awaited in any loop. An `anyio.Event` belongs to one loop only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._waiters: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    async def wait(self) -> None:
        """Return when it is set; at once, after a checkpoint, if it is."""
        event, thread, soon = anyio.Event(), threading.get_ident(), loop_caller()

        def wake() -> None:
            if threading.get_ident() == thread:
                event.set()
            elif soon is not None:
                try:
                    soon(event.set)
                except RuntimeError:  # that loop is gone, and who waited with it
                    pass

        with self._lock:
            if not self._is_set:
                self._waiters.append(wake)
        try:
            if self._is_set:
                await anyio.lowlevel.checkpoint()
            else:
                await event.wait()
        finally:
            with self._lock:
                if wake in self._waiters:
                    self._waiters.remove(wake)


def loop_caller() -> Callable[[Callable[[], None]], object] | None:
    """What calls a function in this thread's loop, from any thread; None without a loop."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            soon: Callable[[Callable[[], None]], object] = trio.lowlevel.current_trio_token().run_sync_soon
            return soon
        except RuntimeError:
            pass
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        return None
