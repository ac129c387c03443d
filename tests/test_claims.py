"""What the callbacks of a run are called, and that one object serves one run at a time, however that ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncfit as af
from asyncfit import claims, layers
from asyncfit.callbacks import EarlyStopping, TerminateOnNaN
from asyncfit.claims import subscriptions_of
from asyncfit.jobs import running_library
from tests.run.helpers import Linear, X, Y, fit, until


class Watches(af.Callback):
    async def on_epoch_end(self, event: af.EpochEnd) -> None: ...


class Called(Watches):
    name = "called"


def named(name: str, kind: type[af.Callback] = Watches) -> af.Callback:
    made = kind()
    made.name = name
    return made


def names(*callbacks: af.Callback) -> list[str]:
    return [subscription.name for subscription in subscriptions_of(callbacks)]


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_are_the_class_and_a_number_where_there_are_several() -> None:
    assert names(Watches(), EarlyStopping()) == ["Watches", "EarlyStopping"]
    assert names(EarlyStopping(), Watches(), EarlyStopping()) == ["EarlyStopping[0]", "Watches", "EarlyStopping[1]"]
    assert names(EarlyStopping(), EarlyStopping(name="mine"), EarlyStopping()) == [
        "EarlyStopping[0]", "mine", "EarlyStopping[1]",
    ]  # fmt: skip
    assert names(Called()) == ["called"]
    assert names(Called(), named("by itself", Called), Called()) == ["called[0]", "by itself", "called[1]"]


@pytest.mark.parametrize(
    "two",
    [
        (EarlyStopping(name="mine"), TerminateOnNaN(name="mine")),
        (EarlyStopping(name="Watches"), Watches()),
        (named("Watches[1]"), Watches(), Watches()),
    ],
)
def test_two_of_one_name_are_refused_at_fit(two: tuple[af.Callback, ...]) -> None:
    with pytest.raises(af.InvalidInput, match=r"two callbacks \(.*\) are called '.*'; .* give one of them another"):
        fit(callbacks=two)


def test_a_run_uses_the_names() -> None:
    stops: list[str] = []
    bus = af.EventBus()
    bus.subscribe(af.StopRequested, lambda event: stops.append(event.who), name="bus")
    run: list[af.Run] = []

    async def main() -> None:
        async with fit(callbacks=[EarlyStopping("loss"), EarlyStopping("loss", mode="max")], epochs=9, bus=bus) as live:
            run.append(live)

    anyio.run(main)
    assert [one.name for one in run[0].subscribers] == ["EarlyStopping[0]", "EarlyStopping[1]", "bus"]
    assert stops == ["EarlyStopping[1]"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_list_decides_nothing(order: tuple[int, ...]) -> None:
    class Adds(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.add_logs(score=-float(event.epoch))

    stopping = EarlyStopping("score", patience=2, mode="max", restore_best_weights=True)
    callbacks = [Adds(), stopping, TerminateOnNaN()]
    model = Linear()
    history = fit(model, epochs=9, callbacks=[callbacks[place] for place in order], lookahead=1).blocking()
    assert history.epoch == [0, 1, 2]
    assert stopping.best_epoch == 0
    np.testing.assert_array_equal(model.w, once().w)


def once() -> Linear:
    model = Linear()
    fit(model).blocking()
    return model


def test_the_same_object_in_compile_and_fit_is_used_once() -> None:
    seen: list[int] = []

    class Counts(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            seen.append(event.epoch)

    counts = Counts()
    model = af.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", callbacks=[counts])
    model.fit(X, Y, epochs=2, callbacks=[counts, counts]).blocking()
    assert seen == [0, 1]


# --- one run at a time -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_callback_in_a_live_run_is_refused_in_another_one() -> None:
    shared, other = Watches(), EarlyStopping("loss")
    async with fit(epochs=10**9, callbacks=shared, run_id="first") as run:
        second = Linear()
        with pytest.raises(af.CallbackBusy, match=r"Watches cannot take part in run second: .* in run first") as raised:
            await fit(second, callbacks=[other, shared], run_id="second")
        assert isinstance(raised.value, RuntimeError)
        assert second.batches == 0
        await fit(second, callbacks=other)  # it was not held by the run that was refused
        run.stop()
    await fit(callbacks=shared)
    assert not claims._claimed


async def completes(model: Linear, callback: af.Callback) -> None:
    await fit(model, callbacks=callback)


async def fails(model: Linear, callback: af.Callback) -> None:
    model._before = lambda model: 1 / 0
    await fit(model, callbacks=callback)


async def fails_before_it_begins(model: Linear, callback: af.Callback) -> None:
    model.state = lambda: 3  # type: ignore[assignment,method-assign,return-value]
    await fit(model, callbacks=callback)


async def cannot_begin(model: Linear, callback: af.Callback) -> None:
    trainer = af.Trainer(model)
    async with trainer.fit(X, Y, epochs=10**9) as run:
        try:
            await trainer.fit(X, Y, callbacks=callback)
        finally:
            run.stop()


async def is_never_started(model: Linear, callback: af.Callback) -> None:
    fit(model, callbacks=callback).close()


async def is_cancelled_at_once(model: Linear, callback: af.Callback) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await fit(model, callbacks=callback)


async def is_cancelled_in_the_middle(model: Linear, callback: af.Callback) -> None:
    with anyio.CancelScope() as scope:
        model._before = lambda model: loop(scope.cancel) if model.batches == 5 else None
        loop = caller()
        await fit(model, callbacks=callback, epochs=10**9)


async def is_left_by_an_error(model: Linear, callback: af.Callback) -> None:
    async with fit(model, callbacks=callback, epochs=10**9):
        raise ArithmeticError


async def is_left_at_once(model: Linear, callback: af.Callback) -> None:
    async with fit(model, callbacks=callback) as run:
        run.cancel("at once")


async def has_a_task_that_is_cancelled_before_its_first_step(model: Linear, callback: af.Callback) -> None:
    if running_library() == "asyncio":
        task = asyncio.ensure_future(fit(model, callbacks=callback))
        task.cancel()
        await task


async def is_started_in_a_group_that_is_cancelled(model: Linear, callback: af.Callback) -> None:
    async with anyio.create_task_group() as tasks:
        await fit(model, callbacks=callback, epochs=10**9).start(tasks)
        tasks.cancel_scope.cancel()


async def is_started_in_a_group_that_is_over(model: Linear, callback: af.Callback) -> None:
    async with anyio.create_task_group() as tasks:
        pass
    await fit(model, callbacks=callback).start(tasks)


def caller() -> Callable[[Callable[[], object]], object]:
    from asyncfit.signals import loop_caller

    found: Any = loop_caller()
    assert found is not None
    return found  # type: ignore[no-any-return]


WAYS: list[Callable[[Linear, af.Callback], Awaitable[None]]] = [
    completes, fails, fails_before_it_begins, cannot_begin, is_never_started, is_cancelled_at_once,
    is_cancelled_in_the_middle, is_left_by_an_error, is_left_at_once,
    has_a_task_that_is_cancelled_before_its_first_step, is_started_in_a_group_that_is_cancelled,
    is_started_in_a_group_that_is_over,
]  # fmt: skip


async def go(way: Callable[[Linear, af.Callback], Awaitable[None]], callback: af.Callback) -> None:
    with anyio.fail_after(20):
        try:
            await way(Linear(), callback)
        except (ArithmeticError, TypeError, RuntimeError, af.RunCancelled, asyncio.CancelledError):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_however_a_run_ends_its_callbacks_are_free(way: Callable[..., Awaitable[None]]) -> None:
    callback = Watches()
    await go(way, callback)
    await until(lambda: not claims._claimed)
    await fit(callbacks=callback)


@settings(max_examples=20)
@given(ways=st.lists(st.sampled_from(WAYS), max_size=6), backend=st.sampled_from(["asyncio", "trio"]))
def test_one_object_serves_one_run_after_another(ways: list[Any], backend: str) -> None:
    async def main() -> None:
        callback = Watches()
        for way in ways:
            await go(way, callback)
            await until(lambda: not claims._claimed)
        await fit(callbacks=callback)

    anyio.run(main, backend=backend)
