"""Runs that save themselves while the system's calls fail, one after the other: nothing is lost that was there."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncfit as af
from asyncfit import callbacks
from asyncfit.formats import checkpoint_h5

from ..faults import NUMBERS, Faults, faults
from .test_resuming import HOW, Counts, X, Y, network, same

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


class Fails(callbacks.BackupAndRestore):
    """A backup for which the n-th system call of its `file`-th write fails."""

    injected: Faults | None = None

    def failing(self, file: int, at: int, number: int | None, *, lasting: bool = False) -> Fails:
        self.file, self.at, self.number, self.lasting = file, at, number, lasting
        return self

    def _write(self, checkpoint: Any) -> Any:
        self.file -= 1
        if self.file:
            return super()._write(checkpoint)
        with faults(self.at, self.number, lasting=self.lasting) as self.injected:
            return super()._write(checkpoint)


class Crashes(af.Callback):
    gates = "batch"

    def on_batch_end(self, event: af.BatchEnd) -> None:
        if event.step == 10:
            raise Crash


class Crash(Exception):
    pass


def watched() -> tuple[af.EventBus, list[af.Event]]:
    bus, seen = af.EventBus(), list[af.Event]()
    bus.subscribe(af.CheckpointSaved | af.CheckpointFailed, seen.append)
    return bus, seen


@contextlib.contextmanager
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("CRITICAL", "asyncfit"):
        yield


async def test_each_call_that_fails_in_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = network()
    how = HOW | {"epochs": 3}
    undisturbed = await first.fit(X, Y, callbacks=Counts(), **how)
    failures = 0
    numbers = itertools.cycle([*NUMBERS, None])
    for at in itertools.count(1):
        folder, number = tmp_path / str(at), next(numbers)
        backup = Fails(folder, save_freq=3, overflow="wait").failing(2, at, number, lasting=at % 3 == 0)
        bus, told = watched()
        with quiet(caplog), pytest.raises(Crash):
            await network().fit(X, Y, callbacks=[Counts(), backup, Crashes()], bus=bus, **how)
        assert backup.injected is not None
        files = sorted(folder.glob("checkpoint-*"))
        for file in files:
            checkpoint_h5.read(str(file))
        assert len(files) == 2, "of three that were written, with or without the one that failed"
        if "unlink" not in backup.injected.failed:
            assert not list(folder.glob("*.tmp")) + list(folder.glob(".*.tmp"))
        kinds = [event.type for event in told]
        assert len(kinds) == 3
        failures += kinds.count("CheckpointFailed")
        again = network()
        history = await again.fit(X, Y, callbacks=[Counts(), callbacks.BackupAndRestore(folder)], **how)
        assert history.history == undisturbed.history
        same(again.state(), first.state())
        assert not folder.exists()
        if not backup.injected.failed and number is not None:
            break  # there was no such call
    assert failures > 5


async def test_the_last_checkpoint_of_a_stop_must_not_fail_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stops(af.Callback):
        gates = "batch"

        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 7:
                event.stop("later", resumable=True)

    first = network()
    undisturbed = await first.fit(X, Y, callbacks=Counts(), epochs=3, **HOW)
    backup = Fails(tmp_path / "backup", save_freq=3, overflow="wait").failing(3, 4, NUMBERS[0], lasting=True)
    with quiet(caplog), pytest.raises(af.CheckpointError, match="disk is full"):
        await network().fit(X, Y, callbacks=[Counts(), backup, Stops()], epochs=3, **HOW)
    again = network()
    history = await again.fit(
        X, Y, callbacks=[Counts(), callbacks.BackupAndRestore(tmp_path / "backup")], epochs=3, **HOW
    )
    assert history.history == undisturbed.history
    same(again.state(), first.state())
