"""System calls that fail: the n-th of a kind of work, one after the other, or all from the n-th on."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["NUMBERS", "Faults", "faults"]

NUMBERS = [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS]
_CALLS: list[tuple[Any, str]] = [
    *((os, name) for name in ("open", "write", "pwrite", "fsync", "replace", "unlink", "close", "dup", "chmod")),
    *((os, name) for name in ("lstat", "fstat", "stat", "listdir", "ftruncate")),
    *((fcntl, name) for name in ("flock", "fcntl")),
]
_WRITES = ("write", "pwrite")


class Faults:
    """What happened.

    Attributes:
        count: how many calls there were.
        failed: the names of those that were made to fail, or to write less than they were asked to.
    """

    def __init__(self, at: int, number: int | None, lasting: bool) -> None:
        self.at, self.number, self.lasting = at, number, lasting
        self.count = 0
        self.failed: list[str] = []

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.number is None and name not in _WRITES:
                return call(*args, **kwargs)
            self.count += 1
            if self.count != self.at and not (self.lasting and self.count > self.at):
                return call(*args, **kwargs)
            self.failed.append(name)
            if self.number is None:
                descriptor, data, *rest = args
                return call(descriptor, memoryview(data).cast("B")[: max(1, len(data) // 3 // 512 * 512)], *rest)
            if name == "close":
                call(*args)  # the descriptor is gone whatever close says
            raise OSError(self.number, os.strerror(self.number))

        return wrapped


@contextmanager
def faults(at: int, number: int | None, *, lasting: bool = False) -> Iterator[Faults]:
    """The `at`-th system call fails with `number`, or if that is None the `at`-th write writes a part only."""
    state = Faults(at, number, lasting)
    with pytest.MonkeyPatch.context() as patch:
        for module, name in _CALLS:
            patch.setattr(module, name, state.wrap(name, getattr(module, name)))
        yield state
