"""The record of a checkpoint: what it knows of the run, and of each array, as JSON.

Read with doubt: every name, type, shape and place is checked before anybody asks for memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from asyncfit.errors import BadFile, InvalidInput

__all__ = ["Entry", "decoded", "encoded"]

_DTYPE = re.compile(r"[<>|][biufc][0-9]{1,2}")
_MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 1 << 48  # also of an empty array, without the dimensions that are 0


class Entry(NamedTuple):
    """An array in a file: `offset` is where it begins, `check` its checksum."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    check: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def encoded(run: Mapping[str, Any], entries: Iterable[Entry]) -> bytes:
    """The record as ASCII.

    Raises:
        InvalidInput: `run` holds what JSON has no word for.
    """
    arrays = [[e.name, e.dtype.str, list(e.shape), e.offset, e.check] for e in entries]
    try:
        return json.dumps({"arrays": arrays, "run": dict(run)}, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"what is to be kept of the run cannot be written as JSON: {error}") from error


def decoded(text: bytes, end: int) -> tuple[dict[str, Any], list[Entry]]:
    """What a record says of the run and of the arrays, which lie before `end` and do not overlap.

    Raises:
        BadFile: always this, whatever is wrong.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"has a record that is no JSON: {error}") from error
    run, arrays = (record.get("run"), record.get("arrays")) if isinstance(record, dict) else (None, None)
    if not isinstance(run, dict) or not isinstance(arrays, list):
        raise BadFile("has a record without a run and arrays")
    entries = [_entry(item) for item in arrays]
    if len({entry.name for entry in entries}) < len(entries):
        raise BadFile("has two arrays of one name")
    before = 0
    for entry in sorted((entry for entry in entries if entry.size), key=lambda entry: entry.offset):
        if entry.offset < before or entry.offset + entry.size > end:
            raise BadFile(f"has no room for the array {entry.name[:200]!r} where it should be")
        before = entry.offset + entry.size
    return run, entries


def _entry(item: Any) -> Entry:
    match item:
        case [str(name), str(dtype), list(shape), int(offset), int(check)]:
            pass
        case _:
            raise BadFile("has a record of an array that is none")
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < _MOST_ELEMENTS for n in shape):
        raise BadFile(f"has an array of an impossible shape: {name[:200]!r}")
    if math.prod(n for n in shape if n) > _MOST_ELEMENTS:
        raise BadFile(f"has an array that is too large: {name[:200]!r}")
    if not _DTYPE.fullmatch(dtype):
        raise BadFile(f"has an array of a type that is not read: {name[:200]!r} of {dtype[:20]!r}")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise BadFile(f"has an array of a type that is not known here: {name[:200]!r} of {dtype!r}") from None
    return Entry(name, kind, tuple(shape), offset, check)
