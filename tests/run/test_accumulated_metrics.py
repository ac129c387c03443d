"""Metrics that are no means: over the whole epoch, part of the state, the same to the bit whatever happens to a run."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import callbacks, layers, metrics, optimizers
from asyncfit.saving import Wish
from asyncfit.testing import LoopbackExecutor

from .portable import Deadly
from .test_resuming import Counts, Keeps, same

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

RNG = np.random.default_rng(8)
X = RNG.normal(size=(44, 5)).astype("float32")
Y = (X[:, 0] + RNG.normal(size=44) > 0).astype("float32")
W = RNG.random(44).astype("float32")
HOW: dict[str, Any] = {"batch_size": 8, "validation_split": 0.25, "sample_weight": W}
KEYS = ["loss", "auc", "accuracy", "rmse", "weighted_accuracy", "precision"]


def network(optimizer: Any = "adam") -> af.Sequential:
    model = af.Sequential([layers.Input((5,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")], seed=5)
    model.compile(
        optimizer, "binary_crossentropy", metrics=["auc", "accuracy", metrics.RootMeanSquaredError("rmse")],
        weighted_metrics=["accuracy", metrics.Precision()],
    )  # fmt: skip
    return model


class Decides(af.Callback):
    """Decisions that undo what was computed ahead."""

    def __init__(self) -> None:
        self.kept: list[af.Snapshot] = []

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        self.kept.append(event.model)
        event.set_learning_rate(0.9 * event.logs["learning_rate"])
        if event.epoch == 3:
            event.set_weights(self.kept[1])


async def trained(**how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    model = network()
    history = await model.fit(X, Y, callbacks=Decides(), epochs=6, **HOW | how)
    return dict(model.state()), history.history


@pytest.mark.in_turn
@pytest.mark.parametrize("how", ["ahead", "far ahead", "loopback", "process", "replaceable"])
async def test_the_same_values_whatever_is_undone(how: str) -> None:
    others: dict[str, dict[str, Any]] = {
        "ahead": {"lookahead": 1},
        "far ahead": {"lookahead": 3},
        "loopback": {"executor": LoopbackExecutor()},
        "process": {"executor": "process"},
    }
    state, history = await trained(lookahead=0)
    if how == "replaceable":
        async with af.ProcessExecutor(restarts=1) as executor:
            other, same_history = await trained(executor=executor)
    else:
        other, same_history = await trained(**others[how])
    same(other, state)
    assert same_history == history
    assert list(history) == [*KEYS, *(f"val_{key}" for key in KEYS), "learning_rate"]
    assert all(0 < value < 1 for key in ("auc", "val_auc", "rmse") for value in history[key])


async def test_a_run_goes_on_counting_in_the_midst_of_an_epoch(tmp_path: Path) -> None:
    keeps, first, how = Keeps(tmp_path, Wish(every=3)), network(), HOW | {"epochs": 4}
    whole = await first.fit(X, Y, callbacks=[Counts(), keeps], **how)
    assert any(checkpoint.position.batch for checkpoint, _ in keeps.taken)
    for _, path in keeps.taken:
        again = network()
        history = await again.fit(X, Y, callbacks=Counts(), resume=path, **how)
        same(again.state(), first.state())
        assert history.history == whole.history


@pytest.mark.in_turn
@pytest.mark.parametrize("at", [0, 3])
async def test_a_worker_that_is_lost_in_the_midst_of_an_epoch_is_replaced_to_the_bit(at: int, tmp_path: Path) -> None:
    async def trained_with(mark: Path, executor: Any) -> tuple[Any, Any, list[af.Event]]:
        model, lost, bus = network(), list[af.Event](), af.EventBus()
        bus.subscribe(af.WorkerRestarted, lost.append)
        model.compile("adam", "binary_crossentropy", metrics=["auc", Deadly(str(mark), at)], weighted_metrics="mae")
        history = await model.fit(X, Y, callbacks=Decides(), epochs=5, executor=executor, bus=bus, **HOW)
        return dict(model.state()), history.history, lost

    (tmp_path / "calm").touch()
    state, history, _ = await trained_with(tmp_path / "calm", "thread")
    async with af.ProcessExecutor(restarts=2) as executor:
        other, same_history, lost = await trained_with(tmp_path / "mark", executor)
    assert len(lost) == 1
    same(other, state)
    assert same_history == history


def of_rows(rows: slice) -> Any:
    """What `evaluate` says of them, of weights that never change."""
    return network().evaluate(X[rows], Y[rows], sample_weight=W[rows], return_dict=True)


async def test_the_epoch_has_the_value_of_all_its_batches_and_batches_have_none() -> None:
    seen: list[tuple[str, ...]] = []
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, lambda event: seen.append(tuple(event.logs)))
    model = network(optimizers.SGD(0.0))
    history = await model.fit(X, Y, bus=bus, epochs=3, shuffle=False, **HOW)
    assert set(seen) == {("loss", "accuracy", "weighted_accuracy")}
    train, val = await of_rows(slice(33)), await of_rows(slice(33, None))
    assert list(train) == KEYS
    for key in KEYS:
        assert history.history[key] == pytest.approx([train[key]] * 3, rel=1e-5)
        assert history.history[f"val_{key}"] == pytest.approx([val[key]] * 3, rel=1e-5)
    assert await model.evaluate(X[:33], Y[:33], sample_weight=W[:33]) == pytest.approx(list(train.values()), rel=1e-5)


async def test_a_mean_that_is_weighted_is_that_over_all_weights() -> None:
    model = network(optimizers.SGD(0.0))
    history = await model.fit(X, Y, epochs=1, batch_size=8, shuffle=False, sample_weight=W)
    hits = (await model.predict(X) > 0.5)[:, 0] == Y
    assert history.history["weighted_accuracy"][0] == pytest.approx(np.sum(hits * W) / np.sum(W), rel=1e-5)
    assert history.history["accuracy"][0] == pytest.approx(np.mean(hits), rel=1e-5)
    classes = await model.fit(X, Y, epochs=1, shuffle=False, class_weight={0: 1.0, 1: 3.0})
    by_class = np.where(Y == 1, 3.0, 1.0)
    assert classes.history["weighted_accuracy"][0] == pytest.approx(np.average(hits, weights=by_class), rel=1e-5)


async def test_an_epoch_cut_short_shows_its_batches_and_the_next_fit_begins_anew() -> None:
    class Stops(af.Callback):
        gates = "batch"

        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 6:
                event.stop("enough")

    model = network(optimizers.SGD(0.0))
    history = await model.fit(X, Y, epochs=3, shuffle=False, callbacks=Stops(), **HOW)
    assert history.partial is not None
    two = await of_rows(slice(16))
    assert {key: history.partial[key] for key in KEYS} == pytest.approx(two, rel=1e-5)
    assert np.any(model.state()["metrics"]), "they are kept, for a run that goes on"
    again = await model.fit(X, Y, epochs=1, shuffle=False, **HOW)
    assert again.history["auc"] == pytest.approx([(await of_rows(slice(33)))["auc"]], rel=1e-5)
    assert not np.any(model.state()["metrics"])


async def test_batches_by_hand_and_failed_runs_leave_nothing_behind() -> None:
    class Fails(af.Callback):
        @af.inline
        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 2:
                raise RuntimeError("ouch")

    model = network(optimizers.SGD(0.0))
    with pytest.raises(RuntimeError, match="ouch"):
        await model.fit(X, Y, callbacks=Fails(), epochs=1, **HOW)
    model.train_batch(X[:9], Y[:9])
    model.test_batch(X[:9], Y[:9])
    history = await model.fit(X, Y, epochs=1, shuffle=False, **HOW)
    assert history.history["auc"] == pytest.approx([(await of_rows(slice(33)))["auc"]], rel=1e-5)
    assert history.history["val_auc"] == pytest.approx([(await of_rows(slice(33, None)))["auc"]], rel=1e-5)


async def test_callbacks_decide_by_them_and_snapshots_evaluate() -> None:
    found: list[dict[str, float]] = []

    class Evaluates(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            figures = await event.model.evaluate(X[33:], Y[33:], sample_weight=W[33:], return_dict=True)
            assert figures == pytest.approx({key: event.logs[f"val_{key}"] for key in KEYS}, rel=1e-5)
            found.append(figures)

    model = network()
    stops = callbacks.EarlyStopping("val_auc", patience=0, min_delta=2.0)
    await model.fit(X, Y, epochs=9, callbacks=[Evaluates(), stops], **HOW)
    assert len(found) == 2, "an area that does not grow by 2 is no better"
    with pytest.raises(af.InvalidInput, match="val_auk"):
        await model.fit(X, Y, epochs=9, callbacks=callbacks.EarlyStopping("val_auk"), **HOW)


async def test_evaluations_beside_a_training_do_not_mix() -> None:
    model = network(optimizers.SGD(0.0))
    expected = await of_rows(slice(33))
    figures: list[Any] = []

    async def evaluate() -> None:
        figures.append(await model.evaluate(X[:33], Y[:33], sample_weight=W[:33], return_dict=True))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(evaluate)
        history = await model.fit(X, Y, epochs=5, shuffle=False, **HOW)
    assert history.history["auc"] == pytest.approx([expected["auc"]] * 5, rel=1e-5)
    assert figures == [pytest.approx(expected, rel=1e-5)] * 3


async def test_what_a_worker_cannot_import_is_refused_and_so_is_another_models_checkpoint(tmp_path: Path) -> None:
    def local(y_true: Any, y_pred: Any) -> Any:
        return y_pred - y_true

    model = network()
    model.compile("adam", "binary_crossentropy", metrics=["auc", local])
    with pytest.raises(af.InvalidInput, match=r"local is defined in a function.*executor='thread'"):
        await model.fit(X, Y, executor="process", **HOW)
    keeps = Keeps(tmp_path, Wish(every=3))
    await model.fit(X, Y, callbacks=keeps, epochs=1, **HOW)
    with pytest.raises(af.InvalidInput, match=r"of another run.*metrics"):
        await network().fit(X, Y, resume=keeps.taken[0][1], epochs=1, **HOW)


def test_models_without_them_keep_their_state_and_copies_bring_them_along() -> None:
    plain = af.Sequential([layers.Input((5,)), layers.Dense(1)])
    plain.compile("sgd", "mse", metrics=["mae"])
    assert "metrics" not in plain.state()
    model = network()
    model.train_batch(X, Y, W)
    assert np.any(model.state()["metrics"])
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same(twin.state(), model.state())
    af.testing.check_trainable(model._trainable(), [(X[:8], Y[:8]), (X[8:], Y[8:], W[8:])])
