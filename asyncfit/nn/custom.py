"""The user's own classes and functions by name, while a config is read that speaks of them (Keras's custom_objects)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["anything", "reading_with", "the_users"]

_own: ContextVar[Mapping[str, Any]] = ContextVar("asyncfit_custom_objects")


@contextmanager
def reading_with(own: Mapping[str, Any]) -> Iterator[None]:
    """Within the block `the_users` knows what `own` has, in this thread or task."""
    token = _own.set(own)
    try:
        yield
    finally:
        _own.reset(token)


def the_users(name: str, kind: type) -> Any:
    """The class of that kind that the user calls `name`; None if there is none."""
    found = anything(name)
    return found if isinstance(found, type) and issubclass(found, kind) else None


def anything(name: str) -> Any:
    """Whatever the user calls so, a function say; None if there is nothing."""
    return _own.get({}).get(name)
