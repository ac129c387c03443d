"""What a notebook shows of a run and of a history, without a notebook."""

from __future__ import annotations

import gc
import logging
import sys
import types
import weakref
from html.parser import HTMLParser
from typing import Any

import anyio
import pytest

import asyncfit as af
from asyncfit import notebook
from asyncfit.events import EpochEnd, FrozenDict
from asyncfit.history import History

from .run.helpers import Gate, Linear, X, Y, fit, nothing_left, until


class Cells(HTMLParser):
    """The cells of an HTML table, row by row; every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def rows(text: str) -> dict[str, str]:
    return {row[0]: row[1].replace("\xa0", " ").strip() for row in Cells(text).rows}


@pytest.fixture
def ipython(monkeypatch: pytest.MonkeyPatch) -> Any:
    """IPython in a kernel, as far as it is asked: `told` is what it displayed."""
    told: list[tuple[str, str, dict[str, str]]] = []

    def tell(what: str) -> Any:
        return lambda data, *, raw, display_id: told.append((what, display_id, data))

    display = types.ModuleType("IPython.display")
    vars(display).update(display=tell("display"), update_display=tell("update"))
    module = types.ModuleType("IPython")
    shell = types.SimpleNamespace(kernel=object())
    vars(module).update(display=display, get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return types.SimpleNamespace(told=told, shell=shell, display=display)


@pytest.mark.anyio
async def test_the_table_of_a_run_goes_from_its_start_to_its_end(ipython: Any) -> None:
    gate = Gate(4)
    with nothing_left():
        async with fit(Linear(gate), epochs=5, validation_data=(X, Y), run_id="mine") as run:
            run._ipython_display_()
            assert rows(ipython.told[0][2]["text/html"]) == {"run": "mine: starting"}
            assert ipython.told[0][2]["text/plain"].startswith("<Run mine: starting")
            await until(gate.reached.is_set)
            seen = len(ipython.told)
            await until(lambda: len(ipython.told) >= seen + 2)  # also while nothing happens
            shown = rows(ipython.told[-1][2]["text/html"])
            assert list(shown) == ["run", "epochs", "epoch 2", "so far", "last epoch"]
            assert shown["run"] == "mine: running"
            assert shown["epochs"] == "1 of 5"
            assert shown["epoch 2"].startswith("1 of 3, ")
            assert "val_loss" in shown["last epoch"]
            gate.open.set()
    what, name, data = ipython.told[-1]
    assert what == "update"
    assert rows(data["text/html"])["run"] == "mine: completed"
    assert rows(data["text/html"])["epochs"] == "5 of 5"
    assert {name for _, name, _ in ipython.told} == {name}
    assert [what for what, _, _ in ipython.told].count("display") == 1
    many = len(ipython.told)
    run._ipython_display_()
    assert [(what, name) for what, name, _ in ipython.told[many:]] == [("display", name)], "the same table, as it is"
    known = weakref.ref(run)
    del run, gate
    gc.collect()
    assert known() is None
    assert not notebook._shown


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["stop", "cancel", "fail"])
async def test_the_last_table_says_how_it_ended(ipython: Any, how: str) -> None:
    def end(event: af.EpochEnd) -> None:
        if how == "fail":
            raise ArithmeticError("<script>alert(1)</script>")
        (event.stop if how == "stop" else live[0].cancel)("<b>enough</b>")

    class End(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            end(event)

    live: list[af.Run] = []
    try:
        async with fit(epochs=10**9, callbacks=End()) as run:
            live.append(run)
            run._ipython_display_()
    except (ArithmeticError, af.RunCancelled):
        pass
    shown = ipython.told[-1][2]["text/html"]
    assert not Cells(shown).tags & {"script"}
    assert "<b>enough" not in shown
    words = {"stop": "stopped: <b>enough</b>", "cancel": "cancelled: <b>enough</b>", "fail": "failed"}
    assert rows(shown)["run"].endswith(words[how])
    assert ("error" in rows(shown)) == (how == "fail")


@pytest.mark.anyio
async def test_whoever_is_far_behind_is_named(ipython: Any) -> None:
    bus, free = af.EventBus(), anyio.Event()
    for n in range(7):
        bus.subscribe(af.BatchEnd, lambda event: free.wait(), buffer=1, name=f"<i>slow {n}")
    bus.subscribe(af.BatchEnd, lambda event: None, name="quick")
    async with fit(epochs=3, bus=bus) as run:
        await until(lambda: min(stats.dropped for stats in run.subscribers[:7]) > 0)
        cells = Cells(run._repr_html_())
        behind = [row[1] for row in cells.rows if row[0] == "behind"]
        assert len(behind) == 6
        assert all(text.startswith("<i>slow ") and "dropped" in text for text in behind[:5])
        assert behind[5] == "… and 2 more"
        assert "i" not in cells.tags
        free.set()


@pytest.mark.anyio
async def test_what_cannot_be_shown_does_not_disturb_the_run(ipython: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: Any, **how: Any) -> None:
        raise OSError("the connection is gone")

    ipython.display.update_display = fail
    with caplog.at_level(logging.WARNING, "asyncfit"):
        async with fit(epochs=300) as run:
            run._ipython_display_()
    assert run.outcome == "completed"
    assert [record.message for record in caplog.records] == ["a display of the run failed, and is updated no more"]

    class Broken(Exception):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    run._ledger.error = Broken()
    assert "cannot be shown" in rows(run._repr_html_())["error"]
    run.history.history["loss"] = [None]  # type: ignore[list-item]
    assert notebook.guarded_html(run).startswith("<pre>&lt;Run ")


@pytest.mark.anyio
async def test_a_terminal_gets_the_repr_once(ipython: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ipython.shell.kernel = None
    async with fit(epochs=3) as run:
        run._ipython_display_()
    assert [what for what, _, _ in ipython.told] == ["display"]


@pytest.mark.anyio
async def test_without_ipython_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    async with fit(epochs=1) as run:
        run._ipython_display_()
    assert capsys.readouterr().out.startswith(f"<Run {run.id}: starting")


def test_the_table_of_a_history() -> None:
    made = History("<mine>")
    assert Cells(made._repr_html_()).rows == []
    for epoch in range(30):
        logs = {"loss": 1.0 / (epoch + 1), "a<b": 2.0} | ({"val_loss": 0.5} if epoch % 2 else {})
        made.note(EpochEnd(run_id="mine", epoch=epoch, logs=FrozenDict(logs)))
    made.note(af.TrainEnd(outcome="stopped", reason="<enough>"))
    text = made._repr_html_()
    table = Cells(text).rows
    assert table[0] == ["epoch", "loss", "a<b", "val_loss"]
    assert len(table) == 21
    assert table[1] == ["11", "0.0909", "2.0000", ""]
    assert table[-1] == ["30", "0.0333", "2.0000", "0.5000"]
    assert "run &lt;mine&gt;, 30 epochs, of which the last 20 are shown; stopped: &lt;enough&gt;" in text
