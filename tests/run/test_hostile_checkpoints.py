"""Checkpoints whose checksums are right and whose content is not: refused before anything begins."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.backups import file_name
from asyncfit.callbacks import BackupAndRestore, EarlyStopping
from asyncfit.formats import checkpoint_h5

from .helpers import nothing_left

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn, pytest.mark.timeout(60)]

X, Y = np.ones((20, 3), "float32"), np.ones((20, 1), "float32")
NAN, INF = float("nan"), float("inf")


def network() -> af.Sequential:
    model = af.Sequential([layers.Input((3,)), layers.Dense(2), layers.Dense(1)], seed=5)
    model.compile("adam", "mse")
    return model


class Stops(af.Callback):
    gates = "batch"

    def on_batch_end(self, event: af.BatchEnd) -> None:
        if event.step == 6:
            event.stop("later", resumable=True)


def position(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda run: run["position"].update(values)


def part(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda run: run.update(values)


def seeds(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda run: run["settings"].update(values)


def state(name: str, *value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda run: run.update(state=[[n, *value] if n == name else [n, *old] for n, *old in run["state"]])


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a batch behind the last": position(batch=5),
    "a negative batch": position(batch=-1),
    "a negative epoch": position(epoch=-1),
    "a step that no name has room for": position(step=10**18),
    "an attempt that no name has room for": part(attempt=10**9),
    "sums without counts": position(counts={}),
    "a count that is no number": position(counts={"loss": NAN}),
    "an endless count": position(counts={"loss": INF}),
    "a negative count": position(counts={"loss": -8}),
    "a count beyond all floats": position(counts={"loss": 10**400}),
    "a sum beyond all floats": position(sums={"loss": 10**400}),
    "a log beyond all floats": part(logs={"loss": 10**400}),
    "a negative rate that was decided": part(change={"rate": -1.0}),
    "a rate that was decided and is too large": part(change={"rate": 1e300}),
    "no weights that were decided": part(change={"weights": []}),
    "a number for weights that were decided": part(change={"weights": [["params", "float", 3.0]]}),
    "nothing to restore": part(restore=["x", [], 3]),
    "text to restore": part(restore=["x", [["params", "str", "y"]], 3]),
    "a number to fall back to": part(fallback=["x", [["params", "float", 1.0]], 3]),
    "a rate that is no number": state("learning_rate", "float", NAN),
    "a negative rate": state("learning_rate", "float", -1.0),
    "a rate that is too large": state("learning_rate", "float", 1e300),
    "a negative iteration": state("optimizer/iteration", "int", -1),
    "a negative count of fits": state("fits", "int", -1),
    "more fits than there are": seeds(fits=2**64 - 1),
    "no seed": seeds(seed=-1),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_it_is_refused(what: str, tmp_path: Path) -> None:
    def callbacks() -> list[af.Callback]:
        return [BackupAndRestore(tmp_path, False), EarlyStopping("loss", patience=9, restore_best_weights=True)]

    how: dict[str, Any] = {"batch_size": 4, "epochs": 3, "seed": None}
    await network().fit(X, Y, callbacks=[*callbacks(), Stops()], **how)
    path = tmp_path / file_name(0, 7)
    run, arrays = checkpoint_h5.read(path)
    run = copy.deepcopy(run)
    HOSTILE[what](run)
    checkpoint_h5.Writer().write(path, checkpoint_h5.Saved(model=None, arrays=arrays, run=run))
    model, bus, seen = network(), af.EventBus(), list[af.Event]()
    bus.subscribe(af.Event, seen.append, name="seen")
    before = model.get_weights()
    with nothing_left(), pytest.raises(af.BadFile, match="damaged"):
        await model.fit(X, Y, callbacks=callbacks(), bus=bus, **how)
    assert not [event for event in seen if event.run_id]
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), before, strict=True))
    assert os.listdir(tmp_path) == [path.name]
