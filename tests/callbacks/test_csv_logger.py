"""The file is Keras's, to the byte; and it is whole, closed, and goes on where it was."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asyncfit as af
from asyncfit.callbacks import CSVLogger
from asyncfit.callbacks.files import add
from asyncfit.events import FrozenDict
from asyncfit.testing import Scripted
from tests.data.make_keras_csv import value
from tests.run.helpers import Gate, Linear, X, Y, fit, nothing_left, until

CASES = json.loads((Path(__file__).parents[1] / "data" / "keras_csv.json").read_text())["cases"]


def losses(count: int, **how: Any) -> af.Fit:
    """So many epochs, with a loss of 1, 2, 3 …"""
    model = Scripted(loss=[*map(float, range(1, count + 1))], val_loss=[*map(float, range(11, count + 11))])
    return af.Trainer(model).fit(X, Y, **{"batch_size": 2, "epochs": count, "validation_data": (X, Y), **how})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may be larger than that: a disk that is full."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


HEADER = b"epoch,learning_rate,loss,val_loss\r\n"
ROWS = [f"{n},0.01,{n + 1}.0,{n + 11}.0\r\n".encode() for n in range(9)]


def test_there_are_enough_cases_and_of_each_sort() -> None:
    assert len(CASES) >= 100
    assert {(case["append"], case["before"] is None) for case in CASES} == {(a, b) for a in (0, 1) for b in (0, 1)}
    text = "".join(case["after"] for case in CASES)
    assert all(part in text for part in ("NA", "nan", "-inf", '"""[', "\r\n", ";", "\t", "e-07"))


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_file_is_kerass_to_the_byte(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    if case["before"] is not None:
        path.write_bytes(case["before"].encode())

    async def write() -> None:
        logger = CSVLogger(path, case["separator"], case["append"])
        for run in case["runs"]:
            await logger.on_train_begin(af.TrainBegin(params={}))
            for epoch, logs in enumerate(run):
                told = FrozenDict({name: value(given) for name, given in logs.items()})
                await logger.on_epoch_end(af.EpochEnd(epoch=epoch, logs=told))

    anyio.run(write)
    assert path.read_bytes().decode() == case["after"]


@pytest.mark.anyio
async def test_a_run_writes_its_epochs_and_a_second_one_begins_anew(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "log.csv")
    with nothing_left():
        await losses(3, callbacks=logger)
        assert (tmp_path / "log.csv").read_bytes() == HEADER + b"".join(ROWS[:3])
        await losses(2, callbacks=logger)
        assert (tmp_path / "log.csv").read_bytes() == HEADER + b"".join(ROWS[:2])


@pytest.mark.anyio
async def test_append_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "log.csv", append=True)
    await losses(1, callbacks=logger)
    await losses(2, callbacks=logger)
    assert (tmp_path / "log.csv").read_bytes() == HEADER + ROWS[0] + ROWS[0] + ROWS[1]


@pytest.mark.anyio
async def test_a_line_that_a_crash_has_torn_stays_apart(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(HEADER + ROWS[0][:5])
    await losses(1, callbacks=CSVLogger(tmp_path / "log.csv", append=True))
    assert (tmp_path / "log.csv").read_bytes() == HEADER + ROWS[0][:5] + b"\r\n" + ROWS[0]


@pytest.mark.anyio
async def test_each_row_is_in_the_file_while_the_run_goes_on(tmp_path: Path) -> None:
    gate = Gate(at=6)
    async with fit(Linear(gate), epochs=3, callbacks=CSVLogger(tmp_path / "log.csv")) as run:
        await until(lambda: (tmp_path / "log.csv").exists() and b"\n1," in (tmp_path / "log.csv").read_bytes())
        assert run.outcome is None
        gate.open.set()


@pytest.mark.anyio
async def test_a_cancelled_run_leaves_whole_rows_and_no_open_file(tmp_path: Path) -> None:
    gate = Gate(at=6)

    async def cut() -> None:
        async with fit(Linear(gate), epochs=10**6, callbacks=CSVLogger(tmp_path / "log.csv")) as run:
            await until(gate.reached.is_set)
            run.cancel("enough")
            gate.open.set()

    with nothing_left(), pytest.raises(af.RunCancelled):
        await cut()
    lines = (tmp_path / "log.csv").read_bytes().splitlines(keepends=True)
    assert [line.split(b",")[0] for line in lines] == [b"epoch", *(b"%d" % n for n in range(len(lines) - 1))]
    assert len(lines) >= 3
    assert all(line.endswith(b"\r\n") and line.count(b",") == 4 for line in lines)


@pytest.mark.anyio
async def test_an_epoch_cut_short_has_its_row_without_validation(tmp_path: Path) -> None:
    def stop(event: af.BatchEnd) -> None:
        if event.step == 4:
            event.stop("enough")

    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, stop, gate=True)
    await losses(5, callbacks=CSVLogger(tmp_path / "log.csv"), bus=bus)
    assert (tmp_path / "log.csv").read_bytes() == HEADER + ROWS[0] + ROWS[1].replace(b"12.0", b"NA")


@pytest.mark.anyio
@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 3])
async def test_a_resumed_run_continues_the_file(kept: int, append: bool, tmp_path: Path) -> None:
    before = b"old\r\n" if append else b""
    (tmp_path / "log.csv").write_bytes(b"old\r\n")
    states: list[dict[str, Any]] = []

    class Keeps(CSVLogger):
        async def on_train_begin(self, event: af.TrainBegin) -> None:
            await super().on_train_begin(event)
            states.append(self.state_dict())

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await super().on_epoch_end(event)
            states.append(self.state_dict())

    await losses(5, callbacks=Keeps(tmp_path / "log.csv", append=append))
    whole = (tmp_path / "log.csv").read_bytes()
    assert whole == before + HEADER * (not append) + b"".join(ROWS[:5])
    add(os.fspath(tmp_path / "log.csv"), b"5,0.0")  # and then it was killed, in the middle of a row
    state = json.loads(json.dumps(states[kept]))
    logger = CSVLogger(tmp_path / "log.csv", append=append)
    logger.load_state_dict(state)
    model = Scripted(loss=[float(n) for n in range(1, 6)], val_loss=[float(n) for n in range(11, 16)])
    model.epoch = kept
    await af.Trainer(model).fit(
        X, Y, batch_size=2, epochs=5, initial_epoch=kept, validation_data=(X, Y), callbacks=logger
    )
    assert (tmp_path / "log.csv").read_bytes() == whole


@pytest.mark.anyio
async def test_an_epoch_that_was_cut_and_resumed_has_one_row(tmp_path: Path) -> None:
    def stop(event: af.BatchEnd) -> None:
        if event.step == 4:
            event.stop("later", resumable=True)

    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, stop, gate=True)
    first, other = CSVLogger(tmp_path / "log.csv"), CSVLogger(tmp_path / "log.csv")
    await losses(3, callbacks=first, bus=bus)
    assert (tmp_path / "log.csv").read_bytes().count(b"\r\n1,") == 1
    other.load_state_dict(first.state_dict())
    await losses(3, initial_epoch=1, callbacks=other)
    lines = (tmp_path / "log.csv").read_bytes().splitlines()
    assert [line.split(b",")[0] for line in lines] == [b"epoch", b"0", b"1", b"2"]
    assert b"NA" not in lines[2]


@pytest.mark.anyio
async def test_a_resumed_run_leaves_what_others_wrote_meanwhile(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path / "log.csv", append=True)
    await losses(2, callbacks=first)
    state = first.state_dict()
    await losses(3, callbacks=CSVLogger(tmp_path / "log.csv", append=True))
    first.load_state_dict(state)
    await losses(3, initial_epoch=2, callbacks=first)
    lines = (tmp_path / "log.csv").read_bytes().splitlines()
    assert [line.split(b",")[0] for line in lines] == [b"epoch", b"0", b"1", b"0", b"1", b"2", b"2"]


@pytest.mark.anyio
async def test_a_full_disk_fails_the_run_and_leaves_whole_rows(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "log.csv")
    with nothing_left(), largest_file(len(HEADER + ROWS[0] + ROWS[1]) + 3), pytest.raises(OSError, match=r"log\.csv"):
        await losses(5, callbacks=logger)
    assert (tmp_path / "log.csv").read_bytes() == HEADER + ROWS[0] + ROWS[1]


@pytest.mark.anyio
async def test_with_log_the_run_goes_on_without_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "none").mkdir()
    logger = CSVLogger(tmp_path / "none" / "log.csv")
    (tmp_path / "none").rmdir()
    logger.on_error = "log"
    history = await losses(2, callbacks=logger)
    assert history.outcome == "completed"
    assert f"the directory {tmp_path / 'none'} does not exist; create it first" in caplog.text


@pytest.mark.anyio
async def test_the_file_is_no_business_of_the_loop(tmp_path: Path) -> None:
    import threading

    threads: list[int] = []

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and str(args[0]).endswith("log.csv"):
            threads.append(threading.get_ident())

    if not hasattr(sys, "_asyncfit_hooks"):
        sys._asyncfit_hooks = []  # type: ignore[attr-defined]  # an audit hook stays for good
        sys.addaudithook(lambda name, args: [each(name, args) for each in sys._asyncfit_hooks] and None)  # type: ignore[attr-defined]
    sys._asyncfit_hooks.append(hook)  # type: ignore[attr-defined]
    try:
        await losses(2, callbacks=CSVLogger(tmp_path / "log.csv"))
    finally:
        sys._asyncfit_hooks.remove(hook)  # type: ignore[attr-defined]
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"filename": 3}, TypeError, "takes a path, not 3"),
        ({"filename": b"log"}, TypeError, "path of text"),
        ({"filename": ""}, af.errors.InvalidInput, "no path"),
        ({"filename": "/"}, af.errors.InvalidInput, "directory"),
        ({"filename": "/none/such/log.csv"}, af.errors.InvalidInput, "/none/such does not exist; create it first"),
        ({"filename": "a", "separator": ", "}, af.errors.InvalidInput, "one character"),
        ({"filename": "a", "separator": '"'}, af.errors.InvalidInput, "no quote"),
        ({"filename": "a", "name": ""}, TypeError, "name"),
    ],
)
def test_bad_input_is_refused_at_once(given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        CSVLogger(**given)
