"""`model.profile`: what takes how long, on a copy that nobody notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers, nn
from asyncfit.nn import stopwatch
from asyncfit.nn.arrays import Array
from asyncfit.nn.profile import Profile
from asyncfit.nn.stopwatch import Stopwatch
from asyncfit.nn.workspace import Place

RNG = np.random.default_rng(0)
X, Y = RNG.random((50, 6), np.float32), RNG.integers(0, 3, 50)


def network(seed: int = 1) -> nn.Network:
    stack: list[Any] = [
        layers.Input(6), layers.Dense(8, "relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
        layers.BatchNormalization(), layers.Dropout(0.3), layers.Reshape((4, 2)), layers.Flatten(),
        layers.Dense(5, "tanh", activity_regularizer="l1"), layers.Dense(3, "softmax"),
    ]  # fmt: skip
    return nn.Network(stack, seed=seed)


def sequential() -> af.Sequential:
    made = af.Sequential(
        [layers.Input(6), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3),
         layers.Dense(3, "softmax", kernel_regularizer="l2")], seed=1
    )  # fmt: skip
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def state_of(made: af.Sequential) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in made.state().items()}


class Clock:
    """Stands still but when a layer says so."""

    now = 0

    def perf_counter_ns(self) -> int:
        return self.now


class Slow(layers.Layer):
    """y = 2x, in 5 µs forward and 7 backward."""

    def __init__(self, clock: Clock, **how: Any) -> None:
        super().__init__(**how)
        self.clock = clock

    def plan(self, at: Place) -> None:
        def forward() -> None:
            np.multiply(at.x, 2, at.y)
            self.clock.now += 5000

        def backward() -> None:
            assert at.dy is not None
            assert at.dx is not None
            np.multiply(at.dy, 2, at.dx)
            self.clock.now += 7000

        at.forward.append(forward)
        if at.dx is not None:
            at.backward.append(backward)


def test_each_part_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    stack = [
        layers.Input(6),
        layers.Dense(4),
        Slow(clock, name="slow"),
        layers.Dense(4, "relu"),
        Slow(clock),
        layers.Dense(1),
    ]
    learner = nn.Learner(nn.Network(stack, seed=1), loss="mse")
    watch = Stopwatch(learner, 4)
    while not watch.done:
        watch.take(X[:8], X[:8, :1], None)
    found = watch.profile()
    times = {row.name: (row.forward, row.backward, row.share) for row in found.rows}
    assert times["slow"] == times["slow_1"] == (5.0, 7.0, 0.5)
    assert found.batch == 24.0
    assert sum(forward + backward for forward, backward, _ in times.values()) == 24.0
    assert found.batches == 4


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "mse"])  # computes the last activation, or not
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_clocked_is_what_training_does(loss: str, weighted: bool) -> None:
    """The same steps, to the bit."""
    y = Y if "sparse" in loss else RNG.random((50, 3), np.float32)
    w = RNG.random(50) if weighted else None
    clocked, plain = (
        nn.Learner(
            network(),
            loss=loss,
            optimizer="adam",
            metrics=["accuracy"],
            weighted_metrics=["mse"] if "mse" in loss else ["accuracy"],
        )
        for _ in range(2)
    )
    watch = Stopwatch(clocked, 4)
    batches = [(X[i : i + 10], y[i : i + 10], None if w is None else w[i : i + 10]) for i in range(0, 50, 10)]
    for batch in batches:
        watch.take(*batch)
        plain.train_batch(*batch)
        plain.train_batch(*batch)
    assert clocked.network.params.tobytes() == plain.network.params.tobytes()
    assert clocked.network.fixed.tobytes() == plain.network.fixed.tobytes()
    names = [row.name for row in watch.profile().rows]
    assert names[:3] == ["batch", "dense", "batch_normalization"]
    assert names[-5:] == ["loss", "metrics", "penalties", "optimizer", "other"]


def test_big_batches_are_computed_on_where_they_lie() -> None:
    x = RNG.random((64, 300), np.float32)
    clocked, plain = (
        nn.Learner(nn.Network([layers.Input(300), layers.Dense(4), layers.Dense(1)], seed=1), loss="mse")
        for _ in range(2)
    )
    watch = Stopwatch(clocked, 4)
    for _ in range(4):
        watch.take(x, x[:, :1], None)
        plain.train_batch(x, x[:, :1])
        plain.train_batch(x, x[:, :1])
    assert clocked.network.params.tobytes() == plain.network.params.tobytes()


def whole(found: Profile) -> None:
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert all(row.forward >= 0 and row.backward >= 0 for row in found.rows)
    assert found.batch > 0


@pytest.mark.anyio
async def test_nobody_notices() -> None:
    first, second = sequential(), sequential()
    for made in (first, second):
        await made.fit(X, Y, batch_size=16, epochs=2)
    before = state_of(first)
    found = await first.profile(X, Y, batch_size=16, batches=5)
    whole(found)
    assert (found.batch_size, found.batches, found.model) == (16, 5, "sequential")
    assert [row.name for row in found.rows] == [
        "batch", "dense", "batch_normalization", "dropout", "dense_1", "loss", "metrics", "penalties",
        "optimizer", "other",
    ]  # fmt: skip
    assert state_of(first) == before
    for made in (first, second):
        await made.fit(X, Y, batch_size=16, epochs=2)
    assert state_of(first) == state_of(second)


@pytest.mark.anyio
async def test_beside_a_run() -> None:
    made, alone = sequential(), sequential()
    found: list[Profile] = []

    class Looks(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 1:
                found.append(await made.profile(X, Y, batch_size=16, batches=3))

    await made.fit(X, Y, batch_size=16, epochs=4, callbacks=[Looks()])
    await alone.fit(X, Y, batch_size=16, epochs=4)
    whole(found[0])
    assert state_of(made) == state_of(alone)


def test_what_it_says() -> None:
    found = sequential().profile(X, Y, batches=2).blocking()
    told = json.loads(json.dumps(found.to_dict()))
    assert told["batch_size"] == 32
    assert told["rows"][1]["kind"] == "Dense"
    assert told["rows"][1]["output"] == [8]
    assert told["rows"][1]["total"] == pytest.approx(told["rows"][1]["forward"] + told["rows"][1]["backward"])
    title, head, *lines = str(found).splitlines()
    assert title.startswith("sequential: ")
    assert "µs a batch of 32" in title
    assert head.split() == ["output", "forward", "backward", "total", "share"]
    assert len(lines) == len(found.rows)
    assert lines[1].startswith("dense (Dense)")
    assert all(line.endswith(" %") for line in lines)


def test_any_data_that_evaluate_takes() -> None:
    made = sequential()
    assert made.profile(X[:5], Y[:5], sample_weight=np.ones(5), batches=7).blocking().batches == 7  # round and round

    def batches() -> Iterator[tuple[Array, Array]]:
        while True:
            yield X[:10], Y[:10]

    found = made.profile(batches(), batches=4).blocking()
    assert (found.batches, found.batch_size) == (4, 10)
    unbuilt = af.Sequential([layers.Dense(3)], seed=1)
    unbuilt.compile("sgd", "sparse_categorical_crossentropy")
    assert [row.name for row in unbuilt.profile(X, Y, batches=1).blocking().rows][:2] == ["batch", "dense"]


def test_too_few_batches_that_can_be_read_once() -> None:
    with pytest.raises(af.InvalidInput, match="profile: the data ended after 2 batches; it takes at least 4"):
        sequential().profile(((X[:10], Y[:10]) for _ in range(2)), batches=4).blocking()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(af.InvalidInput, match="compile"):
        af.Sequential([layers.Input(6), layers.Dense(1)]).profile(X, Y)
    with pytest.raises(af.InvalidInput, match=r"profile\(batches=…\) must be a whole number from 1"):
        sequential().profile(X, Y, batches=0)
    with pytest.raises(TypeError, match="did you mean 'batches'"):
        sequential().profile(X, Y, batchs=3)  # type: ignore[call-arg]
    with pytest.raises(af.InvalidInput, match=r"got samples of shape \(5,\)"):
        sequential().profile(X[:, :5], Y)
