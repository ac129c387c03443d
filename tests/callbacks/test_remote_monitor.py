"""The server gets what Keras sends it, and whatever it does, the run goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncfit as af
from asyncfit.callbacks import RemoteMonitor, remote
from asyncfit.events import FrozenDict
from tests.run.helpers import Gate, Linear, fit, nothing_left, until

CASES = json.loads((Path(__file__).parents[1] / "data" / "keras_remote.json").read_text())["cases"]

Answer = Callable[[int], int]


class Server:
    """A real one, in threads. `answer(n)` gives the status for the n-th request, from 0; 0 is no answer at all."""

    def __init__(self, answer: Answer = lambda number: 200) -> None:
        self.got: list[dict[str, Any]] = []
        self.closing = threading.Event()
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                with lock:
                    number = len(outer.got)
                    request = {"method": self.command, "path": self.path, "body": body}
                    outer.got.append({**request, "type": self.headers["Content-Type"], "headers": dict(self.headers)})
                status = answer(number)
                if not status:
                    outer.closing.wait(20)
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def epochs(self) -> list[int]:
        return [json.loads(request["body"])["epoch"] for request in self.got]


def hung_up() -> bool:
    """Whether no connection to a server is left."""
    return not any("process_request" in thread.name for thread in threading.enumerate())


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*how: Any) -> Server:
        servers.append(Server(*how))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def refused() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BACKOFF", 0.01)


def monitor(root: str, **how: Any) -> RemoteMonitor:
    return RemoteMonitor(root, **{"send_as_json": True, "at_end": 20.0, **how})


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
async def test_the_request_is_kerass(case: dict[str, Any], serve: Any) -> None:
    server = serve()

    class Sends(RemoteMonitor):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            super().on_epoch_end(event._replace(epoch=case["epoch"], logs=FrozenDict(case["logs"])))

    await fit(epochs=1, callbacks=Sends(server.root, **case["settings"]))
    (got,) = server.got
    assert {key: got[key] for key in ("method", "path", "type", "body")} == {
        key: case[key] for key in ("method", "path", "type", "body")
    }
    assert case["settings"].get("headers", {}).items() <= got["headers"].items()


@pytest.mark.anyio
async def test_each_epoch_is_sent_in_order_and_nothing_is_left(serve: Any) -> None:
    server = serve()
    callback = monitor(server.root)
    async with fit(epochs=1, callbacks=monitor(server.root)):  # loads the library
        pass
    server.got.clear()
    with nothing_left():
        await fit(epochs=5, callbacks=callback)
        await until(hung_up)
    assert server.epochs == [0, 1, 2, 3, 4]
    assert (callback.sent, callback.lost) == (5, 0)
    await fit(epochs=2, callbacks=callback)
    assert server.epochs == [0, 1, 2, 3, 4, 0, 1]
    assert (callback.sent, callback.lost) == (2, 0)


@pytest.mark.anyio
async def test_they_are_sent_while_the_run_goes_on(serve: Any) -> None:
    server, gate = serve(), Gate(at=6)
    async with fit(Linear(gate), epochs=3, callbacks=monitor(server.root)):
        await until(lambda: server.epochs == [0, 1])
        gate.open.set()
    assert server.epochs == [0, 1, 2]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_a_refusal_for_now_is_tried_again(status: int, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda number: status if number < 2 else 200)
    callback = monitor(server.root)
    await fit(epochs=3, callbacks=callback)
    assert server.epochs == [0, 0, 0, 1, 2]
    assert (callback.sent, callback.lost) == (3, 0)
    assert not caplog.records


@pytest.mark.anyio
async def test_a_refusal_for_good_is_not(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda number: 404 if number == 1 else 200)
    callback = monitor(server.root)
    await fit(epochs=3, callbacks=callback)
    assert server.epochs == [0, 1, 2]
    assert (callback.sent, callback.lost) == (2, 1)
    assert "it answered 404 Not Found" in caplog.text


@pytest.mark.anyio
async def test_retries_come_to_an_end(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda number: 500)
    callback = monitor(server.root, retries=2)
    await fit(epochs=3, callbacks=callback)
    assert server.epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (callback.sent, callback.lost) == (0, 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once"
    assert "did not reach" in caplog.text
    assert "500 Internal Server Error" in caplog.text


@pytest.mark.anyio
async def test_nobody_there_costs_one_warning(refused: str, caplog: pytest.LogCaptureFixture) -> None:
    callback = monitor(refused, retries=1)
    await fit(epochs=1, callbacks=callback)  # loops have things of their own that they make once
    caplog.clear()
    with nothing_left():
        history = await fit(epochs=4, callbacks=callback)
    assert history.outcome == "completed"
    assert (callback.sent, callback.lost) == (0, 4)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert refused in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["completes", "is cancelled", "fails"])
async def test_a_server_that_never_answers_puts_off_the_end_by_at_end_at_most(how: str, serve: Any) -> None:
    server, gate = serve(lambda number: 0), Gate(at=3)
    callback = monitor(server.root, timeout=1000.0, at_end=0.2)

    def wait(model: Linear) -> None:
        gate(model)
        if how == "fails" and model.batches == 5:
            raise ValueError("broken")

    async def run() -> None:
        async with fit(Linear(wait), epochs=3 if how != "is cancelled" else 10**6, callbacks=callback) as live:
            await until(lambda: server.got)
            if how == "is cancelled":
                live.cancel()
            gate.open.set()

    await fit(epochs=1, callbacks=monitor(serve().root))  # loops have things of their own that they make once
    await until(hung_up)
    with anyio.fail_after(20), nothing_left():
        began = time.monotonic()
        if how == "completes":
            await run()
            assert callback.lost == 3
        else:
            with pytest.raises(af.RunCancelled if how == "is cancelled" else ValueError):
                await run()
        assert time.monotonic() - began < 10
        server.closing.set()
        await until(hung_up)
    assert server.epochs == [0], "the others waited their turn"
    assert callback.sent == 0


@pytest.mark.anyio
async def test_an_attempt_has_its_time(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda number: 0 if number == 0 else 200)
    callback = monitor(server.root, timeout=0.2)
    await fit(epochs=2, callbacks=callback)
    assert server.epochs == [0, 0, 1]
    assert (callback.sent, callback.lost) == (2, 0)


@pytest.mark.anyio
async def test_what_waits_is_bounded_and_the_oldest_gives_way(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST", 3)
    go, gate = threading.Event(), Gate(at=3)
    server = serve(lambda number: 200 if go.wait(20) else 500)
    callback = monitor(server.root)
    async with fit(Linear(gate), epochs=9, callbacks=callback):
        await until(lambda: server.got)
        gate.open.set()
        await until(lambda: callback.lost == 5)
        go.set()
    assert server.epochs == [0, 6, 7, 8]
    assert (callback.sent, callback.lost) == (4, 5)


@pytest.mark.anyio
async def test_json_has_no_infinity(serve: Any) -> None:
    server = serve()

    def add(event: af.EpochEnd) -> None:
        event.add_logs(a=float("nan"), b=float("inf"), c=float("-inf"))

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, add, gate=True)
    await fit(epochs=1, callbacks=monitor(server.root), bus=bus)
    figures = json.loads(server.got[0]["body"])
    assert [figures[key] for key in "abc"] == ["NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"root": 9000}, TypeError, "root=…. takes text"),
        ({"root": "localhost:9000"}, af.errors.InvalidInput, "http:// or https://"),
        ({"root": "http://"}, af.errors.InvalidInput, "and a host"),
        ({"root": "http://localhost:port"}, af.errors.InvalidInput, "and a host"),
        ({"root": "http://localhost:99999"}, af.errors.InvalidInput, "and a host"),
        ({"root": "http://[::1"}, af.errors.InvalidInput, "and a host"),
        ({"path": "/\0"}, af.errors.InvalidInput, "cannot be sent"),
        ({"field": "\ud800"}, af.errors.InvalidInput, "cannot be sent"),
        ({"field": None}, TypeError, "field=…. takes text"),
        ({"headers": 5}, TypeError, "headers=…. takes a dict"),
        ({"headers": {"Token": 5}}, af.errors.InvalidInput, "in ASCII, not 'Token': 5"),
        ({"headers": {"Token": "☃"}}, af.errors.InvalidInput, "in ASCII"),
        ({"headers": {"Token": "a\r\nHost: b"}}, af.errors.InvalidInput, "in ASCII"),
        ({"send_as_json": "yes"}, af.errors.InvalidInput, "True or False"),
        ({"retry": 2}, TypeError, "did you mean 'retries'"),
        ({"retries": -1}, af.errors.InvalidInput, "retries"),
        ({"retries": 1.5}, af.errors.InvalidInput, "whole number"),
        ({"timeout": 0}, af.errors.InvalidInput, "no time to answer"),
        ({"timeout": float("inf")}, af.errors.InvalidInput, "seconds"),
        ({"at_end": -1}, af.errors.InvalidInput, "at_end"),
    ],
)
def test_bad_input_is_refused_at_once(given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        RemoteMonitor(**given)


@pytest.mark.anyio
async def test_what_nobody_can_send_is_lost_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    callback = monitor("http://localhost:9000", path=":x/")
    history = await fit(epochs=2, callbacks=callback)
    assert history.outcome == "completed"
    assert callback.lost == 2
    assert "InvalidURL" in caplog.text


def test_without_the_library_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"RemoteMonitor needs httpx.*pip install 'asyncfit\[remote\]'"):
        RemoteMonitor()
