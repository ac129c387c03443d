"""`Callback`: one object with a method for each event. It is checked when it is defined, and again when it is used.

It turns into one subscription whose hooks are the methods that were overridden; nothing here runs them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

from .events import (
    BatchBegin,
    BatchEnd,
    CheckpointFailed,
    CheckpointSaved,
    EpochBegin,
    EpochEnd,
    EvaluateBatchEnd,
    EvaluateBegin,
    EvaluateEnd,
    Event,
    EventsDropped,
    LayerCreated,
    LearningRateChanged,
    ModelCompiled,
    PredictBatchEnd,
    PredictBegin,
    PredictEnd,
    RunPaused,
    RunResumed,
    StopRequested,
    SubscriberFailed,
    TrainBegin,
    TrainEnd,
    ValidationBegin,
    ValidationEnd,
    WeightsRestored,
    WorkerRestarted,
    kinds_below,
)
from .mailbox import MOST_LOSSLESS
from .names import nearest, snake
from .subscriptions import Hook, How, Mode, OnError, Subscription, check_handler, is_async

__all__ = ["Callback", "hook_line", "hook_names", "inline", "subscription_of"]

F = TypeVar("F", bound=Callable[..., Any])

RUN_GATES = (TrainBegin, EpochBegin, ValidationBegin, ValidationEnd, EpochEnd, TrainEnd)
PASS_GATES = (EvaluateBegin, EvaluateEnd, PredictBegin, PredictEnd)
EPOCH_GATES = RUN_GATES + PASS_GATES
BATCH_GATES = (BatchBegin, BatchEnd)

ALIASES: dict[str, tuple[str, ...]] = {
    "on_train_batch_begin": ("on_batch_begin",),
    "on_train_batch_end": ("on_batch_end",),
    "on_test_begin": ("on_validation_begin", "on_evaluate_begin"),
    "on_test_end": ("on_validation_end", "on_evaluate_end"),
    "on_test_batch_end": ("on_evaluate_batch_end",),
}
"""Keras's other names for hooks. Keras has one hook for validations in `fit` and for `evaluate`."""

_NO_EVENT = {
    "on_test_batch_begin": "the begin of an evaluated batch is no event; on_evaluate_batch_end has its figures",
    "on_evaluate_batch_begin": "the begin of an evaluated batch is no event; on_evaluate_batch_end has its figures",
    "on_validation_batch_begin": "a batch of the validation is no event; on_validation_end has the figures",
    "on_validation_batch_end": "a batch of the validation is no event; on_validation_end has the figures",
    "on_predict_batch_begin": "the begin of a predicted batch is no event; on_predict_batch_end has its outputs",
    "on_yield": "asyncfit leaves the loop free by itself",
}
_SETTERS = {
    "set_model": "each event brings the model as it was then, event.model",
    "set_params": "on_train_begin gets the parameters, event.params",
}
_MOMENTS = {"finish": "end", "finished": "end", "done": "end", "complete": "end", "completed": "end", "ended": "end",
            "start": "begin", "started": "begin", "begun": "begin"}  # fmt: skip
"""What others call the end and the begin of things."""
_INLINE = "__asyncfit_inline__"


class _Elsewhere:
    """An attribute that Keras's callbacks have and ours do not, until somebody sets it."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(self._message)


class Callback:
    """Subclass it and override what you need, as `def` or `async def`; each hook takes one argument, the event.

    One object is one subscriber: its hooks run one at a time, in order, and none is left out. That holds within a run
    or a pass (`evaluate`, `predict`); those of an object that takes part in several at a time may overlap.

    A plain hook marked `@af.inline` runs in compute's own thread, at the event, and compute waits for it: see
    `help(af.inline)`.

    Attributes:
        gates: which hooks the run's decisions wait for: "epoch" (train, epoch and validation hooks), "batch" (batch
            hooks as well) or "none" (it only watches). A pass waits for the hooks of its begin and end unless it is
            "none", and never for those of its batches.
        order: gates of one event run in groups by this number, lowest first; a later group sees the logs that the
            groups before it added. Those of `asyncfit.callbacks` that decide (to stop, on a rate) have 100, those that
            save 200.
        every: of the batches only the n-th, 2n-th and so on reach the batch hooks, counted by `step` from the run's
            beginning, in a pass by `batch`. The other hooks get all their events.
        thread: run plain hooks in a thread.
        timeout: seconds that one hook may take.
        on_error: "raise" (the run fails), "log" or "detach" (log, and cancel this callback).
        name: what statistics and messages call it; by default the class's name.
        portable: its inline hooks may run on a copy of the callback in a process of their own (executor="process"):
            what they change in the copy stays there. If the class is not importable or the object not picklable they
            are gates, here. Without it such a callback is refused there.
        sets_learning_rate: it sets the rate of what it trains. `fit` refuses it for a model whose rate follows a
            schedule of its own.
    """

    gates: Literal["epoch", "batch", "none"] = "epoch"
    order: int = 0
    every: int = 1
    thread: bool = False
    timeout: float | None = None
    on_error: OnError = "raise"
    name: str | None = None
    portable: bool = False
    sets_learning_rate: bool = False

    model: Any = _Elsewhere(
        "a callback has no self.model here; each event brings the model as it was then: event.model "
        "(and event.stop() in place of self.model.stop_training = True)"
    )
    params: Any = _Elsewhere("a callback has no self.params here; on_train_begin gets them: event.params")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_class(cls)

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint has to keep of it. Override it together with `load_state_dict`.

        Names to arrays, numbers, text and None, or to lists and dicts of numbers and text (tuples come back as lists).
        It is called on the run's loop, between two events of this callback.

        If it speaks of files that this callback is still writing, give it an `async def settled(self)` as well: the
        checkpoint is written when that has returned, so that no crash leaves one that knows of files which are not
        there.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, before the run goes on."""

    def on_event(self, event: Event) -> Awaitable[None] | None:
        """Any event that no other hook of this callback is for, those of classes that are defined later included.

        It only watches, whatever `gates` says: the run waits for the hooks of the events themselves.
        """
        return None

    def on_layer_created(self, event: LayerCreated) -> Awaitable[None] | None:
        """A layer was added to a model."""
        return None

    def on_model_compiled(self, event: ModelCompiled) -> Awaitable[None] | None:
        """`compile` was called."""
        return None

    def on_train_begin(self, event: TrainBegin) -> Awaitable[None] | None:
        """The run begins."""
        return None

    def on_train_end(self, event: TrainEnd) -> Awaitable[None] | None:
        """The run ended: once, last, whatever happened."""
        return None

    def on_epoch_begin(self, event: EpochBegin) -> Awaitable[None] | None:
        """An epoch begins."""
        return None

    def on_epoch_end(self, event: EpochEnd) -> Awaitable[None] | None:
        """An epoch ended; `event.logs` has its figures."""
        return None

    def on_batch_begin(self, event: BatchBegin) -> Awaitable[None] | None:
        """A batch is about to be trained on."""
        return None

    def on_batch_end(self, event: BatchEnd) -> Awaitable[None] | None:
        """A batch was trained on."""
        return None

    def on_validation_begin(self, event: ValidationBegin) -> Awaitable[None] | None:
        """The validation after an epoch begins."""
        return None

    def on_validation_end(self, event: ValidationEnd) -> Awaitable[None] | None:
        """The validation ended; `event.logs` has its figures."""
        return None

    def on_evaluate_begin(self, event: EvaluateBegin) -> Awaitable[None] | None:
        """An `evaluate` begins."""
        return None

    def on_evaluate_batch_end(self, event: EvaluateBatchEnd) -> Awaitable[None] | None:
        """A batch was evaluated."""
        return None

    def on_evaluate_end(self, event: EvaluateEnd) -> Awaitable[None] | None:
        """An `evaluate` ended: once, last, whatever happened; `event.logs` has its figures."""
        return None

    def on_predict_begin(self, event: PredictBegin) -> Awaitable[None] | None:
        """A `predict` begins."""
        return None

    def on_predict_batch_end(self, event: PredictBatchEnd) -> Awaitable[None] | None:
        """A batch was predicted; `event.outputs` are its rows of the result."""
        return None

    def on_predict_end(self, event: PredictEnd) -> Awaitable[None] | None:
        """A `predict` ended: once, last, whatever happened."""
        return None

    def on_stop_requested(self, event: StopRequested) -> Awaitable[None] | None:
        """Somebody asked for a stop."""
        return None

    def on_learning_rate_changed(self, event: LearningRateChanged) -> Awaitable[None] | None:
        """The learning rate was changed."""
        return None

    def on_weights_restored(self, event: WeightsRestored) -> Awaitable[None] | None:
        """The weights of an earlier snapshot were put in."""
        return None

    def on_checkpoint_saved(self, event: CheckpointSaved) -> Awaitable[None] | None:
        """A file was written and is durable."""
        return None

    def on_checkpoint_failed(self, event: CheckpointFailed) -> Awaitable[None] | None:
        """A file could not be written."""
        return None

    def on_worker_restarted(self, event: WorkerRestarted) -> Awaitable[None] | None:
        """The process that computed was lost, and another one goes on."""
        return None

    def on_subscriber_failed(self, event: SubscriberFailed) -> Awaitable[None] | None:
        """A subscriber failed, and the run goes on."""
        return None

    def on_events_dropped(self, event: EventsDropped) -> Awaitable[None] | None:
        """Events of this subscriber were dropped. A callback's never are."""
        return None

    def on_run_paused(self, event: RunPaused) -> Awaitable[None] | None:
        """Compute was asked to pause."""
        return None

    def on_run_resumed(self, event: RunResumed) -> Awaitable[None] | None:
        """Compute was asked to go on."""
        return None

    def on_train_batch_begin(self, event: BatchBegin) -> Awaitable[None] | None:
        """Keras's other name for `on_batch_begin`."""
        return self.on_batch_begin(event)

    def on_train_batch_end(self, event: BatchEnd) -> Awaitable[None] | None:
        """Keras's other name for `on_batch_end`."""
        return self.on_batch_end(event)

    def on_test_begin(self, event: ValidationBegin | EvaluateBegin) -> Awaitable[None] | None:
        """Keras's name for `on_validation_begin` and `on_evaluate_begin` together."""
        if isinstance(event, EvaluateBegin):
            return self.on_evaluate_begin(event)
        return self.on_validation_begin(event)

    def on_test_end(self, event: ValidationEnd | EvaluateEnd) -> Awaitable[None] | None:
        """Keras's name for `on_validation_end` and `on_evaluate_end` together."""
        if isinstance(event, EvaluateEnd):
            return self.on_evaluate_end(event)
        return self.on_validation_end(event)

    def on_test_batch_end(self, event: EvaluateBatchEnd) -> Awaitable[None] | None:
        """Keras's other name for `on_evaluate_batch_end`. A batch of a validation is no event."""
        return self.on_evaluate_batch_end(event)


@overload
def inline(hook: F, /) -> F: ...
@overload
def inline(hook: None = None, /, *, replayable: bool = False) -> Callable[[F], F]: ...
def inline(hook: Any = None, /, *, replayable: bool = False) -> Any:
    """Mark a callback's plain hook to run in compute, at the event, on the live model: `@af.inline`.

    Compute waits for it, so it should be quick; what it asks for, a stop or another rate, acts as of its event and
    undoes no work. It runs in compute's thread, not in the loop's.

    `replayable=True` says that it may see a step again, with `event.replay`, after work was undone.
    """
    if hook is None:
        return functools.partial(_inline, replayable=replayable)
    if not callable(hook) and not isinstance(hook, staticmethod | classmethod):
        raise TypeError(
            f"@af.inline marks a hook, or takes replayable= alone: @af.inline(replayable=True); got {hook!r}"
        )
    return _inline(hook, replayable=replayable)


def _inline(hook: Any, *, replayable: bool) -> Any:
    function = hook.__func__ if isinstance(hook, staticmethod | classmethod) else hook
    if is_async(function):
        raise TypeError(
            f"@af.inline is for plain hooks: compute cannot await. Write def {function.__name__}(self, event)"
        )
    setattr(function, _INLINE, replayable)
    return hook


# --- checks --------------------------------------------------------------------------------------------------------


def hook_names() -> dict[str, type[Event]]:
    """Hook names and their events; users' own events are hooks too, once their class is known."""
    return {f"on_{snake(kind.__name__)}": kind for kind in kinds_below(Event)} | {"on_event": Event}


def hook_line(name: str, write: str = "async def {}(self, event): …") -> str:
    """The line to write for a hook."""
    kind = hook_names().get(ALIASES.get(name, (name,))[0])
    names = [] if kind is None else [f for f in ("epoch", "batch", "step", "logs") if f in kind.__dataclass_fields__]
    hint = f"  # {', '.join('event.' + f for f in names[-2:])}" if names else ""
    return write.format(name) + hint


def _check_class(cls: type[Callback]) -> None:
    """Refuse what looks like a hook and is none, or would never be called as meant."""
    for name, way in _SETTERS.items():
        if callable(getattr(cls, name, None)):
            raise TypeError(f"{cls.__name__}.{name} would never be called: {way}")
    known = hook_names()
    seen: dict[str, object] = {}
    for base in reversed(cls.__mro__):  # mixins that are no callbacks included
        if base is not object and base is not Callback:
            seen.update({name: value for name, value in vars(base).items() if name.lower().startswith("on")})
    for name, value in seen.items():
        function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if name == "on_error" or not callable(function):
            continue
        if name not in known and name not in ALIASES:
            _check_name(cls, name, known)
            continue
        try:
            check_handler(_without_self(value), f"{cls.__name__}.{name}")
            named = [p for p in inspect.signature(function).parameters if p in ("epoch", "batch", "logs")]
        except ValueError:
            named = []
        except TypeError as error:
            if "yield" in str(error):
                raise
            named = ["?"]
        if named:
            given = inspect.signature(function)
            raise TypeError(
                f"{cls.__name__}.{name}{given} does not fit: a hook takes one argument, the event. "
                f"Write {hook_line(name)}"
            )
    for alias, names in ALIASES.items():
        for name in names:
            if alias in seen and name in seen:
                raise TypeError(f"{cls.__name__} has {name} and {alias}, which are one hook; keep {name}")


def _without_self(value: object) -> object:
    """A hook as it is called, on some object, without calling it."""
    if isinstance(value, staticmethod):
        return value.__func__
    if isinstance(value, classmethod):
        return functools.partial(value.__func__, object)
    if inspect.isfunction(value):
        return functools.partial(value, None)
    return value


def _check_name(cls: type, name: str, known: Iterable[str]) -> None:
    """A name that is no hook: fine for a method of one's own unless it begins as hooks do."""
    camel = name.startswith("on") and name[2:3].isupper()
    if not camel and not name.startswith("on_"):
        return
    hook = snake(name)
    if hook in _NO_EVENT:
        raise TypeError(f"{cls.__name__}.{name} would never be called: {_NO_EVENT[hook]}")
    of, _, moment = hook.rpartition("_")
    meant = f"{of}_{_MOMENTS.get(moment, moment)}"
    guess = meant if meant in known or meant in ALIASES else nearest(hook, [*known, *ALIASES])
    if guess is not None:
        raise TypeError(f"{cls.__name__}.{name} is no hook and would never be called. Write {hook_line(guess)}")
    if camel:
        return
    raise TypeError(
        f"{cls.__name__}.{name} is no hook and would never be called; hooks are {', '.join(sorted(known))}. "
        "Give a method of your own another name, without on_ in front"
    )


# --- as a subscriber -----------------------------------------------------------------------------------------------


def subscription_of(callback: object, name: str | None = None) -> Subscription:
    """The subscription of a callback: the hooks it overrides, checked. `name` stands in for the callback's own.

    Batch events never get lost: at a backlog of 10,000 the source waits.

    Raises:
        TypeError: it is no `Callback` (the message says what to do), or a hook cannot be called.
        ValueError: one of its settings is out of range.
    """
    if not isinstance(callback, Callback):
        raise TypeError(_no_callback(callback))
    owner = type(callback)
    label = name or callback.name or owner.__name__
    if callback.gates not in ("epoch", "batch", "none"):
        raise ValueError(f"{label}.gates={callback.gates!r} is unknown; choose 'epoch', 'batch' or 'none'")
    options = {key: getattr(callback, key) for key in ("order", "every", "thread", "timeout", "on_error")}
    how = How.of(label, {**options, "overflow": "block", "buffer": MOST_LOSSLESS, "name": label})
    hooks: dict[type[Event], Hook] = {}
    for name, kind in hook_names().items():
        found = _overridden(callback, name)
        for alias in (alias for alias, meant in ALIASES.items() if name in meant):
            other = _overridden(callback, alias)
            if other is not None and found is not None:
                raise TypeError(f"{label} has {name} and {alias}, which are one hook; keep {name}")
            found = found or other
        if found is not None:
            hooks[kind] = _hook(callback, found, kind, f"{label}.{name}")
    return Subscription(hooks, how, label, source=callback, only_batches=True)


def _overridden(callback: Callback, name: str) -> Callable[[Any], Any] | None:
    """The callback's own method of this name, None if it has only the base's."""
    found: Callable[[Any], Any] | None = getattr(callback, name, None)
    if found is None or getattr(found, "__func__", found) is getattr(Callback, name, None):
        return None
    return found


def _hook(callback: Callback, call: Callable[[Any], Any], kind: type[Event], label: str) -> Hook:
    check_handler(call, label)
    awaited = is_async(call)
    replayable: bool | None = getattr(call, _INLINE, None)
    mode: Mode = "queued"
    if replayable is not None:
        if callback.timeout is not None or callback.thread:
            raise ValueError(f"{label} is inline, so it runs at the event: neither thread= nor timeout= can apply")
        mode = "inline"
    elif kind.__mro__ and any(
        issubclass(kind, gates)
        for setting, gates in (("epoch", EPOCH_GATES), ("batch", EPOCH_GATES + BATCH_GATES))
        if setting == callback.gates
    ):
        mode = "gate"
    return Hook(call, awaited, mode, bool(replayable), callback.thread and not awaited, label)


def _no_callback(given: object) -> str:
    if isinstance(given, type) and issubclass(given, Callback):
        return f"callbacks takes objects; give {given.__name__}(…), not the class"
    if inspect.iscoroutine(given):
        given.close()
        return "callbacks takes Callback objects; drop the () after the function, and subscribe it on a bus"
    if inspect.isroutine(given) or isinstance(given, functools.partial):
        name = getattr(given, "__name__", "function")
        return (
            f"callbacks takes Callback objects, not the function {name}; subscribe it on a bus: "
            f"bus.subscribe(af.EpochEnd, {name}), give bus=bus; or make one with asyncfit.callbacks.LambdaCallback"
        )
    if isinstance(given, str):
        return (
            f"callbacks takes Callback objects, not names such as {given!r}; make one, such as "
            "asyncfit.callbacks.EarlyStopping(patience=3)"
        )
    kind = type(given)
    if kind.__module__.partition(".")[0] in ("keras", "tf_keras", "tensorflow"):
        return (
            f"callbacks takes Callback objects of asyncfit, not Keras's {kind.__name__}; asyncfit.callbacks has those "
            "of Keras under the same names, and af.Callback is the base of your own"
        )
    methods = any(callable(getattr(given, hook, None)) for hook in [*hook_names(), *ALIASES])
    hint = f"let {kind.__name__} inherit from af.Callback" if methods else "subclass af.Callback"
    return f"callbacks takes Callback objects, not {given!r}; {hint}"
