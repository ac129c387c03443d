"""Every event is in the file, can be read back, and none is torn."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.callbacks import JSONLinesLogger, files, loggers
from tests.callbacks.test_csv_logger import largest_file
from tests.run.helpers import Gate, Linear, X, Y, fit, kinds, nothing_left, until


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift(af.Event):
    """Something of one's own."""

    amount: float
    where: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SteepDrift(Drift):
    pass


class Seen(af.Callback):
    """All events, as they came."""

    gates = "none"

    def __init__(self) -> None:
        self.events: list[af.Event] = []

    def on_event(self, event: af.Event) -> None:
        self.events.append(event)


def read(path: Path) -> list[af.Event]:
    return list(JSONLinesLogger.read(path))


def told(events: Iterable[af.Event]) -> list[dict[str, Any]]:
    return [event.to_dict() for event in events]


@pytest.mark.anyio
async def test_every_event_is_in_the_file_and_can_be_replayed(tmp_path: Path) -> None:
    seen = Seen()
    model = af.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", callbacks=[JSONLinesLogger(tmp_path / "log.jsonl"), seen])
    with nothing_left():
        async with model.fit(X, Y[:, None], epochs=2, batch_size=2, validation_split=0.4) as run:
            run.publish(SteepDrift(amount=float("nan"), where=("left",)))
    events = read(tmp_path / "log.jsonl")
    assert told(events) == told(seen.events)
    assert {"LayerCreated", "ModelCompiled", "TrainBegin", "BatchEnd", "ValidationEnd", "SteepDrift", "TrainEnd"} <= {
        *kinds(events)
    }
    again = [event for event in events if isinstance(event, SteepDrift)]
    assert again[0].where == ("left",)
    of_run = [event for event in events if event.run_id is not None]
    assert [event.seq for event in of_run] == list(range(len(of_run)))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (af.EpochEnd, ["EpochEnd"] * 2),
        ([af.TrainBegin, af.TrainEnd | af.EpochBegin], ["TrainBegin", "EpochBegin", "EpochBegin", "TrainEnd"]),
        ([Drift], ["Drift", "SteepDrift"]),
        ([SteepDrift, af.ValidationBegin], ["SteepDrift"]),
    ],
)
async def test_kinds_says_which(wanted: Any, names: list[str], tmp_path: Path) -> None:
    logger = JSONLinesLogger(tmp_path / "log.jsonl", wanted)
    async with fit(epochs=2, callbacks=logger) as run:
        run.publish(Drift(amount=1.0))
        run.publish(SteepDrift(amount=2.0))
    assert sorted(kinds(read(tmp_path / "log.jsonl"))) == sorted(names)
    assert logger.lines == len(names)


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", [None, [af.EvaluateBatchEnd, af.PredictBegin]])
async def test_evaluate_and_predict_add_to_the_file(wanted: Any, tmp_path: Path) -> None:
    seen = Seen()
    model = af.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    logger = JSONLinesLogger(tmp_path / "log.jsonl", wanted)
    for _ in range(2):
        await model.evaluate(X, Y[:, None], batch_size=2, callbacks=[logger, seen])
    assert (tmp_path / "log.jsonl").read_text().count("EvaluateBatchEnd") == 6
    await model.predict(X, callbacks=[logger, seen])
    ours = [event for event in seen.events if wanted is None or type(event) in wanted]
    assert told(read(tmp_path / "log.jsonl")) == json.loads(json.dumps(told(ours)))
    assert len(ours) == (2 * 5 + 3 if wanted is None else 2 * 3 + 1)


@pytest.mark.anyio
async def test_batches_that_are_not_wanted_are_not_asked_for(tmp_path: Path) -> None:
    async with fit(epochs=2, callbacks=JSONLinesLogger(tmp_path / "log.jsonl", [af.EpochEnd])) as run:
        pass
    assert run.subscribers[0].delivered == 4  # TrainBegin, two epochs, TrainEnd


@pytest.mark.anyio
@pytest.mark.parametrize("append", [False, True])
async def test_a_second_run_begins_anew_or_goes_on_behind(append: bool, tmp_path: Path) -> None:
    logger = JSONLinesLogger(tmp_path / "log.jsonl", [af.TrainEnd], append)
    runs = [(await fit(epochs=1, callbacks=logger)).run_id for _ in range(2)]
    assert [event.run_id for event in read(tmp_path / "log.jsonl")] == (runs if append else runs[1:])


@pytest.mark.anyio
async def test_a_resumed_run_adds_to_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = JSONLinesLogger(tmp_path / "log.jsonl", [af.EpochEnd])
    await fit(epochs=2, callbacks=logger)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"type": "Epo')  # killed here
    state = json.loads(json.dumps(logger.state_dict()))
    other = JSONLinesLogger(tmp_path / "log.jsonl", [af.EpochEnd])
    other.load_state_dict(state)
    await fit(epochs=3, initial_epoch=2, callbacks=other)
    assert [getattr(event, "epoch", None) for event in read(tmp_path / "log.jsonl")] == [0, 1, 2]
    assert other.lines == 3
    assert "log.jsonl:3 is no whole line" in caplog.text


@pytest.mark.anyio
async def test_a_torn_last_line_is_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await fit(epochs=1, callbacks=JSONLinesLogger(tmp_path / "log.jsonl"))
    text = (tmp_path / "log.jsonl").read_bytes()
    whole = read(tmp_path / "log.jsonl")
    assert not caplog.records
    end = text.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(end + 1, len(text) - 1, 7):
        (tmp_path / "log.jsonl").write_bytes(text[:cut])
        assert read(tmp_path / "log.jsonl") == whole[:-1]
    assert "is no whole line and is left out" in caplog.text


@pytest.mark.parametrize(
    "content", [b"epoch,loss\n0,0.5\n", b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 9, b'{\n  "type": "TrainBegin"\n}\n']
)
def test_another_kind_of_file_is_refused(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(af.InvalidInput, match=r"log\.jsonl:\d is no event, nor a part of one: .* JSONLinesLogger"):
        read(tmp_path / "log.jsonl")
    assert len(caplog.records) <= 1


def test_a_file_with_nothing_but_a_torn_line_has_no_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in ("", '{"type":"Trai'):
        (tmp_path / "log.jsonl").write_text(content)
        assert read(tmp_path / "log.jsonl") == []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("line", ['{"type": "Nothing"}', '{"type": "EpochEnd", "epoch": 1}', "[1]", "3"])
def test_a_whole_line_that_is_no_event_is_an_error_that_names_it(line: str, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(line + "\n")
    with pytest.raises(af.errors.InvalidInput, match=r"log\.jsonl:1: "):
        read(tmp_path / "log.jsonl")


@pytest.mark.anyio
async def test_lines_are_in_the_file_at_the_end_of_their_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "OFTEN", 1000.0)
    gate = Gate(at=6)
    async with fit(Linear(gate), epochs=3, callbacks=JSONLinesLogger(tmp_path / "log.jsonl")):
        await until(gate.reached.is_set)
        await until(
            lambda: (tmp_path / "log.jsonl").exists() and (tmp_path / "log.jsonl").read_bytes().count(b"EpochEnd") == 2
        )
        gate.open.set()


@pytest.mark.anyio
async def test_lines_do_not_wait_for_the_next_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "OFTEN", 0.05)
    gate = Gate(at=1)
    async with fit(Linear(gate), callbacks=JSONLinesLogger(tmp_path / "log.jsonl")):
        await until(gate.reached.is_set)
        await until(
            lambda: (
                (tmp_path / "log.jsonl").exists() and (tmp_path / "log.jsonl").read_bytes().count(b"BatchBegin") == 2
            )
        )
        gate.open.set()


@pytest.mark.anyio
async def test_what_waits_is_bounded_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "MOST", 1000)
    sizes: list[int] = []

    class Watched(JSONLinesLogger):
        def _add(self, lines: list[str]) -> None:
            sizes.append(sum(map(len, lines)))
            super()._add(lines)

    seen = Seen()
    await fit(epochs=20, callbacks=[Watched(tmp_path / "log.jsonl"), seen])
    assert max(sizes) < 2000
    assert len(sizes) > 21
    assert told(read(tmp_path / "log.jsonl")) == told(seen.events)


@pytest.mark.anyio
async def test_a_cancelled_run_is_in_the_file_to_its_end(tmp_path: Path) -> None:
    gate = Gate(at=4)

    async def cut() -> None:
        async with fit(Linear(gate), epochs=10**6, callbacks=JSONLinesLogger(tmp_path / "log.jsonl")) as run:
            await until(gate.reached.is_set)
            run.cancel("enough")
            gate.open.set()

    with nothing_left(), pytest.raises(af.RunCancelled):
        await cut()
    events = read(tmp_path / "log.jsonl")
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[-1], af.TrainEnd)
    assert events[-1].outcome == "cancelled"


@pytest.mark.anyio
async def test_a_full_disk_fails_the_run_and_leaves_whole_lines(tmp_path: Path) -> None:
    with nothing_left(), largest_file(5000), pytest.raises(OSError, match=r"log\.jsonl"):
        await fit(epochs=1000, callbacks=JSONLinesLogger(tmp_path / "log.jsonl"))
    events = read(tmp_path / "log.jsonl")
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[-1], af.EpochEnd)


@pytest.mark.anyio
async def test_with_log_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = JSONLinesLogger(tmp_path / "log.jsonl")
    logger.on_error = "log"
    with largest_file(5000):
        history = await fit(epochs=20, callbacks=logger)
    assert history.outcome == "completed"
    assert [record for record in caplog.records if record.levelno == logging.ERROR]
    assert read(tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"filename": 3}, TypeError, "takes a path"),
        ({"filename": "a", "kinds": []}, TypeError, "which events"),
        ({"filename": "a", "kinds": ["EpochEnd"]}, TypeError, "did you mean af.EpochEnd"),
        ({"filename": "a", "kinds": "EpochEnd"}, TypeError, "did you mean af.EpochEnd"),
        ({"filename": "a", "kinds": int}, TypeError, "event classes"),
    ],
)
def test_bad_input_is_refused_at_once(given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        JSONLinesLogger(**given)
