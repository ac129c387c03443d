"""A checkpoint as a run takes it up: what is in it, where it goes on, and whether this is the run that it is of.

Plain and synchronous; reading and checking belong in a worker thread. What is written is decided in `saving.py`, what a
file looks like in `formats/checkpoint_h5.py`; here is what both have to agree on.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np

from .errors import BadFile, InvalidInput
from .ledger import Carried
from .protocol import Change, Position, State, StopAsked, Update

__all__ = ["Arrays", "Found", "Restorer", "Resumed", "Search", "newest", "packed_history", "plain", "unpacked"]

MOST_ATTEMPTS, MOST_STEPS = 10**9 - 1, 10**18
"""What the names of files have room for."""

_logger = logging.getLogger("asyncfit")

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A whole checkpoint file.

    Attributes:
        path: where it is.
        run, arrays: what is in it.
        attempt: the number of the attempt that goes on with it.
        damaged: newer files that could not be used, and why.
    """

    path: str
    run: Mapping[str, Any]
    arrays: Mapping[str, Array]
    attempt: int
    damaged: tuple[tuple[str, Exception], ...] = ()


class Restorer(Protocol):
    """A callback that looks for a checkpoint before its run begins."""

    def find(self, run_id: str) -> Found | None:
        """In a worker thread, before there is a run: make sure that nobody else writes there, and look.

        Args:
            run_id: what the run will be called, if it begins anew.
        """

    def release(self) -> None:
        """The run has ended, or never began. May be called twice, and without `find`."""


def newest(paths: Iterable[str], attempt: int = 0) -> Found | None:
    """The first of these files that is whole; those before it are logged. None if there are none at all.

    Args:
        paths: newest first.
        attempt: the newest attempt that is known to have begun.

    Raises:
        BadFile: there are files, but none is whole.
    """
    from .formats import checkpoint_h5

    damaged: list[tuple[str, Exception]] = []
    for path in paths:
        try:
            run, arrays = checkpoint_h5.read(path)
            begun = _begun(path, run)
        except FileNotFoundError:  # gone meanwhile
            continue
        except (BadFile, OSError) as error:
            _logger.warning("%s; the checkpoint before it is looked at", error)
            damaged.append((path, error))
            continue
        return Found(path=path, run=run, arrays=arrays, attempt=max(begun, attempt) + 1, damaged=tuple(damaged))
    if damaged:
        listed = "; ".join(str(error) for _, error in damaged)
        raise BadFile(
            f"there are checkpoints, but none that can be used: {listed}. Delete them if training is to begin anew"
        ) from damaged[0][1]
    return None


# --- values that are no arrays ---------------------------------------------------------------------------------------

_KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}


class Arrays:
    """The arrays of a checkpoint, each once: what several have a hand on is written for all of them."""

    def __init__(self) -> None:
        self.by_name: dict[str, Array] = {}
        self._known: dict[Any, str] = {}

    def packed(self, values: Mapping[str, Any], where: str, what: str) -> list[list[Any]]:
        """`values` as JSON, with the names of arrays in the place of arrays.

        Args:
            where: how the names begin.
            what: how messages call the values.

        Raises:
            InvalidInput: something is no array of numbers, number, text, or list or dict of such.
        """
        entries: list[list[Any]] = []
        for name, value in values.items():
            if not isinstance(name, str):
                raise InvalidInput(f"{what} has the name {name!r}; names are text")
            if isinstance(value, np.ndarray | np.generic):
                array, kind = np.asarray(value), "array" if isinstance(value, np.ndarray) else "scalar"
                if array.dtype.kind not in "biufc":
                    raise InvalidInput(
                        f"{what}[{name!r}] is an array of {array.dtype}; a checkpoint keeps numbers and text"
                    )
                entries.append([name, kind, self._put(array, where)])
            elif type(value) in _KINDS.values():
                entries.append([name, type(value).__name__, value])
            else:
                entries.append([name, "json", plain(value, f"{what}[{name!r}]")])
        return entries

    def _put(self, array: Array, where: str) -> str:
        place = array.__array_interface__["data"][0] if array.size else id(array)
        key = place, array.shape, array.strides, array.dtype.str
        if key not in self._known:
            self._known[key] = name = f"{where}/{len(self.by_name)}"
            self.by_name[name] = array
        return self._known[key]


def plain(value: Any, what: str) -> Any:
    """A copy in JSON's types."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain(item, what) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, what) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        raise InvalidInput(f"{what} has an array in a list or dict; give each array a name of its own")
    raise InvalidInput(
        f"{what} is {type(value).__name__}; a checkpoint keeps arrays, numbers and text, and lists and dicts of "
        "numbers and text"
    )


def unpacked(entries: Any, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """What `packed` was given. Raises BadFile."""
    values: dict[str, Any] = {}
    if not isinstance(entries, list):
        raise BadFile("is damaged: a list of values is missing")
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str)):
            raise BadFile("is damaged: a value has no name")
        name, kind, value = entry
        if kind in ("array", "scalar"):
            array = arrays.get(value) if isinstance(value, str) else None
            if array is None:
                raise BadFile(f"is damaged: the array {name!r} is missing")
            value = array if kind == "array" or array.ndim else array[()]
        elif kind != "json" and type(value) is not _KINDS.get(str(kind)):
            raise BadFile(f"is damaged: {name!r} is no {kind}")
        values[name] = value
    return values


# --- taking one up ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What a run goes on with.

    Attributes:
        path: the file.
        run_id, attempt: of the run, and the number of this attempt.
        carried: what its ledger begins with.
        position: where.
        state, change: the model as it was, and what had been decided beside.
        callbacks: the states of callbacks by name.
        history: that of the run so far.
        settings: what the run depended on, and must be the same again.
        machine: what it was computed with.
        damaged: newer files that could not be used, and why.
    """

    path: str
    run_id: str
    attempt: int
    carried: Carried
    position: Position
    state: State
    change: Change | None
    callbacks: Mapping[str, Mapping[str, Any]]
    history: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    damaged: tuple[tuple[str, Exception], ...] = ()

    @classmethod
    def of(cls, found: Found) -> Resumed:
        """What is in the file.

        Raises:
            BadFile: it does not hang together.
        """
        run, arrays = found.run, found.arrays
        try:
            at = _part(run, "position", dict)
            callbacks = _part(run, "callbacks", dict)
            change = run.get("change")
            return cls(
                path=found.path,
                run_id=_part(run, "run_id", str),
                attempt=found.attempt,
                carried=Carried(
                    _number(run, "seq"),
                    _figures(run, "logs"),
                    _update(run, "restore", arrays),
                    _update(run, "fallback", arrays),
                    _stop(run),
                ),
                position=Position(
                    epoch=_number(at, "epoch"),
                    batch=_number(at, "batch"),
                    step=_number(at, "step", MOST_STEPS),
                    sums=_figures(at, "sums"),
                    counts=_counts(at),
                    begun=_part(at, "begun", bool),
                    inline_begun=_part(at, "inline_begun", bool),
                ),
                state=unpacked(run.get("state"), arrays),
                change=None if change is None else _change(change, arrays),
                callbacks={name: unpacked(entries, arrays) for name, entries in callbacks.items()},
                history=_history(_part(run, "history", dict), arrays),
                settings=_part(run, "settings", dict),
                machine=_part(run, "machine", dict),
                damaged=found.damaged,
            )
        except BadFile as error:
            raise BadFile(f"{found.path} {error}") from error

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on as another run than that of the checkpoint.

        Args:
            settings: those of this run; text, numbers, and lists and dicts of such.

        Raises:
            InvalidInput: it names what differs.
        """
        ours, theirs = plain(settings, "settings"), self.settings
        different = [text for name in ours for text in _differences(name, theirs.get(name), ours[name])]
        if different:
            raise InvalidInput(
                f"{self.path} is of another run, so this one cannot go on with it: {'; '.join(different[:8])}"
                f"{f' and {len(different) - 8} more' if len(different) > 8 else ''}. Give the same model, data and "
                "settings again, or another directory to begin anew"
            )

    def warn_of_machine(self, params: Mapping[str, Any]) -> None:
        """Log by name what the last bits depend on, if it is not what it was."""
        for name in ("blas", "kernels", "threads"):
            if name in params and name in self.machine and str(params[name]) != str(self.machine[name]):
                _logger.warning(
                    "run %s was computed with %s %s, and goes on with %s %s: its last bits may differ from those of a "
                    "run that was not interrupted",
                    self.run_id, name, self.machine[name], name, params[name],
                )  # fmt: skip

    @property
    def told(self) -> dict[str, Any]:
        """What `TrainBegin.params` says of it."""
        at = self.position
        return {
            "path": self.path, "run_id": self.run_id, "attempt": self.attempt,
            "epoch": at.epoch, "batch": at.batch, "step": at.step,
        }  # fmt: skip


class Search:
    """Looks for what a run is to go on with, before there is a run.

    Args:
        restorers: callbacks that may know; what they find is preferred.
        path: a file, or a directory of checkpoints, that the user named.
        run_id: what the run will be called if it begins anew.
    """

    def __init__(self, restorers: Sequence[Restorer], path: str | None, run_id: str) -> None:
        self._restorers, self._path, self._run_id = restorers, path, run_id
        self.resumed: Resumed | None = None

    def __bool__(self) -> bool:
        return bool(self._restorers) or self._path is not None

    def look(self) -> None:
        """In a worker thread."""
        found = [one for restorer in self._restorers if (one := restorer.find(self._run_id)) is not None]
        if not found and self._path is not None:
            found = [_at(self._path)]
        elif self._path is not None:
            _logger.warning(
                "resume=%r is not used, because there is a newer checkpoint of this run: %s", self._path, found[0].path
            )
        if found:
            known = [Resumed.of(one) for one in found]
            self.resumed = max(known, key=lambda one: (one.attempt, one.position.step))

    def release(self) -> None:
        """The run has ended, or never began."""
        for restorer in self._restorers:
            restorer.release()


def _at(path: str) -> Found:
    from .backups import Directory
    from .formats import checkpoint_h5

    if not os.path.isdir(path):
        run, arrays = checkpoint_h5.read(path)
        found: Found | None = Found(path=path, run=run, arrays=arrays, attempt=_begun(path, run) + 1)
    else:
        found = newest([file.path for file in reversed(Directory(path).listed())])
    if found is None:
        raise FileNotFoundError(2, "there is no checkpoint in this directory", path)
    return found


def _begun(path: str, run: Mapping[str, Any]) -> int:
    try:
        return _number(run, "attempt", MOST_ATTEMPTS)
    except BadFile as error:
        raise BadFile(f"{path} {error}") from error


# --- reading with care -----------------------------------------------------------------------------------------------


def _part(of: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = of.get(name)
    if type(value) is not kind:
        raise BadFile(f"is damaged: it has no {name}")
    return value


def _number(of: Mapping[str, Any], name: str, limit: int = 2**63) -> int:
    value = _part(of, name, int)
    if not 0 <= value < limit:
        raise BadFile(f"is damaged: its {name} is {value}")
    return value


def _figures(of: Mapping[str, Any], name: str) -> dict[str, float]:
    figures = _part(of, name, dict)
    if not all(type(value) in (int, float) for value in figures.values()):
        raise BadFile(f"is damaged: its {name} are no numbers")
    try:
        return {key: float(value) for key, value in figures.items()}
    except OverflowError:
        raise BadFile(f"is damaged: its {name} are no numbers of 64 bits") from None


def _counts(at: Mapping[str, Any]) -> dict[str, int]:
    """Of each figure that is summed up: of how many rows."""
    counts, sums = _part(at, "counts", dict), _part(at, "sums", dict)
    if counts.keys() != sums.keys() or not all(type(rows) is int and 0 <= rows < 2**53 for rows in counts.values()):
        raise BadFile("is damaged: its sums and its counts do not belong together")
    return counts


def _change(change: Any, arrays: Mapping[str, Array]) -> Change:
    if not isinstance(change, dict):
        raise BadFile("is damaged: what was decided is no dict")
    rate, weights = change.get("rate"), change.get("weights")
    if rate is not None and not (type(rate) is float and math.isfinite(rate) and rate >= 0):
        raise BadFile("is damaged: the learning rate that was decided is no number")
    return Change(None if weights is None else unpacked(weights, arrays), rate)


def _update(run: Mapping[str, Any], name: str, arrays: Mapping[str, Array]) -> Update | None:
    match run.get(name):
        case None:
            return None
        case [str(who), entries, int(step)]:
            return Update(who, unpacked(entries, arrays), step)
    raise BadFile(f"is damaged: its {name} is no state")


def _stop(run: Mapping[str, Any]) -> StopAsked | None:
    match run.get("stop"):
        case None:
            return None
        case [str(who), str(reason)]:
            return StopAsked(who, reason)
    raise BadFile("is damaged: its stop is none")


_VALUES, _EPOCHS = "history/values", "history/epochs"


def packed_history(history: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `History.kept` gave as JSON and two arrays: thousands of epochs would make a long text.

    The arrays have room, so that a file of the next epoch has the same layout.
    """
    series, epochs = history["history"], history["epochs"]
    told = {
        "epoch": len(history["epoch"]),
        "series": [[name, len(values), len(epochs.get(name, ()))] for name, values in series.items()],
    }
    values = [value for part in series.values() for value in part]
    numbers = [number for part in (history["epoch"], *(epochs.get(name, ()) for name in series)) for number in part]
    return told, {_VALUES: _roomy(values, np.float64), _EPOCHS: _roomy(numbers, np.int64)}


def _roomy(values: list[Any], dtype: Any) -> Array:
    array: Array = np.zeros(max(64, 1 << len(values).bit_length()), dtype)
    array[: len(values)] = values
    return array


def _history(told: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """What `packed_history` was given."""
    values, numbers, counts = arrays.get(_VALUES), arrays.get(_EPOCHS), told.get("series")
    if (
        values is None
        or numbers is None
        or values.shape != (values.size,)
        or numbers.shape != (numbers.size,)
        or (values.dtype.str, numbers.dtype.str) != ("<f8", "<i8")
        or not isinstance(counts, list)
        or not all(_is_series(entry) for entry in counts)
        or sum(entry[1] for entry in counts) > values.size
        or _number(told, "epoch") + sum(entry[2] for entry in counts) > numbers.size
    ):
        raise BadFile("is damaged: its history is no history")
    left, names = iter(values.tolist()), iter(numbers.tolist())
    epoch = list(islice(names, _number(told, "epoch")))
    return {
        "epoch": epoch,
        "history": {name: list(islice(left, count)) for name, count, _ in counts},
        "epochs": {name: list(islice(names, count)) for name, _, count in counts},
    }


def _is_series(entry: Any) -> bool:
    match entry:
        case [str(), int(values), int(epochs)]:
            return values >= 0 and epochs >= 0
    return False


def _differences(name: str, theirs: Any, ours: Any) -> Iterable[str]:
    """In words, and by the place within lists and dicts."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        kinds = theirs.get("class_name"), ours.get("class_name")
        if kinds[0] != kinds[1]:  # all the rest follows from that
            yield f"{name} was {kinds[0]!r:.60} and is {kinds[1]!r:.60}"
            return
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            yield from _differences(f"{name}.{key}", theirs.get(key), ours.get(key))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from _differences(f"{name}[{number}]", one, other)
    elif theirs != ours and not (theirs != theirs and ours != ours):  # NaN is like NaN
        yield f"{name} was {theirs!r:.60} and is {ours!r:.60}"
