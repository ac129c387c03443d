"""In a real notebook kernel: an interrupt cancels the run within a batch, and a run shows itself.

One kernel serves all tests; each waits for what it needs inside a time limit.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("ipykernel") is None:  # not imported: a process that has it takes itself for a kernel
    pytest.skip("ipykernel is not installed", allow_module_level=True)
manager = pytest.importorskip("jupyter_client.manager")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(180)]
"""Jupyter's libraries may warn of what they like in this process: asyncfit runs in the other one."""

SETUP = """
import asyncio, gc, threading, warnings
warnings.filterwarnings("error", module="asyncfit")
import numpy as np, asyncfit as af, asyncfit.testing
from asyncfit import layers

x = np.random.default_rng(0).normal(size=(640, 8)).astype("float32")
y = x[:, 0]
model = af.Sequential([layers.Dense(8, "relu"), layers.Dense(1)], seed=1)
model.compile("sgd", "mse")

class Say(af.Callback):
    gates = "none"
    def on_epoch_begin(self, event):
        if event.epoch == 3:
            print("going", flush=True)

class Slow(af.testing.Scripted):
    # batches of half a second
    batches = 0
    def train_batch(self, x, y, sample_weight=None):
        self.batches += 1
        if self.batches == 3:
            print("third batch", flush=True)
        threading.Event().wait(0.5)
        return super().train_batch(x, y, sample_weight)
    def test_batch(self, x, y, sample_weight=None):
        return self.train_batch(x, y, sample_weight)

def left():
    gc.collect()
    threads = [t.name for t in threading.enumerate() if t.name.startswith("asyncfit")]
    return threads + [t.get_name() for t in asyncio.all_tasks() if "asyncfit" in t.get_name()]
"""


@dataclass
class Cell:
    """What came of a cell: "ok" or the name of its error, what it printed, and all that was displayed meanwhile."""

    status: str = ""
    text: str = ""
    displays: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)
    seconds_after_interrupt: float = 0.0


class Kernel:
    def __init__(self, folder: Path) -> None:
        root = str(Path(__file__).parent.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "IPYTHONDIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
        self._manager = manager.KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        self._manager.start_kernel(env=env, cwd=str(folder))
        self._client = self._manager.client()
        try:
            self._client.start_channels()
            self._client.wait_for_ready(timeout=60)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    def run(self, code: str, *, interrupt_at: str | None = None) -> Cell:
        """Run a cell to its end; interrupt it as soon as it has printed `interrupt_at`."""
        cell, sent = Cell(), None
        request = self._client.execute(code)
        until = time.monotonic() + 60
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.1, until - time.monotonic()))
            kind, content = message["msg_type"], message["content"]
            if kind in ("display_data", "update_display_data", "execute_result"):
                name = content.get("transient", {}).get("display_id")
                cell.displays.append((kind, name, content["data"]))
            if kind == "stream":
                cell.text += content["text"]
                if interrupt_at is not None and sent is None and interrupt_at in cell.text:
                    self._manager.interrupt_kernel()
                    sent = time.monotonic()
            if message["parent_header"].get("msg_id") == request:
                if kind == "error":
                    cell.status = content["ename"]
                elif kind == "status" and content["execution_state"] == "idle":
                    break
        while (reply := self._client.get_shell_msg(timeout=30))["parent_header"].get("msg_id") != request:
            pass  # answers to what `wait_for_ready` has asked
        assert interrupt_at is None or sent is not None, cell
        cell.status = cell.status or reply["content"]["status"]
        cell.seconds_after_interrupt = 0.0 if sent is None else time.monotonic() - sent
        return cell

    def value(self, code: str) -> str:
        cell = self.run(f"print(repr(({code})))")
        assert cell.status == "ok", cell
        return cell.text.strip()

    def updates(self, name: str, words: str) -> dict[str, Any]:
        """Wait until the display of that name has these words."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            if message["msg_type"] == "update_display_data" and content["transient"]["display_id"] == name:
                data: dict[str, Any] = content["data"]
                if words in data["text/html"]:
                    return data
        raise AssertionError(f"no update with {words}")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    made = Kernel(tmp_path_factory.mktemp("kernel"))
    try:
        assert made.run(SETUP).status == "ok"
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("history = await model.fit(x, y, epochs=1_000_000, callbacks=Say())", id="awaited"),
        pytest.param("async with model.fit(x, y, epochs=1_000_000, callbacks=Say()) as run:\n    pass", id="block"),
        pytest.param(
            "async with model.fit(x, y, epochs=1_000_000, callbacks=Say()) as run:\n"
            "    async for event in run.events(af.EpochEnd): pass",
            id="stream",
        ),
    ],
)
def test_an_interrupt_cancels_the_run_within_a_batch(kernel: Kernel, code: str) -> None:
    cell = kernel.run(code, interrupt_at="going")
    assert cell.status == "CancelledError"
    assert cell.seconds_after_interrupt < 5
    assert kernel.value("model.history.outcome, left()") == "('cancelled', [])"
    assert kernel.value("(await model.fit(x, y, epochs=2)).outcome") == "'completed'"


@pytest.mark.parametrize("call", ["fit(x, y, batch_size=32)", "evaluate(x, y, batch_size=32)"])
def test_no_batch_begins_after_an_interrupt(kernel: Kernel, call: str) -> None:
    cell = kernel.run(f"slow = Slow([1.0] * 100)\nawait af.Trainer(slow).{call}", interrupt_at="third batch")
    assert cell.status == "CancelledError"
    batches = int(kernel.value("slow.batches"))
    assert batches in (3, 4), "the one in hand, and one more if the signal took its time"
    assert kernel.value("left()") == "[]"


def test_an_interrupt_of_a_wait_ends_the_wait_and_not_the_run(kernel: Kernel) -> None:
    assert kernel.run("run = await model.fit(x, y, epochs=1_000_000).start()").status == "ok"
    cell = kernel.run("print('waiting', flush=True)\nawait run.wait()", interrupt_at="waiting")
    assert cell.status == "CancelledError"
    assert kernel.value("run.outcome") == "None"
    assert kernel.run("await run.cancel('by hand')").status == "ok"
    assert kernel.value("run.outcome, run.reason, left()") == "('cancelled', 'by hand', [])"


def test_a_run_shows_a_table_that_lives_as_long_as_it_does(kernel: Kernel) -> None:
    cell = kernel.run("run = await model.fit(x, y, epochs=1_000_000, run_id='<mine>').start()\nrun")
    assert cell.status == "ok"
    kind, name, data = cell.displays[0]
    assert (kind, len(cell.displays)) == ("display_data", 1), "and no result beside it"
    assert name is not None
    assert "&lt;mine&gt;: starting" in data["text/html"]
    kernel.updates(name, "running")
    kernel.updates(name, "last epoch")  # while no cell runs
    again = kernel.run("display(run)")
    assert ("display_data", name) in [(kind, name) for kind, name, _ in again.displays]
    assert kernel.run("run.stop('enough')\nawait asyncio.sleep(0)").status == "ok"
    assert "&lt;mine&gt;: stopped: enough" in kernel.updates(name, "stopped")["text/html"]
    assert kernel.value("run.outcome, left()") == "('stopped', [])"


def test_a_history_is_a_table_and_its_plot_a_picture(kernel: Kernel) -> None:
    cell = kernel.run("history = await model.fit(x, y, epochs=2, validation_split=0.5)\nhistory")
    ((kind, _, data),) = cell.displays
    assert kind == "execute_result"
    assert "<th>val_loss</th>" in data["text/html"]
    pytest.importorskip("matplotlib")
    ((_, _, data),) = kernel.run("history.plot()").displays
    assert "image/png" in data
