"""A run with `ModelCheckpoint` cancelled at its tasks' steps: whole files, true accounts, and a way on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit.callbacks import ModelCheckpoint
from asyncfit.callbacks.writes import Write
from asyncfit.formats import checkpoint_h5
from asyncfit.resuming import unpacked
from asyncfit.testing import Scripted
from tests.run.test_cancel import Steps, awaited, natively, on_asyncio, on_trio

X, Y = np.zeros((4, 2)), np.zeros(4)
LOSSES = [3.0, 4.0, 1.0]
EPOCHS = len(LOSSES)


class Accounts(ModelCheckpoint):
    """Remembers which files it was told are durable: with no grace time the events may reach nobody any more."""

    def reset(self) -> None:
        super().reset()
        self.durable: dict[str, int] = {}

    def _written(self, write: Write, durable: bool) -> None:
        super()._written(write, durable)
        if durable:
            self.durable.pop(Path(write.path).name, None)
            self.durable[Path(write.path).name] = write.snapshot.step


def checkpoints(folder: Path) -> dict[str, Accounts]:
    """One for each way of keeping."""
    name = "{epoch}-{loss:.1f}.h5"
    return {
        "best": Accounts(folder / "best" / name, "loss", save_best_only=True),
        "one": Accounts(folder / "one" / "m.h5", "loss", save_best_only=True, keep_last=1, name="one"),
        "kept": Accounts(folder / "kept" / name, "loss", keep_last=1, keep_best=1, name="kept"),
        "batches": Accounts(folder / "batches" / "{epoch}-{batch}.h5", save_freq=2, keep_last=2, name="batches"),
    }


def files(folder: Path) -> dict[str, int]:
    """All that is there, temporary files included, with the step of the model in each: whole, or this raises."""
    found = {}
    for name in sorted(os.listdir(folder)) if folder.exists() else []:
        run, arrays = checkpoint_h5.read(folder / name)
        found[name] = int(unpacked(run["state"], arrays)["weights"][0])
    return found


def check(folder: Path, made: dict[str, Accounts], saved: list[af.CheckpointSaved], *, all_told: bool) -> None:
    """What is on the disk is what was told of and is to be kept; and the callbacks know."""
    for kind, checkpoint in made.items():
        there, told = files(folder / kind), checkpoint.durable
        events = {Path(e.path).name: e.step for e in saved if Path(e.path).parent.name == kind}
        assert events == told if all_told else events.items() <= told.items() or kind == "one"
        assert {name: told[name] for name in there} == there
        if kind == "best":
            assert there == told
            losses = [float(name.split("-")[1][:-3]) for name in told]
            assert losses == sorted(losses, reverse=True)
            assert checkpoint.best == (losses[-1] if losses else None), "what is not there is nothing to beat"
        elif told:
            known = {Path(file.path).name: file.step for file in checkpoint._writes.files}
            assert known == there
            assert list(told)[-1] in there, "the newest is never deleted"
            assert len(there) <= (1 if kind == "one" else 2)
        assert not checkpoint._writes.busy


def once(grace: float, split: bool = False) -> Callable[..., Awaitable[None]]:
    async def run(steps: Steps, host: Callable[[Any], Awaitable[None]], executor: Callable[[], Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = checkpoints(folder)
            saved: list[af.CheckpointSaved] = []
            bus = af.EventBus()
            bus.subscribe(af.CheckpointSaved, saved.append, overflow="block")
            model = Scripted(LOSSES)
            trainer = af.Trainer(model)
            fit = trainer.fit(
                X, Y, batch_size=2, epochs=EPOCHS, callbacks=list(made.values()), bus=bus, executor=executor(),
                grace=grace, lookahead=1,
            )  # fmt: skip
            with anyio.fail_after(20):
                await host((steps, fit))
            check(folder, made, saved, all_told=grace > 0)
            if split and trainer.history is not None and trainer.history.outcome == "cancelled":
                await goes_on(folder, made["best"], trainer, executor)

    return run


async def goes_on(folder: Path, checkpoint: ModelCheckpoint, trainer: af.Trainer, executor: Callable[[], Any]) -> None:
    """With the callback's state the rest of the epochs is decided as if the run had never been cancelled."""
    before = files(folder / "best")
    best = min([float(name.split("-")[1][:-3]) for name in before], default=np.inf)
    resumed = ModelCheckpoint(folder / "best" / "{epoch}-{loss:.1f}.h5", "loss", save_best_only=True)
    resumed.load_state_dict(checkpoint.state_dict())
    first = len(trainer.history.epoch) if trainer.history is not None else 0
    model = Scripted(LOSSES)
    model.epoch = first
    model.weights += 2 * first
    if first < EPOCHS:
        how: dict[str, Any] = {"initial_epoch": first, "callbacks": resumed, "executor": executor()}
        await af.Trainer(model).fit(X, Y, batch_size=2, epochs=EPOCHS, **how)
    wanted = set(before)
    for epoch in range(first, EPOCHS):
        if LOSSES[epoch] < best:
            best = LOSSES[epoch]
            wanted.add(f"{epoch + 1}-{best:.1f}.h5")
    assert set(files(folder / "best")) == wanted
    assert resumed.best == (best if np.isfinite(best) else None)


GRACES = [pytest.param(5.0, id="grace"), pytest.param(0.0, id="no grace")]
STRIDE = 5
"""Each test takes every fifth step, and not the same ones: all of them take minutes, and hold too (STRIDE = 1)."""


def many_steps(first: int, run: Callable[[Steps], None]) -> int:
    """Runs with a cancel at many steps, until a run ends before its step comes."""
    for at in range(first, 2000, STRIDE):
        steps = Steps(at)
        run(steps)
        if not steps.hit:
            return at
    raise AssertionError("the run takes more steps than that")


@pytest.mark.slow
@pytest.mark.parametrize("grace", GRACES)
@pytest.mark.parametrize(("first", "host"), [(1, awaited), (2, natively)])
def test_cancelled_on_asyncio(first: int, host: Callable[[Any], Awaitable[None]], grace: float) -> None:
    assert many_steps(first, on_asyncio(host, False, once=once(grace, split=True))) > 50


@pytest.mark.slow
@pytest.mark.parametrize("grace", GRACES)
def test_cancelled_on_trio(grace: float) -> None:
    assert many_steps(3, on_trio(awaited, once=once(grace, split=True))) > 50


def test_without_a_cancellation_all_is_there(tmp_path: Path) -> None:
    """What the tests above compare with."""
    made = checkpoints(tmp_path)
    saved: list[af.CheckpointSaved] = []
    bus = af.EventBus()
    bus.subscribe(af.CheckpointSaved, saved.append, overflow="block")
    trainer = af.Trainer(Scripted(LOSSES))
    trainer.fit(X, Y, batch_size=2, epochs=EPOCHS, callbacks=list(made.values()), bus=bus).blocking()
    check(tmp_path, made, saved, all_told=True)
    assert files(tmp_path / "best") == {"1-3.0.h5": 2, "3-1.0.h5": 6}
    assert files(tmp_path / "one") == {"m.h5": 6}
    assert files(tmp_path / "kept") == {"3-1.0.h5": 6}
    assert files(tmp_path / "batches") == {"2-2.h5": 4, "3-2.h5": 6}
