"""Work that somebody will await: what `fit`, `predict`, `save` and `load_model` return.

A `Job` is a coroutine, so that `await`, `asyncio.run`, `create_task`, `start_soon` and nurseries take it; it starts
nothing by itself. `blocking()` runs it in a plain script. One that is dropped says which line made it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import warnings
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio
import anyio.to_thread

from .errors import NotStarted

__all__ = ["Job", "in_thread", "running_library"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_HERE = os.path.dirname(__file__) + os.sep


class Job(Coroutine[Any, Any, T_co]):
    """A coroutine that is made when it is first needed.

    Args:
        what: how messages call it, such as "model.fit(…)".
        make: makes the real coroutine.
    """

    def __init__(self, what: str, make: Callable[[], Coroutine[Any, Any, T_co]]) -> None:
        self._what = what
        self._make: Callable[[], Coroutine[Any, Any, T_co]] | None = make
        self._coroutine: Coroutine[Any, Any, T_co] | None = None
        self.__name__ = self.__qualname__ = what
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
            frame = frame.f_back
        self._made_at = frame.f_code.co_filename, frame.f_lineno

    def _take(self) -> Callable[[], Coroutine[Any, Any, T_co]]:
        """The maker, once."""
        make, self._make = self._make, None
        if make is None:
            raise NotStarted(f"{self._what} has been used already; call it again for another one")
        return make

    def _started(self) -> Coroutine[Any, Any, T_co]:
        if self._coroutine is None:
            self._coroutine = self._take()()
        return self._coroutine

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._coroutine is not None:
            raise NotStarted(f"{self._what} has been used already; call it again for another one")
        return self._started().__await__()

    def send(self, value: Any) -> Any:
        return self._started().send(value)

    def throw(self, *args: Any) -> Any:
        return self._started().throw(*args)

    def close(self) -> None:
        self._make = None
        if self._coroutine is not None:
            self._coroutine.close()

    # What loops and debuggers ask of a coroutine. Before it starts there is no frame: trio wraps it then, as it must.

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._coroutine, "cr_running", False))

    @property
    def cr_suspended(self) -> bool:
        return bool(getattr(self._coroutine, "cr_suspended", False))

    @property
    def cr_frame(self) -> Any:
        return getattr(self._coroutine, "cr_frame", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._coroutine, "cr_await", None)

    def blocking(self) -> T_co:
        """Run it to its end here, on a new asyncio loop, and return what it returns.

        Raises:
            RuntimeError: a loop runs in this thread already: await it there.
        """
        library = running_library()
        if library is not None:
            self.close()
            raise RuntimeError(f"{library} runs in this thread, so {self._what} cannot block it: await it")
        return anyio.run(self._awaited)

    async def _awaited(self) -> T_co:
        return await self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"{self._what} has to be awaited first: `(await {self._what}).{name}`")

    def _unawaited(self, *_: Any, **__: Any) -> NoReturn:
        """Whoever takes it for its result has forgotten something."""
        raise TypeError(f"{self._what} has to be awaited first: `await {self._what}`, or .blocking() in a plain script")

    if not TYPE_CHECKING:  # for a type checker it is what a coroutine is
        __getitem__ = __iter__ = __len__ = __contains__ = __array__ = _unawaited
        __int__ = __float__ = __index__ = __round__ = _unawaited
        __lt__ = __le__ = __gt__ = __ge__ = _unawaited
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _unawaited

    def __del__(self) -> None:
        if getattr(self, "_make", None) is not None:
            file, line = self._made_at
            warnings.warn_explicit(f"{self._what} was never awaited", RuntimeWarning, file, line, source=self)

    def __repr__(self) -> str:
        state = "not started" if self._make is not None else "started"
        return f"<{self._what}, {state}, made at {self._made_at[0]}:{self._made_at[1]}>"


def in_thread(what: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> Job[T]:
    """A job that runs `work` in a worker thread. Cancelling it waits for the thread: its work is never torn."""
    return Job(what, lambda: anyio.to_thread.run_sync(functools.partial(work, *args, **kwargs)))


def running_library() -> str | None:
    """The name of the loop that runs in this thread, if one does."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return "trio"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return "asyncio"
