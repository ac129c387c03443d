from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from asyncfit.callback import ALIASES, Callback, inline, subscription_of
from asyncfit.events import (
    BatchBegin,
    BatchEnd,
    EpochBegin,
    EpochEnd,
    EvaluateBatchEnd,
    EvaluateEnd,
    Event,
    LayerCreated,
    ModelCompiled,
    StopRequested,
    TrainBegin,
    TrainEnd,
    ValidationBegin,
    ValidationEnd,
    kinds_below,
)
from asyncfit.names import snake

BUILT_IN = [kind for kind in kinds_below(Event) if kind.__module__ == "asyncfit.events"]


def modes(callback: Callback) -> dict[str, str]:
    subscription = subscription_of(callback)
    found = {kind: subscription.handler_for(kind) for kind in BUILT_IN}
    return {kind.__name__: hook.mode for kind, hook in found.items() if hook is not None}


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
def test_there_is_a_hook_for_each_event_and_it_does_nothing(kind: type[Event]) -> None:
    hook = getattr(Callback(), f"on_{snake(kind.__name__)}")
    assert hook.__doc__
    assert hook(object()) is None


def test_a_callback_is_one_subscriber_for_the_hooks_that_it_overrides() -> None:
    class Tracker(Callback):
        async def on_train_begin(self, event: TrainBegin) -> None: ...
        async def on_batch_end(self, event: BatchEnd) -> None: ...
        def on_epoch_end(self, event: EpochEnd) -> None: ...
        def on_stop_requested(self, event: StopRequested) -> None: ...
        async def on_layer_created(self, event: LayerCreated) -> None: ...
        def on_model_compiled(self, event: ModelCompiled) -> None: ...

    tracker = Tracker()
    subscription = subscription_of(tracker)
    assert subscription.name == "Tracker"
    assert subscription.source is tracker
    assert subscription.mode == "gate"
    assert set(subscription.kinds) == {TrainBegin, BatchEnd, EpochEnd, StopRequested, LayerCreated, ModelCompiled}
    hook = subscription.handler_for(BatchEnd)
    assert hook is not None
    assert (hook.is_async, hook.label) == (True, "Tracker.on_batch_end")


@pytest.mark.parametrize(
    ("gates", "gated"),
    [
        ("epoch", {"TrainBegin", "TrainEnd", "EpochBegin", "EpochEnd", "ValidationBegin", "ValidationEnd"}),
        (
            "batch",
            {"TrainBegin", "TrainEnd", "EpochBegin", "EpochEnd", "ValidationBegin", "ValidationEnd"}
            | {"BatchBegin", "BatchEnd"},
        ),
        ("none", set()),
    ],
)
def test_gates_says_which_hooks_the_run_waits_for(gates: Any, gated: set[str]) -> None:
    class All(Callback):
        def on_train_begin(self, event: TrainBegin) -> None: ...
        def on_train_end(self, event: TrainEnd) -> None: ...
        def on_epoch_begin(self, event: EpochBegin) -> None: ...
        def on_epoch_end(self, event: EpochEnd) -> None: ...
        def on_batch_begin(self, event: BatchBegin) -> None: ...
        def on_batch_end(self, event: BatchEnd) -> None: ...
        def on_validation_begin(self, event: ValidationBegin) -> None: ...
        def on_validation_end(self, event: ValidationEnd) -> None: ...
        def on_stop_requested(self, event: StopRequested) -> None: ...
        def on_layer_created(self, event: LayerCreated) -> None: ...

    callback = All()
    callback.gates = gates
    assert {name for name, mode in modes(callback).items() if mode == "gate"} == gated
    assert {name for name, mode in modes(callback).items() if mode == "queued"} == set(modes(callback)) - gated


def test_kerass_other_names_are_hooks() -> None:
    class Keras(Callback):
        def on_train_batch_end(self, event: BatchEnd) -> None:
            super().on_train_batch_end(event)

        async def on_test_end(self, event: ValidationEnd | EvaluateEnd) -> None: ...
        def on_test_batch_end(self, event: EvaluateBatchEnd) -> None: ...

    gates = {"ValidationEnd": "gate", "EvaluateEnd": "gate"}
    assert modes(Keras()) == {"BatchEnd": "queued", "EvaluateBatchEnd": "queued", **gates}


@pytest.mark.parametrize(("alias", "name"), [(alias, name) for alias, names in ALIASES.items() for name in names])
def test_one_hook_under_both_names_is_refused(alias: str, name: str) -> None:
    def hook(self: Any, event: Any) -> None: ...

    with pytest.raises(TypeError, match=f"Both has {name} and {alias}, which are one hook"):
        type("Both", (Callback,), {alias: hook, name: hook})
    callback = type("One", (Callback,), {alias: hook})()
    setattr(callback, name, lambda event: None)
    with pytest.raises(TypeError, match="one hook"):
        subscription_of(callback)


def test_a_subclass_need_not_call_the_base_and_may_have_a_model_of_its_own() -> None:
    class Own(Callback):
        def __init__(self, model: object) -> None:
            self.model = model

        def on_epoch_end(self, event: EpochEnd) -> None: ...

    own = Own("teacher")
    assert own.model == "teacher"
    assert modes(own) == {"EpochEnd": "gate"}
    assert Callback().state_dict() == {}
    Callback().load_state_dict({})


def test_hooks_come_from_mixins_static_class_and_instance_too() -> None:
    class Mixin:
        async def on_epoch_begin(self, event: EpochBegin) -> None: ...

    class Mixed(Mixin, Callback):
        @staticmethod
        def on_epoch_end(event: EpochEnd) -> None: ...

        @classmethod
        async def on_train_end(cls, event: TrainEnd) -> None: ...

        def helper(self, epoch: int, logs: object) -> None: ...

    callback = Mixed()
    callback.on_batch_end = lambda event: None  # type: ignore[method-assign]
    assert set(modes(callback)) == {"EpochBegin", "EpochEnd", "TrainEnd", "BatchEnd"}


def test_users_own_events_have_hooks() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class MilestoneReached(Event):
        name: str

    class Mine(Callback):
        def on_milestone_reached(self, event: MilestoneReached) -> None: ...

    hook = subscription_of(Mine()).handler_for(MilestoneReached)
    assert hook is not None
    assert hook.mode == "queued"


def test_on_event_gets_what_has_no_hook_of_its_own_and_only_watches() -> None:
    class All(Callback):
        gates = "batch"

        def on_event(self, event: Event) -> None: ...
        async def on_epoch_end(self, event: EpochEnd) -> None: ...

    subscription = subscription_of(All())

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Later(Event):
        pass

    found = {kind: subscription.handler_for(kind) for kind in (*BUILT_IN, Later)}
    assert {kind: hook and hook.label for kind, hook in found.items()} == {
        kind: "All.on_epoch_end" if kind is EpochEnd else "All.on_event" for kind in found
    }
    assert {kind for kind, hook in found.items() if hook is not None and hook.mode == "gate"} == {EpochEnd}
    assert Callback().on_event(LayerCreated(layer=None, index=0)) is None


def test_self_model_says_where_the_model_is() -> None:
    class Keras(Callback):
        def stop(self) -> None:
            self.model.stop_training = True

    with pytest.raises(AttributeError, match=r"event\.model.*event\.stop\(\)"):
        Keras().stop()
    with pytest.raises(AttributeError, match=r"event\.params"):
        _ = Callback().params
    assert not hasattr(Callback(), "model")


# --- refused when defined -------------------------------------------------------------------------------------------


def keras_hook(self: Any, epoch: int, logs: Any = None) -> None: ...
def logs_only(self: Any, logs: Any = None) -> None: ...
def no_event(self: Any) -> None: ...
def two(self: Any, event: Any, more: Any) -> None: ...
def just_event(event: Any) -> None: ...
def fine(self: Any, event: Any) -> None: ...
def keyword(self: Any, event: Any, *, more: Any) -> None: ...


async def yields(self: Any, event: Any) -> Any:
    yield 1


BAD_HOOKS: list[tuple[str, Any, list[str]]] = [
    ("on_epoch_end", keras_hook, ["Bad.on_epoch_end", "one argument", "async def on_epoch_end(self, event)", "event.epoch, event.logs"]),  # noqa: E501
    ("on_batch_end", keras_hook, ["async def on_batch_end(self, event)", "event.step, event.logs"]),
    ("on_train_batch_end", keras_hook, ["async def on_train_batch_end(self, event)", "event.step, event.logs"]),
    ("on_train_end", logs_only, ["async def on_train_end(self, event)", "event.logs"]),
    ("on_train_begin", no_event, ["async def on_train_begin(self, event)"]),
    ("on_epoch_begin", two, ["async def on_epoch_begin(self, event)", "event.epoch"]),
    ("on_epoch_begin", just_event, ["async def on_epoch_begin(self, event)"]),
    ("on_epoch_begin", keyword, ["async def on_epoch_begin(self, event)"]),
    ("on_epoch_end", staticmethod(fine), ["async def on_epoch_end(self, event)"]),
    ("on_epoch_end", yields, ["yield"]),
    ("onEpochEnd", fine, ["would never be called", "async def on_epoch_end(self, event)"]),
    ("onTrainBegin", logs_only, ["async def on_train_begin(self, event)"]),
    ("onBatchEnd", fine, ["async def on_batch_end(self, event)"]),
    ("on_epochend", fine, ["async def on_epoch_end(self, event)"]),
    ("on_epochs_end", fine, ["async def on_epoch_end(self, event)"]),
    ("on_the_way", fine, ["is no hook", "another name"]),
    ("on_test_batch_begin", fine, ["no event", "on_evaluate_batch_end"]),
    ("on_validation_batch_end", fine, ["no event", "on_validation_end"]),
    ("on_predict_batch_begin", fine, ["no event", "on_predict_batch_end"]),
    ("onYield", fine, ["never be called"]),
    ("on_epoch_finish", fine, ["Write async def on_epoch_end(self, event)"]),
    ("onTrainStart", fine, ["Write async def on_train_begin(self, event)"]),
    ("set_model", fine, ["never be called", "event.model"]),
    ("set_params", fine, ["never be called", "event.params"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "hook", "parts"), BAD_HOOKS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(BAD_HOOKS)])
def test_what_looks_like_a_hook_and_is_none_is_refused_when_defined(name: str, hook: Any, parts: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        type("Bad", (Callback,), {name: hook})
    for part in parts:
        assert part in str(caught.value)


def test_names_that_only_begin_alike_are_ones_own_affair() -> None:
    class Fine(Callback):
        on_error = "log"
        one = 1
        on_display = "no function"

        def once(self, logs: object) -> None: ...
        def ongoing(self, a: int, b: int) -> None: ...

    assert subscription_of(Fine()).how.on_error == "log"


# --- refused when used ----------------------------------------------------------------------------------------------


class Useful(Callback):
    def on_epoch_end(self, event: EpochEnd) -> None: ...


class Duck:
    def on_epoch_end(self, event: EpochEnd) -> None: ...


async def function(event: EpochEnd) -> None: ...


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Useful, ["give Useful(…), not the class"]),
        (lambda: function, ["function function", "bus.subscribe(af.EpochEnd, function)", "bus=bus"]),
        (lambda: function(None), ["drop the ()"]),  # type: ignore[arg-type]
        (lambda: functools.partial(function), ["bus.subscribe"]),
        (lambda: Duck(), ["let Duck inherit from af.Callback"]),
        (lambda: "early_stopping", ["Callback objects", "asyncfit.callbacks.EarlyStopping"]),
        (lambda: type("EarlyStopping", (), {"__module__": "keras.src"})(), ["not Keras's EarlyStopping", "same names"]),
        (lambda: 3, ["subclass af.Callback"]),
    ],
)
def test_what_is_no_callback_is_refused_with_the_way(make: Callable[[], object], parts: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        subscription_of(make())
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value", "error", "part"),
    [
        ("gates", "epochs", ValueError, "choose 'epoch', 'batch' or 'none'"),
        ("order", "first", TypeError, "whole number"),
        ("every", 0, ValueError, "below 1"),
        ("timeout", -1, ValueError, "more than 0"),
        ("on_error", "raises", ValueError, "did you mean 'raise'"),
        ("thread", "yes", TypeError, "True or False"),
    ],
)
def test_settings_are_checked(setting: str, value: Any, error: type[Exception], part: str) -> None:
    callback = Useful()
    setattr(callback, setting, value)
    with pytest.raises(error, match=part):
        subscription_of(callback)


def test_thread_is_for_its_plain_hooks() -> None:
    class Both(Callback):
        thread = True
        name = "both"

        def on_epoch_end(self, event: EpochEnd) -> None: ...
        async def on_train_end(self, event: TrainEnd) -> None: ...

    subscription = subscription_of(Both())
    plain, awaited = subscription.handler_for(EpochEnd), subscription.handler_for(TrainEnd)
    assert plain is not None
    assert awaited is not None
    assert (subscription.name, plain.thread, awaited.thread) == ("both", True, False)


# --- inline ---------------------------------------------------------------------------------------------------------


def test_inline_marks_a_plain_hook() -> None:
    class Inline(Callback):
        @inline
        def on_batch_end(self, event: BatchEnd) -> None: ...

        @inline(replayable=True)
        def on_batch_begin(self, event: BatchBegin) -> None: ...

    subscription = subscription_of(Inline())
    assert modes(Inline()) == {"BatchEnd": "inline", "BatchBegin": "inline"}
    begin, end = subscription.handler_for(BatchBegin), subscription.handler_for(BatchEnd)
    assert begin is not None
    assert end is not None
    assert (begin.replayable, end.replayable) == (True, False)


def test_inline_refuses_what_would_have_to_wait() -> None:
    with pytest.raises(TypeError, match="plain hooks"):

        @inline
        async def on_batch_end(self: Any, event: BatchEnd) -> None: ...

    with pytest.raises(TypeError, match="replayable"):
        inline(True)  # type: ignore[call-overload]

    class Threaded(Callback):
        thread = True

        @inline
        def on_batch_end(self, event: BatchEnd) -> None: ...

    with pytest.raises(ValueError, match="inline"):
        subscription_of(Threaded())
