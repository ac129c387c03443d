"""Reading what yields batches, item by item. Synchronous: an async source is read in `asyncfit/feeding.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from asyncfit.errors import InvalidInput

from .kinds import BatchSource
from .order import permutation

__all__ = ["END", "Taker", "taker"]

END: Final = object()
"""What `take` returns when there is no more."""


class Taker(Protocol):
    """Reads one source, in one thread."""

    def seek(self, number: int, index: int) -> None:
        """Let the next item be number `index` of pass `number`."""

    def take(self) -> Any:
        """The next item, or `END`."""

    def close(self) -> None:
        """It will not be read any more."""


def taker(source: BatchSource, *, shuffle: bool = False, key: tuple[int, int] = (0, 0)) -> Taker:
    """What reads a source that is not async."""
    if source.kind in ("listed", "indexed"):
        return _Indexed(source, shuffle, key)
    return _Once(source) if source.once else _Iterated(source)


class _Once:
    """An iterator: where it stands, it stands."""

    def __init__(self, source: BatchSource) -> None:
        self._value = source.value
        self._iterator: Iterator[Any] | None = None

    def seek(self, number: int, index: int) -> None:
        pass

    def take(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._value)
        return next(self._iterator, END)

    def close(self) -> None:
        iterator, self._iterator = self._iterator, None
        _close(iterator)


class _Iterated:
    """Iterated anew for each pass; what lies before the place to begin at is read and dropped."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._iterator: Iterator[Any] | None = None
        self._at = (-1, 0)

    def seek(self, number: int, index: int) -> None:
        if self._iterator is None or self._at != (number, index):
            self.close()
            self._iterator, self._at = iter(self._source.value), (number, 0)
            while self._at[1] < index:
                if self.take() is END:
                    raise InvalidInput(f"{self._source.name} has no batch {index}: it ended after {self._at[1]}")

    def take(self) -> Any:
        assert self._iterator is not None
        item = next(self._iterator, END)
        if item is not END:
            self._at = self._at[0], self._at[1] + 1
            if self._at[1] == self._source.length:
                _epoch_ended(self._source.value)
        return item

    def close(self) -> None:
        iterator, self._iterator = self._iterator, None
        _close(iterator)


class _Indexed:
    """By number, in an order that is a function of the seed."""

    def __init__(self, source: BatchSource, shuffle: bool, key: tuple[int, int]) -> None:
        self._value, self._length = source.value, source.length or 0
        self._shuffle, self._key = shuffle, key
        self._number, self._index = -1, 0
        self._order: Any = range(self._length)

    def seek(self, number: int, index: int) -> None:
        if self._shuffle and number != self._number:
            self._order = permutation(self._length, self._key, number)
        self._number, self._index = number, index

    def take(self) -> Any:
        if self._index >= self._length:
            return END
        item = self._value[int(self._order[self._index])]
        self._index += 1
        if self._index == self._length:
            _epoch_ended(self._value)
        return item

    def close(self) -> None:
        pass


def _epoch_ended(value: Any) -> None:
    """A Keras-like Sequence hears of each pass's end."""
    hook = getattr(value, "on_epoch_end", None)
    if callable(hook):
        hook()


def _close(iterator: Any) -> None:
    close = getattr(iterator, "close", None)
    if callable(close):
        close()
