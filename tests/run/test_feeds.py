"""Runs on what yields batches, read in a thread: lists, loaders, Sequences and generators."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

import asyncfit as af
from asyncfit import callbacks, layers
from asyncfit.testing import LoopbackExecutor

from .helpers import Gate, Linear, kinds, nothing_left, until, whole

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

RNG = np.random.default_rng(11)
X = RNG.standard_normal((80, 5)).astype("f4")
Y = (X[:, 0] > 0).astype("f4")
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 80, 16)]
"""Five."""

Batch = Any


def made(loss: str = "binary_crossentropy", units: int = 1) -> af.Sequential:
    model = af.Sequential(
        [
            layers.Input((5,)),
            layers.Dense(6, "relu"),
            layers.Dropout(0.2),
            layers.Dense(units, "sigmoid" if units == 1 else "softmax"),
        ],
        seed=3,
    )
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


async def by_rows(model: af.Sequential | None = None, **how: Any) -> dict[str, list[float]]:
    """What arrays of the same rows give."""
    settings: dict[str, Any] = {"batch_size": 16, "epochs": 3, "shuffle": False, **how}
    return (await (model or made()).fit(X, Y, **settings)).history


class Loader:
    """Can be iterated anew, as a DataLoader can: it yields lists."""

    def __init__(self, batches: list[Batch] | None = None, length: int = 0) -> None:
        self.batches = BATCHES if batches is None else batches
        self.length = length or len(self.batches)
        self.iterations = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        self.iterations += 1
        return ([*batch] for batch in self.batches)


class Sequence:
    """As Keras's."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.ends = 0

    def __len__(self) -> int:
        return len(BATCHES)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < 5:
            raise IndexError(index)
        self.order.append(index)
        return BATCHES[index]


class Stateful(Sequence):
    def on_epoch_end(self) -> None:
        self.ends += 1


class Source:
    """A generator of endless, or of so many, batches, which knows what was taken and how it ended."""

    def __init__(self, batches: int | None = None) -> None:
        self.batches, self.taken = batches, 0
        self.iterated_in: set[str] = set()
        self.closed_in: str | None = None

    def __call__(self) -> Iterator[Batch]:
        try:
            while self.batches is None or self.taken < self.batches:
                self.iterated_in.add(threading.current_thread().name)
                self.taken += 1
                yield BATCHES[(self.taken - 1) % 5]
        finally:
            self.closed_in = threading.current_thread().name


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.in_turn
@pytest.mark.parametrize("executor", ["thread", "process", "loopback"])
async def test_the_same_batches_give_the_same_bits_however_they_come(executor: str) -> None:
    expected = await by_rows()
    made_by: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
        "list": lambda: (BATCHES, {"shuffle": False}),
        "loader": lambda: (Loader(), {}),
        "generator": lambda: (Source()(), {"steps_per_epoch": 5}),
        "iterator": lambda: (iter(BATCHES * 3), {"steps_per_epoch": 5}),
        "indexed": lambda: (Sequence(), {"shuffle": False}),
    }
    for name, make in made_by.items():
        data, how = make()
        runner: Any = LoopbackExecutor() if executor == "loopback" else executor
        with nothing_left():
            history = await made().fit(data, epochs=3, executor=runner, **how)
        assert history.history == expected, name
        assert history.outcome == "completed"
        params = history.params
        assert (params["samples"], params["batch_size"], params["steps"]) == (None, None, 5)


async def test_a_loader_is_iterated_anew_each_epoch_and_a_sequence_is_shuffled_by_the_seed() -> None:
    loader = Loader()
    await made().fit(loader, epochs=4)
    assert loader.iterations == 4
    one, other = Sequence(), Sequence()
    await made().fit(one, epochs=4, lookahead=0)
    await made().fit(other, epochs=4, callbacks=[Halves()])
    epochs = [one.order[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert set(one.order) == set(other.order)
    stateful = Stateful()
    await made().fit(stateful, epochs=3)
    assert stateful.ends == 3


async def test_steps_per_epoch_goes_on_through_a_pass() -> None:
    sequence = Sequence()
    history = await made().fit(sequence, steps_per_epoch=2, epochs=6, shuffle=False)
    assert sequence.order == [0, 1, 2, 3, 4] * 2
    assert len(history.epoch) == 6
    loader = Loader()
    assert (await made().fit(loader, steps_per_epoch=2, epochs=6)).history == history.history
    assert loader.iterations == 2


class Halves(af.Callback):
    """Undoes what was done ahead."""

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        event.set_learning_rate(event.logs["learning_rate"] / 2)


async def test_decisions_act_as_of_their_event_for_every_lookahead() -> None:
    expected = await by_rows(callbacks=[Halves()], epochs=4)
    for lookahead in (0, 1, 3):
        for data, how in ((BATCHES, {"shuffle": False}), (Loader(), {}), (Source()(), {"steps_per_epoch": 5})):
            history = await made().fit(data, epochs=4, lookahead=lookahead, callbacks=[Halves()], **how)
            assert history.history == expected
            ahead = lookahead if data is BATCHES else 0
            assert history.params["lookahead"] == ahead


async def test_x_alone_and_weights_and_what_the_generator_does_with_its_arrays_afterwards() -> None:
    class Sees(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
            self.seen.append(
                (x[0, 0], None if y is None else y[0], None if sample_weight is None else sample_weight[0])
            )
            return {"loss": 0.0}

    def batches() -> Iterator[Batch]:
        x, y, weight = np.zeros((2, 2)), np.zeros(2), np.zeros(2)
        for number in range(6):
            x[:], y[:], weight[:] = number, number + 0.5, number + 0.25  # the same memory again and again
            yield [x, (x,), (x, y), (x, y, weight), [x, y], (x, None, weight)][number]

    model = Sees()
    await af.Trainer(model).fit(batches(), steps_per_epoch=6, prefetch=3)
    expected = [(0, None, None), (1, None, None), (2, 2.5, None), (3, 3.5, 3.25), (4, 4.5, None), (5, None, 5.25)]
    assert model.seen == expected


async def test_sizes_may_vary_and_means_are_weighted_by_rows() -> None:
    cut = [0, 7, 10, 40, 41, 80]
    batches = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(cut)]
    sizes: list[int] = []
    bus = af.EventBus()
    bus.on(af.BatchEnd)(lambda event: sizes.append(event.size))
    model = made()
    model.compile(optimizer=af.optimizers.SGD(0.0), loss="binary_crossentropy")
    history = await model.fit(batches, bus=bus, shuffle=False, validation_data=batches)
    assert sizes == [7, 3, 30, 1, 39]
    assert history.history["val_loss"][0] == pytest.approx(await model.evaluate(X, Y), rel=1e-6)


async def test_weights_by_class_and_by_sample() -> None:
    weights = {0: 1.0, 1: 4.0}
    expected = await by_rows(class_weight=weights)
    assert (await made().fit(Source()(), steps_per_epoch=5, epochs=3, class_weight=weights)).history == expected
    weighed = [(x, y, np.where(y > 0, 4.0, 1.0)) for x, y in BATCHES]
    assert (await made().fit(weighed, epochs=3, shuffle=False)).history == expected
    with pytest.raises(af.InvalidInput, match="class_weight was given, and sample_weight came of batch 0 of x"):
        await made().fit(weighed, class_weight=weights)


async def test_validation_on_batches() -> None:
    expected = await by_rows(validation_data=(X, Y), validation_batch_size=16)
    for data in (BATCHES, Loader(), Sequence()):
        assert await by_rows(validation_data=data) == expected
    source = Source()
    assert await by_rows(validation_data=source(), validation_steps=5) == expected
    assert source.taken == 15
    assert source.closed_in == "asyncfit data"
    some = await by_rows(validation_data=Source()(), validation_steps=5, validation_freq=2)
    assert len(some["val_loss"]) == 1
    history = await made().fit(BATCHES, validation_data=(X, Y), validation_batch_size=16, epochs=3, shuffle=False)
    assert history.history == expected
    with nothing_left(), pytest.raises(RuntimeError, match="validation_data has ended"):
        await by_rows(validation_data=Source(5)(), validation_steps=5)


async def test_evaluate_and_predict() -> None:
    model = made()
    figures, outputs = await model.evaluate(X, Y, batch_size=16), await model.predict(X, batch_size=16)
    for make in (lambda: BATCHES, Loader, Sequence, Source(5)):
        with nothing_left():
            assert await model.evaluate(make()) == figures
    assert (await model.predict(Loader()) == outputs).all()
    assert (await model.predict((x for x, _ in BATCHES), steps=2) == outputs[:32]).all()
    ends: list[Any] = []
    bus = af.EventBus()
    bus.on(af.PredictBatchEnd | af.EvaluateBatchEnd)(lambda event: ends.append((event.batch, event.size)))
    await model.evaluate(Source()(), steps=3, bus=bus)
    await model.predict(Source(2)(), bus=bus)
    assert ends == [(0, 16), (1, 16), (2, 16), (0, 16), (1, 16)]
    async with model.fit(X, Y) as run:
        snapshot = await run.snapshot()
    assert await snapshot.evaluate(BATCHES, None) == await snapshot.evaluate(X, Y, batch_size=16)
    assert (await snapshot.predict(Loader()) == await snapshot.predict(X, batch_size=16)).all()
    linear = af.Trainer(Linear())
    rows = [(X[:, :2], Y)]
    assert await linear.evaluate(rows) == await linear.evaluate(X[:, :2], Y, batch_size=80)


# --- the end of the data, and of the run ----------------------------------------------------------------------------


@pytest.mark.in_turn
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("batches", [0, 3, 5, 8, 10])
async def test_the_end_of_the_data_ends_the_run(executor: str, batches: int) -> None:
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.on(af.Event)(seen.append)
    source = Source(batches)
    with nothing_left():
        history = await made().fit(
            source(), steps_per_epoch=5, epochs=2 if batches == 10 else 9, executor=executor, bus=bus
        )
    seen = [event for event in seen if event.run_id is not None]
    whole(seen)
    end = seen[-1]
    assert isinstance(end, af.TrainEnd)
    assert (end.step, end.unread) == (batches, 0)
    assert source.closed_in == "asyncfit data"
    assert source.iterated_in <= {"asyncfit data"}
    if batches == 10:  # nobody has asked for more
        assert (history.outcome, history.reason) == ("completed", "")
        return
    assert (history.outcome, history.reason) == ("stopped", "data ended")
    assert history.epoch == list(range(batches // 5))
    last = seen[-2] if isinstance(seen[-2], af.EpochEnd) else seen[-3]
    assert isinstance(last, af.EpochEnd)
    assert not last.complete
    assert bool(last.logs) == bool(batches % 5)
    asked = [event for event in seen if isinstance(event, af.StopRequested)]
    assert [(event.who, event.reason) for event in asked] == [("data", "data ended")]


@pytest.mark.parametrize("prefetch", [0, 1, 4])
async def test_prefetch_bounds_what_is_taken_and_unread_counts_it(prefetch: int) -> None:
    gate, source = Gate(3), Source()
    ends, asked = list[af.TrainEnd](), list[af.StopRequested]()
    bus = af.EventBus()
    bus.on(af.TrainEnd)(ends.append)
    bus.on(af.StopRequested)(asked.append)
    trainer = af.Trainer(Linear(gate))
    with nothing_left():
        async with trainer.fit(
            ((x[:, :2], y) for x, y in source()), steps_per_epoch=50, prefetch=prefetch, bus=bus
        ) as run:
            assert await anyio.to_thread.run_sync(gate.reached.wait, 20)
            await until(lambda: source.taken == 4 + prefetch)  # three are done, one is in hand
            run.stop("enough")
            await until(lambda: asked)
            gate.open.set()
    assert run.outcome == "stopped"
    assert ends[0].step == 4
    assert ends[0].unread == source.taken - 4 == prefetch


async def test_no_more_is_taken_than_can_be_trained() -> None:
    source, ends = Source(), list[af.TrainEnd]()
    bus = af.EventBus()
    bus.on(af.TrainEnd)(ends.append)
    await made().fit(source(), steps_per_epoch=4, epochs=3, prefetch=10, bus=bus)
    assert source.taken == 12
    assert ends[0].unread == 0


async def test_epochs_without_end() -> None:
    seen: list[int] = []

    async def stop(event: af.EpochEnd) -> None:
        seen.append(event.epoch)
        if event.epoch == 6:
            event.stop("enough")

    bus = af.EventBus()
    bus.on(af.EpochEnd, gate=True)(stop)
    async with made().fit(Source()(), steps_per_epoch=2, epochs=None, bus=bus) as run:
        await until(lambda: run.progress.step > 2)
        assert run.progress.epochs is None
        assert run.progress.eta is None
        assert "/None" not in repr(run)
    assert run.history.outcome == "stopped"
    assert run.history.params["epochs"] is None
    assert seen == list(range(7))
    history = await made().fit(X, Y, epochs=None, steps_per_epoch=2, callbacks=[callbacks.TimeLimit(0.05)])
    assert history.outcome == "stopped"


async def test_what_the_generator_raises_leaves_fit_as_itself() -> None:
    class Broken(Exception):
        pass

    broken = Broken("no more")

    def batches() -> Iterator[Batch]:
        yield from BATCHES[:3]
        raise broken

    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.on(af.Event)(seen.append)
    for executor in ("thread", "process"):
        seen.clear()
        with nothing_left(), pytest.raises(Broken) as caught:
            await made().fit(batches(), steps_per_epoch=5, bus=bus, executor=executor)
        assert caught.value is broken
        end = seen[-1]
        assert isinstance(end, af.TrainEnd)
        assert (end.outcome, end.step) == ("failed", 3)


async def test_what_closing_it_raises_is_told_too() -> None:
    def batches() -> Iterator[Batch]:
        try:
            while True:
                yield BATCHES[0]
        finally:
            raise OSError("cannot close")

    ends: list[af.TrainEnd] = []
    bus = af.EventBus()
    bus.on(af.TrainEnd)(ends.append)
    with nothing_left(), pytest.raises(OSError, match="cannot close"):
        await made().fit(batches(), steps_per_epoch=5, bus=bus)
    assert ends[0].outcome == "failed"


@pytest.mark.parametrize("how", ["stop", "cancel", "scope"])
async def test_a_generator_that_waits_holds_up_the_end_and_nothing_else(how: str) -> None:
    waits, go_on = threading.Event(), threading.Event()
    closed: list[str] = []

    def batches() -> Iterator[Batch]:
        try:
            yield BATCHES[0]
            waits.set()
            assert go_on.wait(20)
            yield BATCHES[1]
        finally:
            closed.append(threading.current_thread().name)

    ends: list[af.TrainEnd] = []
    bus = af.EventBus()
    bus.on(af.TrainEnd)(ends.append)
    model = made()
    with nothing_left(), anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            run = await model.fit(batches(), steps_per_epoch=5, bus=bus, grace=0.05).start(tasks)
            assert await anyio.to_thread.run_sync(waits.wait, 20)
            await until(lambda: run.progress.step == 1)
            assert (await model.predict(X[:2])).shape == (2, 1)  # the run is alive meanwhile
            run.pause()
            run.resume()
            if how == "stop":
                run.stop("enough")
            elif how == "cancel":
                run.cancel("enough")
            else:
                tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(lambda: ends)  # not even that waits for it longer than the grace time
                assert not closed
                go_on.set()
    assert ends[0].outcome == ("stopped" if how == "stop" else "cancelled")
    assert ends[0].step == 1
    assert closed == ["asyncfit data"]


@pytest.mark.parametrize("kind", ["train_begin", "epoch_begin", "batch_begin", "epoch_end"])
async def test_a_run_that_ends_at_any_event_leaves_nothing(kind: str) -> None:
    source = Source()

    class Stops(af.Callback):
        gates = "batch"

    async def hook(self: Any, event: Any) -> None:
        event.stop("enough") if kind != "batch_begin" else run_of[0].cancel("enough")

    setattr(Stops, f"on_{kind}", hook)
    run_of: list[af.Run] = []
    with nothing_left(), anyio.fail_after(20):
        try:
            async with made().fit(source(), steps_per_epoch=3, epochs=3, callbacks=[Stops()]) as run:
                run_of.append(run)
        except af.RunCancelled:
            assert kind == "batch_begin"
    assert source.closed_in == ("asyncfit data" if source.taken else None)


# --- going on --------------------------------------------------------------------------------------------------------


def stop_at(step: int) -> af.EventBus:
    bus = af.EventBus()

    @bus.on(af.BatchEnd, gate=True)
    def stop(event: af.BatchEnd) -> None:
        if event.step == step:
            event.stop("later", resumable=True)

    return bus


@pytest.mark.in_turn
@pytest.mark.parametrize("step", [1, 4, 7, 11])
async def test_a_resumed_run_finds_its_place_in_what_can_be_iterated_anew(step: int, tmp_path: Path) -> None:
    how: dict[str, Any] = {"epochs": 3, "seed": 4}
    for make in (lambda: BATCHES, Loader, Sequence):
        folder = tmp_path / str(make)[:9].replace("<", "") / getattr(make, "__name__", "x").strip("<>")
        expected = await made().fit(make(), **how)
        first = await made().fit(make(), callbacks=[callbacks.BackupAndRestore(folder)], bus=stop_at(step), **how)
        assert first.outcome == "stopped"
        again = await made().fit(make(), callbacks=[callbacks.BackupAndRestore(folder)], **how)
        assert again.history == expected.history


async def test_an_iterator_goes_on_only_if_one_says_that_it_does(tmp_path: Path) -> None:
    def rest(begin: int) -> Iterator[Batch]:
        return (BATCHES[i % 5] for i in range(begin, 15))

    how: dict[str, Any] = {"epochs": 3, "seed": 4, "steps_per_epoch": 5}

    def backup() -> Any:
        return [callbacks.BackupAndRestore(tmp_path / "kept")]

    expected = await made().fit(rest(0), **how)
    await made().fit(rest(0), callbacks=backup(), bus=stop_at(7), **how)
    with pytest.raises(af.InvalidInput, match=r"step 8, .* read once only: give resume_data='continue'"):
        await made().fit(rest(8), callbacks=backup(), **how)
    again = await made().fit(rest(8), callbacks=backup(), resume_data="continue", **how)
    assert again.history == expected.history
    with pytest.raises(af.InvalidInput, match="resume_data='go'"):
        made().fit(rest(8), resume_data="go", **how)
    with pytest.raises(af.InvalidInput, match="resume_data='continue' is for data that can be read once only"):
        made().fit(BATCHES, resume_data="continue", epochs=3)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, "has no length.*steps_per_epoch="),
        ({"y": Y, "steps_per_epoch": 1}, r"takes no y beside it: yield \(x, y\)"),
        ({"sample_weight": Y, "steps_per_epoch": 1}, "takes no sample_weight beside it"),
        ({"batch_size": 8, "steps_per_epoch": 1}, "batch_size=8 cannot be used"),
        ({"validation_split": 0.1, "steps_per_epoch": 1}, "validation_split=0.1 cannot be used, because x yields"),
        ({"validation_data": iter(BATCHES), "steps_per_epoch": 1}, "validation_data .*validation_steps="),
        ({"prefetch": -1, "steps_per_epoch": 1}, "prefetch=-1"),
        ({"epochs": None}, "epochs=None trains until .*steps_per_epoch="),
    ],
)
def test_what_does_not_fit_is_refused_at_once(how: dict[str, Any], says: str) -> None:
    with pytest.raises(af.InvalidInput, match=says):
        made().fit(Source()(), **how)


async def test_more_is_refused_before_anything_is_read() -> None:
    source = Source()
    model = af.Sequential([layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(af.InvalidInput, match=r"does not know the shape.*layers\.Input"):
        model.fit(source(), steps_per_epoch=1)
    async with af.ProcessExecutor(restarts=1) as executor:
        with pytest.raises(af.InvalidInput, match="restarts"):
            made().fit(source(), steps_per_epoch=1, executor=executor)
    assert source.taken == 0


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (X[:4], r"batch 1 of x has no y: yield \(x, y\)"),
        ((X[:4], Y[:3]), "x of batch 1 of x has 4 rows but y of batch 1 of x has 3"),
        ((X[:4, :2], Y[:4]), r"\(2,\)|shape"),
        ((np.full((4, 5), np.nan), Y[:4]), "x of batch 1 of x holds NaN or infinity"),
        ((X[:4], np.array(["a"] * 4)), "y of batch 1 of x holds text"),
        ({"x": X}, "dict"),
        ((X, Y, Y, Y), "tuple of 4 came of batch 1 of x"),
        ((X[:0], Y[:0]), "x of batch 1 of x is empty"),
        ((None, Y[:4]), "x of batch 1 of x is None"),
    ],
)
async def test_a_bad_batch_fails_the_run_and_is_named(batch: Any, says: str) -> None:
    ends: list[af.TrainEnd] = []
    bus = af.EventBus()
    bus.on(af.TrainEnd)(ends.append)
    with nothing_left(), pytest.raises(af.InvalidInput, match=says):
        await made().fit(iter([BATCHES[0], batch]), steps_per_epoch=5, bus=bus)
    assert (ends[0].outcome, ends[0].step) == ("failed", 1)


async def test_a_list_is_checked_before_the_first_event_and_serves_as_arrays_do() -> None:
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.on(af.TrainBegin)(seen.append)
    for batch, says in (((X[:4, :2], Y[:4]), "shape|rows"), ((np.full((4, 5), np.inf), Y[:4]), "batch 5 of x holds")):
        with pytest.raises(af.InvalidInput, match=says):
            await made().fit([batch, *BATCHES] if says == "shape|rows" else [*BATCHES, batch], bus=bus)
    with pytest.raises(af.InvalidInput, match="batch 5 of validation_data has no y"):
        await made().fit(BATCHES, validation_data=[*BATCHES, (X,)], bus=bus)
    assert not seen
    model = af.Sequential([layers.Dense(1)], seed=3)  # its shape is known from the list
    model.compile(loss="mse")
    await model.fit(BATCHES)
    names = [thread.name for thread in threading.enumerate()]
    assert "asyncfit data" not in names
    async with af.ProcessExecutor(restarts=1) as executor:
        history = await made().fit(BATCHES, epochs=3, shuffle=False, executor=executor, validation_data=BATCHES)
    assert history.history == await by_rows(validation_data=(X, Y), validation_batch_size=16)


async def test_labels_are_checked_and_a_length_that_promises_too_much_is_named() -> None:
    model = made("sparse_categorical_crossentropy", 2)
    with pytest.raises(af.InvalidInput, match="y of batch 0 of x has the label 2"):
        await model.fit([(X[:4], np.array([0, 1, 2, 0]))])
    with nothing_left(), pytest.raises(RuntimeError, match="x ended after 5 of 7 batches"):
        await made().fit(Loader(length=7))
    with pytest.raises(af.InvalidInput, match="x yields no batch"):
        await made().evaluate(iter([]))


async def test_events_tell_of_batches_as_of_arrays() -> None:
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.on(af.Event)(seen.append)
    await made().fit(Loader(), epochs=2, bus=bus, validation_data=Loader())
    mine = [event for event in seen if event.run_id is not None]
    whole(mine)
    seen.clear()
    await made().fit(X, Y, batch_size=16, epochs=2, bus=bus, validation_data=(X, Y))
    assert kinds(mine) == kinds([event for event in seen if event.run_id is not None])
