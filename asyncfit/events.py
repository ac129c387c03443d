"""The events: what happens in a run, or in a pass (one `evaluate` or `predict`), as immutable values.

The order within a run, with lookahead 0 or any other::

    TrainBegin
    for each epoch:
        EpochBegin
        for each batch:  BatchBegin  BatchEnd
        [ValidationBegin  ValidationEnd]            if this epoch validates
        EpochEnd                                    complete=False if a stop left batches undone
    TrainEnd                                        once, last, whatever happened

Facts (`StopRequested`, `LearningRateChanged` …) come between them, when they arise. A run that is cancelled or fails
goes straight from where it is to `TrainEnd`.

A pass is numbered as a run is, with a `run_id` of its own::

    EvaluateBegin   for each batch: EvaluateBatchEnd   EvaluateEnd
    PredictBegin    for each batch: PredictBatchEnd    PredictEnd

It begins when its input has been checked; what is refused publishes nothing. Its End comes once, last, whatever
happened. Computing waits for the gates of the Begin, and whoever awaits the result for those of the End; for the
batches it waits for nobody, gates included: there is nothing to decide.

This file knows nothing of models, buses or loops: an event has room for a *control* (what a handler may ask for) and a
*model*, and whoever delivers it fills them.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NoReturn,
    Protocol,
    Self,
    SupportsFloat,
    TypeVar,
    TypeVarTuple,
    cast,
)

from .errors import AsyncFitError, DetachedEvent, InvalidInput
from .names import unknown

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = [
    "BatchBegin",
    "BatchEnd",
    "CheckpointFailed",
    "CheckpointSaved",
    "EpochBegin",
    "EpochEnd",
    "EvaluateBatchEnd",
    "EvaluateBegin",
    "EvaluateEnd",
    "Event",
    "EventsDropped",
    "FrozenDict",
    "LayerCreated",
    "LearningRateChanged",
    "ModelCompiled",
    "Omitted",
    "PredictBatchEnd",
    "PredictBegin",
    "PredictEnd",
    "RunPaused",
    "RunResumed",
    "StopRequested",
    "SubscriberFailed",
    "TrainBegin",
    "TrainEnd",
    "ValidationBegin",
    "ValidationEnd",
    "WeightsRestored",
    "WorkerRestarted",
]

E = TypeVar("E", bound="Event")
Ts = TypeVarTuple("Ts")
Outcome = Literal["completed", "stopped", "cancelled", "failed"]


# --- values that events carry --------------------------------------------------------------------------------------


class FrozenDict(dict[str, Any]):
    """A read-only dict with text keys. Unlike `MappingProxyType` it can be pickled, copied, hashed and made cheaply."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the contents of an event cannot be changed; make a copy of your own with dict(…)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset((key, _hashable(value)) for key, value in self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return FrozenDict({key: copy.deepcopy(value, memo) for key, value in self.items()})


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    return value


@dataclass(frozen=True, slots=True)
class Omitted:
    """What stands, after `Event.from_dict`, in the place of something that is no plain data.

    Attributes:
        kind: "array", "model", "exception" or "object".
        text: its `repr`, shortened.
    """

    kind: str
    text: str


# --- JSON, both ways -----------------------------------------------------------------------------------------------

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _plain(value: Any) -> Any:
    """`value` in plain JSON types. `_restored` is its exact inverse.

    Non-finite numbers become "NaN", "Infinity" and "-Infinity"; text that reads like one of them, or begins with a
    backslash, gets a backslash in front. A tuple and what is no data become an object with one key that begins with
    "$"; a mapping whose own keys do gets its keys escaped likewise.
    """
    if value is None or value is True or value is False or type(value) is int:
        return value
    if isinstance(value, str):
        text = str(value)
        return "\\" + text if text in _NUMBERS or text.startswith("\\") else text
    if isinstance(value, float):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, Omitted):
        return {"$omitted": value.kind, "text": value.text}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"\\" + key if key[:1] in ("$", "\\") else key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"$tuple": [_plain(item) for item in value]}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return _plain(os.fspath(value))
    if hasattr(value, "ndim") and hasattr(value, "dtype"):
        if value.ndim == 0 and value.dtype.kind in "biuf":
            return _plain(value.item())  # a NumPy scalar is a number like any other
        return {"$omitted": "array", "text": f"shape {tuple(value.shape)}, {value.dtype}"}
    if isinstance(value, int):
        return int(value)
    kind = "exception" if isinstance(value, BaseException) else "model" if hasattr(value, "get_config") else "object"
    text = repr(value)
    return {"$omitted": kind, "text": text if len(text) <= 200 else text[:199] + "…"}


def _restored(value: Any) -> Any:
    if isinstance(value, str):
        return value[1:] if value.startswith("\\") else _NUMBERS.get(value, value)
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, dict):
        if "$tuple" in value:
            return tuple(_restored(item) for item in value["$tuple"])
        if "$omitted" in value:
            return Omitted(value["$omitted"], value["text"])
        return FrozenDict((key[1:] if key.startswith("\\") else key, _restored(item)) for key, item in value.items())
    return value


# --- the base ------------------------------------------------------------------------------------------------------


class Control(Protocol):
    """What stands behind `event.stop()` and the like; each says itself whether it may still be used."""

    def stop(self, reason: str, resumable: bool) -> None: ...
    def cancel(self, reason: str) -> None: ...
    def learning_rate(self) -> float: ...
    def set_learning_rate(self, value: float) -> None: ...
    def set_weights(self, snapshot: Any) -> None: ...
    def restore_at_end(self, snapshot: Any, default: bool) -> None: ...
    def show_model(self, snapshot: Any) -> None: ...
    def add_logs(self, logs: Mapping[str, SupportsFloat]) -> None: ...
    def publish(self, event: Event) -> None: ...
    def start_soon(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], wait: bool) -> None: ...


_ANYWHERE = {
    "stop": "; run.stop(reason) works anywhere",
    "cancel": "; run.cancel(reason) works anywhere",
    "learning_rate": "; at the end of an epoch event.logs has it, too",
    "set_learning_rate": "; run.set_learning_rate(value) works anywhere",
}


class _Lacking:
    """What handlers look for on events that do not have it: which ones do. Those find their own first."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, event: Event | None, cls: type[Event]) -> NoReturn:
        name = self._name
        if event is None:
            raise AttributeError(f"{cls.__name__} has no {name}", name=name, obj=cls)
        known = [kind for kind in _kinds.values() if kind.__module__ == __name__ and hasattr(kind, name)]
        able = [kind.__name__ for kind in known if name != "model" or issubclass(kind, _HasModel)]
        raise AttributeError(
            f"{cls.__name__} has no event.{name}; {', '.join(able)} have{_ANYWHERE.get(name, '')}", name=name, obj=event
        )


class _Attached:
    """What an event carries for its handler only: it is no part of the value and drops out of copies and pickles."""

    __slots__ = ("__weakref__", "_control", "_model", "_replay")
    _control: Control | None
    _model: Any
    _replay: bool

    if not TYPE_CHECKING:  # type checkers know what there is; a `__getattr__` would slow down all that is there
        for _name in (*_ANYWHERE, "model", "set_weights", "restore_at_end", "add_logs", "show_model"):
            locals()[_name] = _Lacking(_name)
        del _name


_kinds: dict[str, type[Event]] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Event(_Attached):
    """Base of all events. Subclass it as `@dataclass(frozen=True, slots=True, kw_only=True)` for events of your own.

    Events of a run compare and hash by `(run_id, attempt, seq)`; events without a run by their contents.

    Attributes:
        run_id: the run that published it, None outside a run.
        attempt: how often that run was resumed.
        seq: its number in that run, from 0, without gaps; -1 as long as no run has published it.
        time: when it happened, in compute, in seconds since the epoch.
    """

    run_id: str | None = None
    attempt: int = 0
    seq: int = -1
    time: float = field(default_factory=time.time)

    lossy: ClassVar[bool] = True
    """Whether a subscriber's overflow policy may drop it. True for batch events and users' own events."""
    numbered: ClassVar[str | None] = None
    """The field with the event's own number from 0, which `every=` counts by."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # object's, named outright: a slotted dataclass is made twice, so a bare super() here would look at the first
        object.__init_subclass__(**kwargs)
        known = _kinds.get(cls.__name__)
        if known is not None and known.__module__ == __name__ != cls.__module__:
            raise TypeError(f"{cls.__name__} is an event of asyncfit already; give your event a name of its own")
        if "__dataclass_fields__" in cls.__dict__:  # the decorator's comparison by all fields gives way to ours
            cls.__eq__ = Event.__eq__  # type: ignore[method-assign]
            cls.__hash__ = Event.__hash__  # type: ignore[method-assign]
        _kinds[cls.__name__] = cls

    @property
    def type(self) -> str:
        """The name of the event's class."""
        return self.__class__.__name__

    @property
    def id(self) -> str:
        """`run:attempt:seq`: unique, and the same for all who get this event."""
        return f"{self.run_id or ''}:{self.attempt}:{self.seq}"

    @property
    def replay(self) -> bool:
        """Whether a replayable inline handler may have seen this step before (the work was undone meanwhile)."""
        return getattr(self, "_replay", False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        if self.run_id is None or other.run_id is None or self.seq < 0 or other.seq < 0:
            return self is other or (self.__class__ is other.__class__ and self.to_dict() == other.to_dict())
        return self.seq == other.seq and self.run_id == other.run_id and self.attempt == other.attempt

    def __hash__(self) -> int:
        if self.run_id is None or self.seq < 0:
            return hash((self.__class__, self.time))
        return hash((self.run_id, self.attempt, self.seq))

    def publish(self, event: Event) -> None:
        """Publish an event of your own in this event's run, where it gets its number. From any thread.

        Of the events that asyncfit defines `CheckpointSaved` and `CheckpointFailed` may be published by anybody, for
        anybody may write files.

        Raises:
            DetachedEvent: there is no run, or it has come to its `TrainEnd`, behind which nothing comes. A handler
                that nobody waits for may be that late; a gate never is.
        """
        self._controlled("publish()").publish(event)

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts, wait: bool = True) -> None:
        """Run `await function(*args)` in a task of the run, and wait for it no sooner than at the run's end.

        For work that no decision depends on, such as writing a file, while training goes on. The run ends when all of
        it is done, and `TrainEnd` comes after whatever it publishes. At a normal end it may take as long as it needs;
        after a cancellation or failure it has half of the run's `grace`, then it is cancelled. What it raises acts as
        if the handler had raised it (`on_error`). From any thread.

        With `wait=False` nobody waits for it: what goes on as long as the run does, such as a timer, is cancelled when
        all have dealt with `TrainEnd`.

        Raises:
            TypeError: `function` is not async.
            DetachedEvent: there is no run, or it has come to its `TrainEnd` (with `wait=False`: or it has ended).
        """
        self._controlled("start_soon()").start_soon(function, args, wait)

    def to_dict(self) -> dict[str, Any]:
        """The event in plain JSON types, with "type"; `Event.from_dict` reads it back exactly.

        Non-finite numbers are text ("NaN", "Infinity", "-Infinity"). Arrays, models and exceptions are named
        (`{"$omitted": "exception", "text": "ValueError('…')"}`) and come back as `Omitted`.
        """
        out: dict[str, Any] = {"type": self.type}
        for name in _field_names(self.__class__):
            out[name] = _plain(getattr(self, name))
        return out

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Event:
        """The event that `to_dict` gave `data`.

        Raises:
            InvalidInput: `data` is no such dict, or its type is unknown here (import the module that defines it).
        """
        kind = data.get("type")
        cls = _kinds.get(kind) if isinstance(kind, str) else None
        if cls is None:
            raise InvalidInput(unknown("event", kind, _kinds))
        names = set(_field_names(cls))
        extra = [key for key in data if key != "type" and key not in names]
        if extra:
            raise InvalidInput(unknown(f"field of {kind}", extra[0], names))
        try:
            return cls(**{key: _restored(value) for key, value in data.items() if key != "type"})
        except TypeError as error:
            raise InvalidInput(f"no whole {kind}: {error}") from None

    def _replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, without control and model."""
        values = {name: getattr(self, name) for name in _field_names(self.__class__)}
        return self.__class__(**(values | changes))

    def _attach(self, control: Control | None = None, model: Any = None) -> Self:
        object.__setattr__(self, "_control", control)
        object.__setattr__(self, "_model", model)
        return self

    def __copy__(self) -> Self:
        return self._replace()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._replace()

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: _picklable(getattr(self, name)) for name in _field_names(self.__class__)}
        return _unpickled, (self.__class__, values)

    def _controlled(self, what: str) -> Control:
        control: Control | None = getattr(self, "_control", None)
        if control is None and self.run_id is not None and isinstance(self, TrainEnd):
            raise DetachedEvent(f"nothing of run {self.run_id} comes after its TrainEnd, so {what} has no effect")
        if control is None:
            raise DetachedEvent(f"{self.type} {self.id!r} belongs to no live run, so {what} has no effect")
        return control


def _field_names(cls: type[Event]) -> tuple[str, ...]:
    names = _names_of.get(cls)
    if names is None:
        names = _names_of[cls] = tuple(f.name for f in fields(cls) if f.init)
    return names


_names_of: dict[type[Event], tuple[str, ...]] = {}


def _picklable(value: Any) -> Any:
    """`value`, or what it says if it cannot be pickled (an exception that holds a lock, say)."""
    if value is None or isinstance(value, str | int | float | FrozenDict):
        return value
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        if isinstance(value, BaseException):
            return AsyncFitError(f"{type(value).__name__}: {value}")
        return None
    return value


def _unpickled(cls: type[E], values: dict[str, Any]) -> E:
    return cls(**values)


# --- what a handler may ask for -----------------------------------------------------------------------------------


class _Stops(_Attached):
    __slots__ = ()

    def stop(self, reason: str = "", *, resumable: bool = False) -> None:
        """Ask the run to stop as of this event.

        In a gate the run ends as if a blocking callback had stopped it here. Elsewhere it is a request from outside:
        it acts at the next place where compute can stop. `resumable=True` means "to be continued": `TrainEnd.resumable`
        tells, and `BackupAndRestore` writes a last checkpoint and keeps its files, which it deletes after a stop for
        good.
        """
        cast("Event", self)._controlled("stop()").stop(reason, resumable)

    def cancel(self, reason: str = "") -> None:
        """Cancel the run, as `run.cancel(reason)` does: from any thread, whether or not a gate holds the event."""
        cast("Event", self)._controlled("cancel()").cancel(reason)


class _Steers(_Stops):
    __slots__ = ()

    @property
    def learning_rate(self) -> float:
        """The learning rate as of this event, with what gates of a lower `order` have set. Gates and inline only."""
        return cast("Event", self)._controlled("learning_rate").learning_rate()

    def set_learning_rate(self, value: float) -> None:
        """Train on with this rate. Gates only; of several settings at one boundary the last one holds."""
        cast("Event", self)._controlled("set_learning_rate()").set_learning_rate(value)

    def set_weights(self, snapshot: Snapshot) -> None:
        """Train on from the snapshot's weights; rate, step and optimizer slots stay. Gates only."""
        cast("Event", self)._controlled("set_weights()").set_weights(snapshot)


class _Restores(_Steers):
    __slots__ = ()

    def restore_at_end(self, snapshot: Snapshot, *, default: bool = False) -> None:
        """Leave the model with the snapshot's weights when the run completes or is stopped. Gates only.

        Of several the last one holds; those with `default=True` only if there is no other.
        """
        cast("Event", self)._controlled("restore_at_end()").restore_at_end(snapshot, bool(default))


class _AddsLogs(_Restores):
    __slots__ = ()

    def add_logs(self, **values: SupportsFloat) -> None:
        """Add to the logs: later order groups, queued subscribers and the History see it.

        A figure that has the name already is replaced: `add_logs(loss=3)` makes 3 the epoch's loss for all of these.
        Gates only. What is added to a ValidationEnd appears in the EpochEnd with `val_` in front.
        """
        cast("Event", self)._controlled("add_logs()").add_logs(values)

    def show_model(self, snapshot: Snapshot) -> None:
        """Let later order groups get this snapshot as their `event.model`, an average of the weights, say.

        Gates only. What is trained stays as it is, and so does what queued subscribers get.
        """
        cast("Event", self)._controlled("show_model()").show_model(snapshot)


class _HasModel(_Attached):
    __slots__ = ()

    @property
    def model(self) -> Snapshot:
        """The model exactly as it was at this event: immutable, and valid as long as somebody holds it."""
        model = getattr(self, "_model", None)
        if model is None:
            raise DetachedEvent(
                f"{cast('Event', self).type} carries no model here: a queue of models would fill the memory. "
                "Subscribe with gate=True, or with snapshots=True if you want one with every event"
            )
        return cast("Snapshot", model)


# --- the events of a model -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerCreated(Event):
    """A layer was added to a model (the 'layer callback').

    Attributes:
        layer: the layer.
        index: its position in the model, from 0.
    """

    layer: Any
    index: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelCompiled(Event):
    """`compile` was called (the 'model callback').

    Attributes:
        model: the model.
        optimizer, loss: their names.
        metrics: the names of the metrics, in the order of the logs.
    """

    model: Any
    optimizer: str
    loss: str
    metrics: tuple[str, ...] = ()

    lossy: ClassVar[bool] = False


# --- the events of a run -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainBegin(Event, _HasModel, _Steers):
    """The run begins.

    Attributes:
        params: epochs, initial_epoch, steps (batches an epoch), batch_size, samples, validation_samples, executor,
            lookahead, blas, kernels, threads, state_bytes (size of the state), memory (bytes that the state and the
            run's copies of it may take at most; what you keep, `event.model` in your own hands or in a subscriber's
            queue, comes on top), resumed (None, or a dict of where the run goes on: path of the checkpoint, run_id,
            attempt, epoch, batch, step), trainable (its class's name); of a `Sequential` also metrics: their keys in
            logs, each with "min", "max" or None for what is better.
    """

    params: Mapping[str, Any]

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochBegin(Event, _HasModel, _Restores):
    """An epoch begins. `epoch` counts from 0."""

    epoch: int

    lossy: ClassVar[bool] = False
    numbered: ClassVar[str | None] = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochEnd(Event, _HasModel, _AddsLogs):
    """An epoch ended.

    Attributes:
        epoch: from 0.
        logs: the loss and each metric, as means over the epoch's samples; the same of the validation with `val_` in
            front; `learning_rate`, the rate that the epoch's batches used; what gates added.
        complete: False if a stop left batches of it undone: the means are over the batches done, without validation.
    """

    epoch: int
    logs: Mapping[str, float]
    complete: bool = True

    lossy: ClassVar[bool] = False
    numbered: ClassVar[str | None] = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchBegin(Event):
    """A batch is about to be trained on. All three count from 0; `step` never resets within a model's run."""

    epoch: int
    batch: int
    step: int

    numbered: ClassVar[str | None] = "step"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchEnd(Event, _HasModel, _Stops):
    """A batch was trained on; the weights include it.

    Attributes:
        epoch, batch: from 0; `batch` within the epoch.
        step: from 0, never resets.
        size: rows in this batch.
        logs: the loss and the metrics of this batch alone.
    """

    epoch: int
    batch: int
    step: int
    size: int
    logs: Mapping[str, float]

    numbered: ClassVar[str | None] = "step"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValidationBegin(Event, _Restores):
    """The validation after an epoch begins. It brings no model: that of `ValidationEnd` is the same."""

    epoch: int

    lossy: ClassVar[bool] = False
    numbered: ClassVar[str | None] = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValidationEnd(Event, _HasModel, _AddsLogs):
    """The validation ended. `logs`: loss and metrics over the validation data, without the `val_` prefix."""

    epoch: int
    logs: Mapping[str, float]

    lossy: ClassVar[bool] = False
    numbered: ClassVar[str | None] = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainEnd(Event, _HasModel):
    """The run ended: once, last, whatever happened.

    Attributes:
        outcome: "completed", "stopped", "cancelled" or "failed".
        reason: why it was stopped or cancelled.
        resumable: whether it was stopped to be continued.
        step: batches completed.
        unread: batches that were taken of data that can be read once only, and that were not trained on.
        logs: those of the last `EpochEnd`.
        error: what made it fail, or None.
    """

    outcome: Outcome
    reason: str = ""
    resumable: bool = False
    step: int = 0
    unread: int = 0
    logs: Mapping[str, float] = FrozenDict()
    error: BaseException | Omitted | None = None

    lossy: ClassVar[bool] = False


# --- the events of a pass ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluateBegin(Event):
    """An `evaluate` begins. `params`: samples, batch_size, steps (batches)."""

    params: Mapping[str, Any]

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluateBatchEnd(Event):
    """A batch was evaluated.

    Attributes:
        batch: from 0.
        size: rows in this batch.
        logs: the loss and the metrics of this batch alone.
    """

    batch: int
    size: int
    logs: Mapping[str, float]

    numbered: ClassVar[str | None] = "batch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluateEnd(Event):
    """An `evaluate` ended: once, last, whatever happened.

    Attributes:
        outcome: "completed", "cancelled" or "failed".
        reason: why it was cancelled.
        batches: how many were done.
        logs: the loss and the metrics over all samples; empty unless it completed.
        error: what made it fail, or None.
    """

    outcome: Outcome
    reason: str = ""
    batches: int = 0
    logs: Mapping[str, float] = FrozenDict()
    error: BaseException | Omitted | None = None

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictBegin(Event):
    """A `predict` begins. `params`: samples, batch_size, steps (batches)."""

    params: Mapping[str, Any]

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictBatchEnd(Event):
    """A batch was predicted.

    Attributes:
        batch: from 0.
        size: rows in this batch.
        outputs: of these rows, `(size, *output_shape)`: a read-only view of the result, so it costs no memory while
            the result is there. `to_dict` leaves them out.
    """

    batch: int
    size: int
    outputs: Any

    numbered: ClassVar[str | None] = "batch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictEnd(Event):
    """A `predict` ended: once, last, whatever happened. Its fields are those of `EvaluateEnd`, without logs."""

    outcome: Outcome
    reason: str = ""
    batches: int = 0
    error: BaseException | Omitted | None = None

    lossy: ClassVar[bool] = False


# --- facts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StopRequested(Event):
    """Somebody asked for a stop. Where a stop acted is `TrainEnd.step`.

    Attributes:
        who: the subscriber, or "run" for a call of `run.stop`.
        reason, resumable: as given.
        step: batches published when it was asked for.
    """

    who: str
    reason: str = ""
    resumable: bool = False
    step: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearningRateChanged(Event):
    """The learning rate was changed from `previous` to `value` by `who`, as of `step`."""

    who: str
    value: float
    previous: float
    step: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightsRestored(Event):
    """The weights of an earlier snapshot were put in by `who`.

    Attributes:
        step: as of which step of the run.
        source_step: the step of the snapshot.
    """

    who: str
    step: int
    source_step: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckpointSaved(Event):
    """A file was written and is durable. `size` in bytes, `seconds` from the snapshot to the durable file."""

    path: str
    size: int
    seconds: float
    step: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckpointFailed(Event):
    """A file could not be written; what was there before is still there.

    Or, right behind the TrainBegin of a resumed run: a newer checkpoint than the one that it goes on with, that of
    `step`, could not be used; `error` is a `BadFile` then.
    """

    path: str
    error: BaseException | Omitted
    step: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkerRestarted(Event):
    """The process that computed was lost, and another one goes on; nothing is told twice, and nothing is missing.

    Attributes:
        step: batches completed, as far as they were published.
        from_step: batches completed where the new process begins: an earlier boundary, whose batches it repeats, or one
            that compute had reached ahead of what is published.
        error: how the process was lost, a `WorkerLost`.
        left: how many more this run may lose.
    """

    step: int
    from_step: int
    error: BaseException | Omitted
    left: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SubscriberFailed(Event):
    """A handler raised and its subscription says "log" or "detach", or a subscriber was ended for falling behind."""

    name: str
    error: BaseException | Omitted

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventsDropped(Event):
    """This subscriber missed events: `count` of them, the first and the last with these numbers.

    It goes to that subscriber alone, before its next event, and takes the number of the last one dropped.
    """

    first: int
    last: int
    count: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunPaused(Event):
    """Compute was asked to pause, when `step` batches were published."""

    step: int

    lossy: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunResumed(Event):
    """Compute was asked to go on."""

    step: int

    lossy: ClassVar[bool] = False


# --- making many ---------------------------------------------------------------------------------------------------


def maker(cls: type[E]) -> Callable[..., E]:
    """A function that makes `cls` from all its fields, by position, several times faster than the class itself.

    A frozen dataclass sets each field through `object.__setattr__`, which is most of what an event per batch costs.
    Here the fields are set on a twin class of the same layout that is not frozen, which then becomes the real one.
    """
    plain = {
        "__slots__": (),
        "__setattr__": object.__setattr__,
        "__delattr__": object.__delattr__,
    }  # both, or neither
    draft = type(f"_{cls.__name__}Draft", (cls,), plain)
    _kinds.pop(draft.__name__, None)
    names = _field_names(cls)
    lines = [f"def make({', '.join(names)}, control=None):", "    event = new(draft)"]
    lines += [f"    event.{name} = {name}" for name in names]
    lines += [
        "    event._control = control",
        "    event._model = None",
        "    event.__class__ = cls",
        "    return event",
    ]
    scope: dict[str, Any] = {"new": object.__new__, "draft": draft, "cls": cls}
    exec("\n".join(lines), scope)
    return cast("Callable[..., E]", scope["make"])


def kinds_below(cls: type[Event]) -> Iterator[type[Event]]:
    """`cls` and all its subclasses that are known now."""
    for kind in _kinds.values():
        if issubclass(kind, cls):
            yield kind
