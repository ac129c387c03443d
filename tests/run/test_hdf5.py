"""Runs on HDF5 data sets that stay in their file: the same bits everywhere, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

import asyncfit as af
from asyncfit import callbacks, layers
from asyncfit.data import blocks, stored
from asyncfit.data.stored import Stored
from asyncfit.testing import LoopbackExecutor

from .helpers import nothing_left
from .test_process import children

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

RNG = np.random.default_rng(7)
X = RNG.standard_normal((300, 5)).astype("f4")
Y = (X[:, 0] > 0).astype("i8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(8, 5), compression="gzip")
        file["y"] = Y
    return tmp_path / "rows.h5"


@pytest.fixture
def file(path: Path) -> Iterator[h5py.File]:
    with h5py.File(path, "r") as opened:
        yield opened


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LOAD_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 300)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 2500)


def made() -> af.Sequential:
    model = af.Sequential(
        [layers.Input((5,)), layers.Dense(6, "relu"), layers.Dropout(0.2), layers.Dense(2, "softmax")], seed=4
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def bits(model: af.Sequential, history: af.History) -> str:
    weights = b"".join(w.tobytes() for w in model.get_weights())
    return hashlib.sha256(weights + repr(sorted(history.history.items())).encode()).hexdigest()


class Decides(af.Callback):
    """A gate that undoes what compute has done ahead of it."""

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await anyio.sleep(0.001)
        if event.epoch == 1:
            event.set_learning_rate(0.02)


async def fitted(file: h5py.File, **how: Any) -> str:
    model = made()
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 16, "validation_split": 0.2, **how}
    with nothing_left():
        return bits(model, await model.fit(file["x"], file["y"], callbacks=[Decides()], **settings))


@pytest.mark.parametrize("steps", [None, 4])
async def test_the_same_bits_for_every_executor_and_lookahead(file: h5py.File, steps: int | None) -> None:
    how: dict[str, Any] = {"steps_per_epoch": steps}
    expected = await fitted(file, lookahead=0, **how)
    assert await fitted(file, lookahead=2, **how) == expected
    assert await fitted(file, executor=LoopbackExecutor(), **how) == expected
    assert await fitted(file, executor="process", **how) == expected
    assert await fitted(file, seed=5, **how) != expected


async def test_a_stopped_run_goes_on_to_the_bit(file: h5py.File, tmp_path: Path) -> None:
    how: dict[str, Any] = {"epochs": 4, "batch_size": 16, "seed": 9}

    def stop(event: af.BatchEnd) -> None:
        if event.step == 23:
            event.stop("enough", resumable=True)

    whole = made()
    expected = bits(whole, await whole.fit(file["x"], file["y"], **how))
    bus = af.EventBus()
    bus.on(af.BatchEnd, gate=True)(stop)
    first = await made().fit(
        file["x"], file["y"], callbacks=[callbacks.BackupAndRestore(tmp_path / "backups")], bus=bus, **how
    )
    assert first.outcome == "stopped"
    model = made()
    history = await model.fit(file["x"], file["y"], callbacks=[callbacks.BackupAndRestore(tmp_path / "backups")], **how)
    assert bits(model, history) == expected


@pytest.mark.in_turn
async def test_another_worker_opens_the_file_as_well(file: h5py.File) -> None:
    expected = await fitted(file)
    killed: list[int] = []

    class Kills(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 2 and not killed:
                killed.extend(children() - before)
                os.kill(killed[0], signal.SIGKILL)

    model, before = made(), children()
    with nothing_left():
        async with af.ProcessExecutor(restarts=1) as executor:
            history = await model.fit(
                file["x"], file["y"], callbacks=[Decides(), Kills()], epochs=4, batch_size=16, validation_split=0.2,
                executor=executor,
            )  # fmt: skip
    assert killed
    assert bits(model, history) == expected


async def test_evaluate_and_predict_read_batch_by_batch(file: h5py.File) -> None:
    model = made()
    with nothing_left():
        assert await model.evaluate(file["x"], file["y"]) == await model.evaluate(X, Y)
        assert (await model.predict(file["x"]) == await model.predict(X)).all()
        assert (await model.predict(file["x"], steps=2) == await model.predict(X[:64])).all()
        async with model.fit(X, Y) as run:
            snapshot = await run.snapshot()
        assert await snapshot.evaluate(file["x"], file["y"]) == await snapshot.evaluate(X, Y)
        assert (await snapshot.predict(file["x"]) == await snapshot.predict(X)).all()


async def test_the_loop_asks_h5py_nothing(file: h5py.File, monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.get_ident()
    read = h5py.Dataset.read_direct

    def aloof(name: str, value: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            assert threading.get_ident() != here, name
            return value(*args)

        return called

    x, y = file["x"], file["y"]
    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "read_direct", aloof("read_direct", read))
        for name in ("shape", "dtype", "chunks", "size", "file"):
            known = h5py.Dataset.__dict__.get(name) or h5py.Dataset.__mro__[1].__dict__[name]
            patch.setattr(h5py.Dataset, name, property(aloof(name, lambda self, known=known: known.__get__(self))))
        await made().fit(x, y, validation_data=(x, y), epochs=2)
        await made().evaluate(x, y)
        await made().predict(x)


async def test_what_does_not_fit_is_refused_before_the_first_event(file: h5py.File, path: Path) -> None:
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.on(af.Event)(seen.append)
    with pytest.raises(af.InvalidInput, match=r"\(5,\)"):
        await _other().fit(file["x"], file["y"], bus=bus)
    with pytest.raises(af.InvalidInput, match="x has 300 rows but y has 10"):
        await made().fit(file["x"], Y[:10], bus=bus)
    fit = made().fit(file["x"], file["y"], bus=bus)
    file.close()
    with pytest.raises(af.InvalidInput, match="has been closed"):
        await fit
    with (
        h5py.File(path, "r+") as writable,
        pytest.raises(af.InvalidInput, match=r"open for writing.*executor='thread'"),
    ):
        await made().fit(writable["x"], writable["y"], executor="process", bus=bus)
    assert not [event for event in seen if event.run_id is not None]


def _other() -> af.Sequential:
    model = af.Sequential([layers.Input((7,)), layers.Dense(2, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    return model


async def test_what_a_batch_brings_to_light_ends_the_run(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["y"][250] = 2
        with nothing_left(), pytest.raises(af.InvalidInput, match="y has the label 2 in row 250"):
            await made().fit(file["x"], file["y"], epochs=2)


async def test_cancelling_waits_for_the_read_that_is_under_way(
    file: h5py.File, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read = Stored.read

    def slow(self: Stored, *args: Any) -> None:
        reading.set()
        assert go_on.wait(20)
        read(self, *args)

    monkeypatch.setattr(Stored, "read", slow)
    with nothing_left():
        async with anyio.create_task_group() as tasks:
            run = await made().fit(file["x"], file["y"]).start(tasks)
            assert await anyio.to_thread.run_sync(reading.wait, 20)
            run.cancel("enough")
            go_on.set()
            with pytest.raises(af.RunCancelled, match="enough"), anyio.fail_after(20):
                await run.wait()
