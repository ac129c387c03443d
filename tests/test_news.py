"""The layer and model callbacks: each callback hears of each layer and compilation once, in order, in time."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Awaitable
from typing import Any

import anyio
import numpy as np
import pytest

from asyncfit.bus import EventBus
from asyncfit.callback import Callback
from asyncfit.errors import InvalidInput, ModelBusy, SubscriberTimeout
from asyncfit.events import Event, LayerCreated, ModelCompiled, TrainBegin
from asyncfit.layers import Dense, Input
from asyncfit.losses import MeanSquaredError
from asyncfit.sequential import Sequential

X, Y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)


def told(event: Event) -> str:
    return event.layer.name if isinstance(event, LayerCreated) else event.type


class Plain(Callback):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_layer_created(self, event: LayerCreated) -> None:
        self.heard.append(told(event))

    def on_model_compiled(self, event: ModelCompiled) -> None:
        self.heard.append(told(event))

    def on_train_begin(self, event: TrainBegin) -> None:
        self.heard.append(told(event))


class Waits(Callback):
    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_layer_created(self, event: LayerCreated) -> None:
        await anyio.lowlevel.checkpoint()
        self.heard.append(told(event))

    async def on_model_compiled(self, event: ModelCompiled) -> None:
        await anyio.lowlevel.checkpoint()
        self.heard.append(told(event))

    async def on_train_begin(self, event: TrainBegin) -> None:
        self.heard.append(told(event))


ALL = ["dense", "dense_1", "ModelCompiled"]


def model(**how: Any) -> Sequential:
    made = Sequential([Input(2), Dense(3), Dense(1)])
    made.compile("sgd", "mse", **how)
    return made


def test_plain_hooks_of_compile_run_there_and_then_without_a_loop() -> None:
    plain, waits = Plain(), Waits()
    made = model(callbacks=[plain, waits, plain])
    assert plain.heard == ALL
    assert waits.heard == []
    made.add(Dense(1))
    assert plain.heard == [*ALL, "dense_2"]


def test_what_the_events_carry() -> None:
    events: list[Any] = []

    class Keeps(Callback):
        def on_layer_created(self, event: LayerCreated) -> None:
            events.append(event)

        def on_model_compiled(self, event: ModelCompiled) -> None:
            events.append(event)

    made = Sequential([Input(2), Dense(3)])
    made.compile("Adam", MeanSquaredError(), metrics=["accuracy", "mae"], callbacks=Keeps())
    created, compiled = events
    assert (created.layer, created.index, created.run_id) == (made.layers[0], 0, None)
    assert (compiled.model, compiled.run_id) == (made, None)
    assert (compiled.optimizer, compiled.loss, compiled.metrics) == ("adam", "mean_squared_error", ("accuracy", "mae"))


@pytest.mark.anyio
async def test_async_hooks_are_awaited_before_the_first_run_begins_and_once() -> None:
    plain, waits = Plain(), Waits()
    made = model(callbacks=[plain, waits])
    await made.fit(X, Y)
    await made.fit(X, Y)
    assert plain.heard == waits.heard == [*ALL, "TrainBegin", "TrainBegin"]
    made.compile("sgd", "mse", callbacks=[waits])
    await made.fit(X, Y)
    assert waits.heard == [*ALL, "TrainBegin", "TrainBegin", "ModelCompiled", "TrainBegin"]
    assert plain.heard == [*ALL, "TrainBegin", "TrainBegin"]


@pytest.mark.anyio
async def test_callbacks_of_fit_hear_all_when_their_run_starts() -> None:
    plain, waits = Plain(), Waits()
    made = model(callbacks=waits)
    fit = made.fit(X, Y, callbacks=[waits, plain])
    assert plain.heard == []
    await fit
    await made.fit(X, Y, callbacks=plain)
    assert plain.heard == [*ALL, "TrainBegin", "TrainBegin"]
    assert waits.heard == [*ALL, "TrainBegin", "TrainBegin"]
    made.compile("sgd", "mse")
    assert plain.heard[-1] == "TrainBegin"
    late = Plain()
    await made.fit(X, Y, callbacks=[plain, late])
    assert plain.heard == [*ALL, "TrainBegin", "TrainBegin", "ModelCompiled", "TrainBegin"]
    assert late.heard == [*ALL, "TrainBegin"]  # of several compilations the one that holds


@pytest.mark.anyio
@pytest.mark.parametrize("entered", [False, True])
async def test_a_bus_hears_it_when_a_run_is_given_it(entered: bool) -> None:
    bus = EventBus()
    heard: list[str] = []

    async def hear(event: Event) -> None:
        heard.append(told(event))

    bus.subscribe(LayerCreated, ModelCompiled, TrainBegin, hear)
    made = model()
    if entered:
        async with bus:
            await made.fit(X, Y, bus=bus)
            await made.fit(X, Y, bus=bus)
    else:
        await made.fit(X, Y, bus=bus)
        await made.fit(X, Y, bus=bus)
    assert sorted(heard) == sorted([*ALL, "TrainBegin", "TrainBegin"])
    assert [one for one in heard if one != "TrainBegin"] == ALL


@pytest.mark.anyio
async def test_what_a_hook_raises_leaves_compile_and_fit_as_itself() -> None:
    class Bad(Callback):
        def on_layer_created(self, event: LayerCreated) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as info:
        model(callbacks=Bad())
    assert info.value.__notes__ == ["in Bad.on_layer_created, at LayerCreated"]
    made = model()
    with pytest.raises(KeyError, match="mine"):
        await made.fit(X, Y, callbacks=Bad())

    class BadLater(Callback):
        async def on_model_compiled(self, event: ModelCompiled) -> None:
            raise KeyError("later")

    made.compile("sgd", "mse", callbacks=BadLater())
    with pytest.raises(KeyError, match="later"):
        await made.fit(X, Y)
    assert made.history is not None
    assert made.history.outcome == "failed"
    await made.fit(X, Y)  # it has had its event


@pytest.mark.anyio
async def test_on_error_and_timeout_hold_here_too(caplog: pytest.LogCaptureFixture) -> None:
    class Logs(Plain):
        on_error = "log"

        def on_model_compiled(self, event: ModelCompiled) -> None:
            raise KeyError("mine")

    class Detaches(Waits):
        on_error = "detach"

        async def on_layer_created(self, event: LayerCreated) -> None:
            raise KeyError("mine")

    logs, detaches = Logs(), Detaches()
    with caplog.at_level(logging.ERROR, logger="asyncfit"):
        await model(callbacks=[logs, detaches]).fit(X, Y)
    assert logs.heard == ["dense", "dense_1", "TrainBegin"]
    assert detaches.heard == []
    assert [record.getMessage() for record in caplog.records] == [
        "Logs.on_model_compiled failed at ModelCompiled",
        "Detaches.on_layer_created failed at LayerCreated",
    ]

    class DetachesAtOnce(Plain):
        on_error = "detach"

        def on_layer_created(self, event: LayerCreated) -> None:
            raise KeyError("mine")

    at_once = DetachesAtOnce()
    await model(callbacks=at_once).fit(X, Y)
    assert at_once.heard == []

    class Slow(Callback):
        timeout = 0.01

        async def on_model_compiled(self, event: ModelCompiled) -> None:
            await anyio.sleep_forever()

    with pytest.raises(SubscriberTimeout, match=r"Slow was not done within its timeout of 0\.01 s"):
        await model(callbacks=Slow()).fit(X, Y)


@pytest.mark.anyio
async def test_plain_hooks_in_threads_and_those_that_return_an_awaitable_wait_for_the_run() -> None:
    here = threading.get_ident()
    threads: list[bool] = []

    class Threaded(Plain):
        thread = True

        def on_layer_created(self, event: LayerCreated) -> None:
            threads.append(threading.get_ident() != here)

    class Returns(Callback):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_model_compiled(self, event: ModelCompiled) -> Awaitable[None]:
            return self.later(event)

        async def later(self, event: Event) -> None:
            self.heard.append(told(event))

    threaded, returns = Threaded(), Returns()
    made = model(callbacks=[threaded, returns])
    assert threaded.heard == returns.heard == []
    await made.fit(X, Y)
    assert threads == [True, True]
    assert threaded.heard == ["ModelCompiled", "TrainBegin"]
    assert returns.heard == ["ModelCompiled"]


@pytest.mark.anyio
async def test_a_run_that_never_begins_leaves_the_news_for_the_next() -> None:
    plain, waits, reached, go_on = Plain(), Waits(), anyio.Event(), anyio.Event()

    class Holds(Callback):
        async def on_epoch_end(self, event: Event) -> None:
            reached.set()
            await go_on.wait()

    made = model()
    async with made.fit(X, Y, callbacks=Holds()):
        await reached.wait()
        with pytest.raises(ModelBusy):
            await made.fit(X, Y, callbacks=[plain, waits])
        assert plain.heard == waits.heard == []
        go_on.set()
    with pytest.raises(InvalidInput, match="NaN"):
        await made.fit(X * np.nan, Y, callbacks=[plain, waits])
    assert plain.heard == waits.heard == ALL
    await made.fit(X, Y, callbacks=[plain, waits])
    assert plain.heard == waits.heard == [*ALL, "TrainBegin"]


@pytest.mark.anyio
async def test_a_hook_that_never_returns_does_not_keep_a_cancelled_fit() -> None:
    class Hangs(Callback):
        async def on_model_compiled(self, event: ModelCompiled) -> None:
            hanging.set()
            await anyio.sleep_forever()

    hanging = anyio.Event()
    made = model(callbacks=Hangs())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: made.fit(X, Y, grace=0.01))
            await hanging.wait()
            tasks.cancel_scope.cancel()
    await made.fit(X, Y)


@pytest.mark.anyio
async def test_a_callback_is_not_kept_alive_by_a_model_that_it_once_took_part_with() -> None:
    made = model()
    for _ in range(5):
        await made.fit(X, Y, callbacks=[Plain(), Waits()])
    gc.collect()
    assert made._news._parties == {}
