"""The progress bar: what it shows, on a terminal and elsewhere, and that the terminal is as before in the end."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from rich.console import Console

import asyncfit as af
from asyncfit.callbacks import ProgressBar
from asyncfit.events import FrozenDict

from ..run.helpers import X, Y, fit, nothing_left

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Fake(io.StringIO):
    """A file that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def screen(text: str) -> list[str]:
    """What a terminal would show of it, in lines; it knows the few control sequences that move and erase."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
        elif part.endswith("A"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        else:
            assert part.endswith("m") or part in (HIDE, SHOW), part
    return [line.rstrip() for line in lines if line.strip()]


def console(width: int = 100) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width), file


def numbers_off(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+(\.\d+)? m?s\b", "T", re.sub(r"\d+\.\d{3,}", "N", line)) for line in lines]


EPOCHS = [f"epoch {n}/3  T  loss N  val_loss N" for n in (1, 2, 3)]


# --- elsewhere than on a terminal ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_plain_lines_where_there_is_no_terminal_and_no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, module, None)
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    history = await fit(epochs=3, validation_data=(X, Y), callbacks=ProgressBar())
    assert numbers_off(file.getvalue().splitlines()) == EPOCHS
    assert f"val_loss {history.history['val_loss'][-1]:.4f}" in file.getvalue().splitlines()[-1].replace("  ", " ")
    assert all(c.isprintable() or c == "\n" for c in file.getvalue())


@pytest.mark.anyio
async def test_plain_lines_go_to_a_console_that_is_no_terminal() -> None:
    file = io.StringIO()
    name = "[bold]mine[/]"
    await fit(epochs=3, validation_data=(X, Y), callbacks=ProgressBar(console=Console(file=file, width=20), name=name))
    assert numbers_off(file.getvalue().splitlines()) == [f"{name}: {line}" for line in EPOCHS]


@pytest.mark.anyio
async def test_within_long_epochs_there_are_lines_now_and_then() -> None:
    file = io.StringIO()
    await fit(epochs=2, callbacks=ProgressBar(file=file, every_s=0))
    lines = file.getvalue().splitlines()
    assert [re.sub(r"  [\d.,e+]+/s.*", "", line) for line in lines if "/3" in line] == [
        f"epoch {epoch}/2  {batch}/3" for epoch in (1, 2) for batch in (1, 2, 3)
    ]
    for last, end in (
        (lines[2], lines[3]),
        (lines[6], lines[7]),
    ):  # means over the epoch's samples, as its end has them
        assert re.findall(r"loss \S+", last) == re.findall(r"loss \S+", end)
    file = io.StringIO()
    await fit(epochs=2, callbacks=ProgressBar(file=file))
    assert len(file.getvalue().splitlines()) == 2


def begin(at: float, **params: Any) -> af.TrainBegin:
    return af.TrainBegin(
        run_id="r", params=FrozenDict({"epochs": 4, "steps": 10, "initial_epoch": 0, **params}), time=at
    )


def batch(epoch: int, number: int, at: float, loss: float = 0.5, size: int = 2) -> af.BatchEnd:
    return af.BatchEnd(
        epoch=epoch, batch=number, step=epoch * 10 + number, size=size, logs=FrozenDict({"loss": loss}), time=at
    )


def test_rate_and_time_left_are_those_of_compute_without_pauses() -> None:
    file = io.StringIO()
    bar = ProgressBar(file=file, every_s=0)
    bar.on_train_begin(begin(100.0))
    bar.on_epoch_begin(af.EpochBegin(epoch=0, time=100.0))
    bar.on_batch_end(batch(0, 0, 102.0, 1.0, 3))
    bar.on_run_paused(af.RunPaused(step=1, time=102.0))
    bar.on_run_resumed(af.RunResumed(step=1, time=202.0))
    bar.on_batch_end(batch(0, 1, 204.0, 0.0, 1))
    bar.on_validation_begin(af.ValidationBegin(epoch=0, time=220.0))
    bar.on_epoch_end(
        af.EpochEnd(epoch=0, logs=FrozenDict({"loss": 0.75, "val_loss": 2e-7, "learning_rate": 0.1}), time=225.0)
    )
    bar.on_epoch_begin(af.EpochBegin(epoch=1, time=225.0))
    bar.on_epoch_end(
        af.EpochEnd(epoch=1, logs=FrozenDict({"learning_rate": 0.01, "loss": 123456.0}), complete=False, time=325.0)
    )
    bar.on_train_end(af.TrainEnd(outcome="stopped", reason="two\nlines\x1b[2J", step=12))
    assert file.getvalue().splitlines() == [
        "epoch 1/4   1/10  0.5/s  ETA 0:18  run 1:18  loss 1.0000",
        "epoch 1/4   1/10  paused  loss 1.0000",
        "epoch 1/4   1/10  0.5/s  ETA 0:18  run 1:18  loss 1.0000",
        "epoch 1/4   2/10  0.5/s  ETA 0:16  run 1:16  loss 0.7500",
        "epoch 1/4   2/10  validating  loss 0.7500",
        "epoch 1/4  25.0 s  loss 0.7500  val_loss 2e-07",
        "epoch 2/4  cut short after  0/10 in 1:40 min  loss 1.23e+05  learning_rate 0.0100",
        "epoch 2/4  stopped at step 12: two lines [2J",
    ]


def test_data_of_unknown_length_has_no_bar_and_no_time_left() -> None:
    drawn, terminal = console()
    bars = [ProgressBar(file=(file := io.StringIO()), every_s=0), ProgressBar(console=drawn, every_s=0)]
    for bar in bars:
        bar.on_train_begin(begin(100.0, steps=0, epochs=None))
        bar.on_batch_end(batch(0, 6, 102.0))
    assert file.getvalue() == "epoch 1  7 batches  3.5/s  loss 0.5000\n"
    assert screen(terminal.getvalue()) == ["epoch 1  7 batches  3.5/s  loss 0.5000"]
    for bar in bars:
        bar.on_train_end(af.TrainEnd(outcome="completed"))


# --- on a terminal ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("leave", [True, False])
async def test_on_a_terminal_a_bar_lives_and_the_epochs_stay(leave: bool) -> None:
    drawn, file = console()
    threads: set[int] = set()
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, lambda event: threads.add(threading.active_count()))
    before = threading.active_count()
    with nothing_left():
        await fit(
            epochs=3, validation_data=(X, Y), bus=bus, callbacks=ProgressBar(console=drawn, every_s=0, leave=leave)
        )
    text = file.getvalue()
    assert numbers_off(screen(text)) == (EPOCHS if leave else EPOCHS[-1:])
    assert "━━━" in text
    assert text.count(HIDE) == text.count(SHOW) == 1
    assert text.index(HIDE) < text.index("━") < text.index(SHOW)
    assert max(threads) <= before + 1, "compute's thread, and none of the bar's"


class Break(af.Callback):
    def __init__(self, what: Callable[[af.EpochEnd], object]) -> None:
        self.what = what

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        if event.epoch == 1:
            self.what(event)


def fail(event: af.EpochEnd) -> None:
    raise ArithmeticError("by hand")


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["stop", "fail", "cancel", "leave"])
async def test_the_terminal_is_as_before_however_the_run_ends(how: str) -> None:
    drawn, file = console()
    bar = ProgressBar(console=drawn, every_s=0)
    if how == "stop":
        await fit(epochs=9, callbacks=[bar, Break(lambda event: event.stop("enough"))])
    elif how == "fail":
        with pytest.raises(ArithmeticError):
            await fit(epochs=9, callbacks=[bar, Break(fail)])
    elif how == "cancel":
        with anyio.CancelScope() as scope:
            await fit(epochs=10**9, callbacks=[bar, Break(lambda event: scope.cancel())])
    else:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the block is what is tested
            async with fit(epochs=10**9, callbacks=bar) as run:
                async for event in run.events(af.EpochEnd):
                    if event.epoch == 2:
                        raise ZeroDivisionError
    text = file.getvalue()
    assert text.count(HIDE) == text.count(SHOW) == 1
    assert text.rindex(SHOW) > text.rindex("━")
    words = {"stop": "stopped at step 6: enough", "fail": "failed at step ", "cancel": "cancelled at step "}
    assert words.get(how, "cancelled at step ") in screen(text)[-1]
    assert how != "fail" or "ArithmeticError('by hand')" in screen(text)[-1]


@pytest.mark.anyio
async def test_several_runs_share_a_terminal_without_drawing_over_each_other() -> None:
    file = io.StringIO()
    kinds = [Console(file=file, force_terminal=True, width=100) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for number, drawn in enumerate(kinds):
            how = {"run_id": f"run{number}", "callbacks": ProgressBar(console=drawn, every_s=0)}
            tasks.start_soon(lambda how=how: fit(epochs=30, **how))  # type: ignore[misc]
    text = file.getvalue()
    assert text.count(HIDE) == text.count(SHOW) >= 1
    lines = screen(text)
    assert len(lines) == 90
    for number in range(3):
        mine = [line for line in lines if line.startswith((f"run{number}: epoch", "epoch"))]
        assert len(mine) >= 29, "all but those of a time when it was alone have its name"
    assert all(re.fullmatch(r"(run\d: )?epoch [ \d]\d/30  \S+ m?s  loss \S+( .*)?", line) for line in lines)


def test_bars_that_live_together_have_a_line_each() -> None:
    file = io.StringIO()
    bars = [
        ProgressBar(console=Console(file=file, force_terminal=True, width=100), every_s=0, name=f"bar{n}")
        for n in range(3)
    ]
    for bar in bars:
        bar.on_train_begin(begin(100.0))
    for bar in (*bars, *bars):
        bar.on_run_paused(af.RunPaused(step=0, time=100.0))  # shown at once
    shown = [f"bar{n}: epoch 1/4  {'━' * 30}   0/10  paused" for n in range(3)]
    assert screen(file.getvalue()) == shown
    bars[1].on_epoch_end(af.EpochEnd(epoch=0, logs=FrozenDict({"loss": 0.5}), time=101.0))
    assert screen(file.getvalue()) == ["bar1: epoch 1/4  1.0 s  loss 0.5000", *shown]
    bars[1].on_train_end(af.TrainEnd(outcome="completed"))
    assert screen(file.getvalue()) == ["bar1: epoch 1/4  1.0 s  loss 0.5000", shown[0], shown[2]]
    assert SHOW not in file.getvalue()
    for bar in bars:
        bar.on_train_end(af.TrainEnd(outcome="completed"))
    assert screen(file.getvalue()) == ["bar1: epoch 1/4  1.0 s  loss 0.5000"]
    assert file.getvalue().count(HIDE) == file.getvalue().count(SHOW) == 1


@pytest.mark.anyio
async def test_what_is_printed_meanwhile_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Fake()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    await fit(epochs=3, callbacks=[Break(lambda event: print("hello [bold]world[/]")), ProgressBar(every_s=0)])
    assert sys.stdout is file
    lines = screen(file.getvalue())
    assert "hello [bold]world[/]" in lines
    assert len(lines) == 4


@pytest.mark.anyio
async def test_a_real_pseudo_terminal() -> None:
    ours, theirs = os.openpty()
    text = ""
    try:
        with open(theirs, "w") as file:  # noqa: ASYNC230  # nothing blocks here
            await fit(epochs=3, validation_data=(X, Y), callbacks=ProgressBar(file=file))
        while part := os.read(ours, 4096).decode():
            text += part
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert numbers_off(screen(text.replace("\r\n", "\n"))) == EPOCHS
    assert text.count(HIDE) == text.count(SHOW) == 1


@pytest.mark.anyio
async def test_many_short_epochs_are_told_together_and_none_is_lost() -> None:
    drawn, file = console()
    await fit(epochs=2000, callbacks=ProgressBar(console=drawn))
    assert [line.split("/")[0].split()[-1] for line in screen(file.getvalue())] == [f"{n}" for n in range(1, 2001)]


@pytest.mark.parametrize("width", [20, 60, 200])
def test_the_bar_keeps_to_its_line(width: int) -> None:
    drawn, file = console(width)
    bar = ProgressBar(console=drawn, every_s=0, name="a name")
    bar.on_train_begin(begin(100.0))
    bar.on_epoch_begin(af.EpochBegin(epoch=0, time=100.0))
    bar.on_batch_end(batch(0, 4, 102.0))
    (shown,) = screen(file.getvalue())
    assert len(shown) <= width
    assert shown.startswith("a name: epoch 1/4")
    assert ("━" in shown) == (width > 20)
    bar.on_train_end(af.TrainEnd(outcome="completed"))
    assert screen(file.getvalue()) == []


# --- evaluate and predict ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_evaluate_and_predict_are_shown_too() -> None:
    from asyncfit import layers

    model = af.Sequential([layers.Dense(1)], seed=1)
    model.compile("sgd", "mse", metrics=["mae"])
    plain = io.StringIO()
    drawn, terminal = console()
    for bar in (ProgressBar(file=plain, every_s=0), ProgressBar(console=drawn, every_s=0, leave=False)):
        loss, mae = await model.evaluate(X, Y, batch_size=2, callbacks=bar)
        await model.predict(X, batch_size=2, callbacks=bar)
    ends = [f"evaluate  3/3  T  loss {loss:.2f}  mae {mae:.4f}", "predict  3/3  T"]
    timeless = [re.sub(r"\d+(\.\d)? m?s\b", "T", line) for line in plain.getvalue().splitlines()]
    assert [line for line in timeless if "/s" not in line] == ends
    assert [line.split("  ")[:2] for line in timeless if "/s" in line] == [
        [what, f"{n}/3"] for what in ("evaluate", "predict") for n in (1, 2, 3)
    ]
    assert [re.sub(r"\d+(\.\d)? m?s\b", "T", line) for line in screen(terminal.getvalue())] == ends
    assert terminal.getvalue().count(HIDE) == terminal.getvalue().count(SHOW) == 2


def test_an_evaluate_that_did_not_complete_says_so() -> None:
    file = io.StringIO()
    bar = ProgressBar(file=file, name="mine")
    bar.on_evaluate_begin(af.EvaluateBegin(params=FrozenDict({"steps": 10}), time=100.0))
    bar.on_evaluate_end(af.EvaluateEnd(outcome="cancelled", reason="enough", batches=4, time=101.0))
    assert file.getvalue() == "mine: evaluate   4/10  1.0 s  cancelled: enough\n"


# --- around it -----------------------------------------------------------------------------------------------------


def test_on_a_terminal_without_rich_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ImportError, match=r"ProgressBar on a terminal needs rich.*pip install 'asyncfit\[progress\]'"):
        ProgressBar(file=Fake())
    monkeypatch.setenv("TERM", "dumb")
    ProgressBar(file=Fake())
    ProgressBar(file=io.StringIO())


@pytest.mark.anyio
async def test_a_run_goes_on_without_a_bar_that_cannot_be_shown(caplog: pytest.LogCaptureFixture) -> None:
    file = io.StringIO()
    told: list[str] = []
    bus = af.EventBus()
    bus.subscribe(af.SubscriberFailed, lambda event: told.append(event.name))
    how = {"bus": bus, "callbacks": [ProgressBar(file=file), Break(lambda event: file.close())]}
    with caplog.at_level(logging.ERROR, "asyncfit"):
        history = await fit(epochs=9, **how)
    assert history.outcome == "completed"
    assert told == ["ProgressBar"]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.anyio
async def test_one_bar_serves_one_run_after_another() -> None:
    file = io.StringIO()
    bar = ProgressBar(file=file)
    for _ in range(2):
        await fit(epochs=3, validation_data=(X, Y), callbacks=bar)
    assert numbers_off(file.getvalue().splitlines()) == [*EPOCHS, *EPOCHS]


def test_rich_is_imported_when_the_bar_is_made_and_only_for_a_terminal() -> None:
    code = """
import io, sys
from asyncfit.callbacks import ProgressBar
class Terminal(io.StringIO):
    isatty = lambda self: True
ProgressBar(file=io.StringIO())
print(sorted(name for name in sys.modules if name in ("rich", "rich.live")))
ProgressBar(file=Terminal())
known = set(sys.modules)
from rich.console import Console
import rich.live, rich.text
print(sorted(set(sys.modules) - known))
"""
    env = {**os.environ, "TERM": "xterm"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout == "[]\n[]\n"


@pytest.mark.anyio
async def test_nobody_waits_for_it() -> None:
    async with fit(callbacks=ProgressBar(file=io.StringIO(), name="bar")) as run:
        assert [(stats.name, stats.mode) for stats in run.subscribers] == [("bar", "queued")]


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"every_s": -1}, af.InvalidInput, "every_s"),
        ({"every_s": "often"}, af.InvalidInput, "every_s"),
        ({"every_s": float("nan")}, af.InvalidInput, "every_s"),
        ({"file": "out.txt"}, TypeError, "text stream"),
        ({"console": io.StringIO()}, TypeError, "goes to file="),
        ({"console": Console(), "file": sys.stderr}, af.InvalidInput, "not both"),
        ({"name": ""}, TypeError, "name"),
    ],
)
def test_bad_input_is_refused(how: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ProgressBar(**how)
