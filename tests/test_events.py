from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncfit import events
from asyncfit.errors import DetachedEvent, InvalidInput
from asyncfit.events import (
    BatchEnd,
    EpochEnd,
    Event,
    EventsDropped,
    FrozenDict,
    LayerCreated,
    Omitted,
    StopRequested,
    SubscriberFailed,
    TrainBegin,
    TrainEnd,
    ValidationEnd,
    kinds_below,
    maker,
)

BUILT_IN = [getattr(events, name) for name in events.__all__ if isinstance(getattr(events, name), type)]
BUILT_IN = [kind for kind in BUILT_IN if issubclass(kind, Event) and kind is not Event]

VALUES: dict[str, Any] = {
    "params": FrozenDict(epochs=3, batch_size=32),
    "logs": FrozenDict(loss=0.5, accuracy=math.nan),
    "outcome": "completed",
    "who": "me",
    "path": "m.h5",
    "name": "sub",
    "error": Omitted("exception", "ValueError('x')"),
    "layer": Omitted("object", "Dense"),
    "model": Omitted("model", "Sequential"),
    "optimizer": "sgd",
    "loss": "mse",
    "metrics": ("accuracy", "mae"),
    "seconds": 0.25,
    "value": 0.1,
    "previous": 0.2,
}


def example(kind: type[Event], **more: Any) -> Event:
    given = {f.name: VALUES.get(f.name, 1) for f in fields(kind) if f.name not in ("run_id", "attempt", "seq", "time")}
    for flag in ("complete", "resumable"):
        if flag in given:
            given[flag] = False
    if "reason" in given:
        given["reason"] = "because"
    return kind(**{"run_id": "r1", "attempt": 2, "seq": 7, "time": 12.5, **given, **more})


def same(one: Event, other: Event) -> bool:
    """Alike in class and in each field; `==` looks at run and number only."""
    return type(one) is type(other) and repr(one) == repr(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone(Event):
    name: str
    points: tuple[int, ...] = ()
    more: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Special(Milestone):
    level: int = 0
    lossy: ClassVar[bool] = False


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
class TestEachEvent:
    def test_goes_to_json_and_back_exactly(self, kind: type[Event]) -> None:
        event = example(kind)
        data = event.to_dict()
        assert data["type"] == kind.__name__ == event.type
        text = json.dumps(data, allow_nan=False)
        assert same(Event.from_dict(json.loads(text)), event)

    def test_can_be_pickled_and_copied(self, kind: type[Event]) -> None:
        event = example(kind)
        for twin in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
            assert same(twin, event)
            assert twin == event
            assert hash(twin) == hash(event)

    def test_cannot_be_changed(self, kind: type[Event]) -> None:
        event = example(kind)
        for name in ("seq", "time"):
            with pytest.raises(FrozenInstanceError):
                setattr(event, name, 3)
        assert not hasattr(event, "__dict__")

    def test_takes_keywords_only(self, kind: type[Event]) -> None:
        with pytest.raises(TypeError):
            kind("r1")  # type: ignore[call-arg]

    def test_is_documented(self, kind: type[Event]) -> None:
        assert kind.__doc__
        assert not kind.__doc__.startswith(kind.__name__ + "(")

    def test_can_be_made_in_a_hurry(self, kind: type[Event]) -> None:
        event = example(kind)
        quick = maker(kind)(*(getattr(event, f.name) for f in fields(kind)))
        assert type(quick) is kind
        assert same(quick, event)
        assert quick == event
        with pytest.raises(FrozenInstanceError):
            quick.seq = 3  # type: ignore[misc]


def test_events_of_a_run_compare_by_run_and_number() -> None:
    one = BatchEnd(run_id="a", seq=1, epoch=0, batch=0, step=0, size=1, logs=FrozenDict(x=np.zeros(3)))
    two = EpochEnd(run_id="a", seq=1, epoch=0, logs={})
    assert one == two
    assert len({one, two}) == 1
    assert one != EpochEnd(run_id="a", seq=2, epoch=0, logs={})
    assert one != EpochEnd(run_id="b", seq=1, epoch=0, logs={})
    assert one != "a:0:1"
    assert one.id == "a:0:1"


def test_events_without_a_run_compare_by_contents() -> None:
    assert Milestone(name="x", time=1.0) == Milestone(name="x", time=1.0)
    assert Milestone(name="x", time=1.0) != Milestone(name="y", time=1.0)
    assert Milestone(name="x", time=1.0) != Special(name="x", time=1.0)
    assert hash(Milestone(name="x", time=1.0)) == hash(Milestone(name="x", time=1.0))


# --- JSON ----------------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\", "$tuple", "$omitted"])
)
data = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3) | st.sampled_from(["$tuple", "$omitted", "\\$x", "text"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


@given(data)
def test_whatever_data_an_event_holds_comes_back_from_json(value: Any) -> None:
    event = Milestone(name="x", more=value)
    text = json.dumps(event.to_dict(), allow_nan=False)
    back = Event.from_dict(json.loads(text))
    assert isinstance(back, Milestone)
    assert alike(value, back.more)


@pytest.mark.parametrize(("value", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_numbers_that_are_not_finite_are_text_in_json(value: float, text: str) -> None:
    event = ValidationEnd(epoch=0, logs=FrozenDict(loss=value, np=np.float32(value)))
    assert event.to_dict()["logs"] == {"loss": text, "np": text}
    back = Event.from_dict(event.to_dict())
    assert isinstance(back, ValidationEnd)
    assert alike(back.logs["loss"], value)


def test_what_is_no_data_is_named() -> None:
    class Dense:
        def get_config(self) -> dict[str, Any]:
            return {}

        def __repr__(self) -> str:
            return "<Dense 3>"

    assert LayerCreated(layer=Dense(), index=0).to_dict()["layer"] == {"$omitted": "model", "text": "<Dense 3>"}
    failed = SubscriberFailed(name="x", error=ValueError("no"))
    assert failed.to_dict()["error"] == {"$omitted": "exception", "text": "ValueError('no')"}
    back = Event.from_dict(failed.to_dict())
    assert isinstance(back, SubscriberFailed)
    assert back.error == Omitted("exception", "ValueError('no')")
    array = Milestone(name="x", more=np.zeros((2, 3), dtype="float32")).to_dict()["more"]
    assert array == {"$omitted": "array", "text": "shape (2, 3), float32"}


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"type": "BatchEnds"}, "did you mean 'BatchEnd'"),
        ({}, "unknown event None"),
        ({"type": "EpochEnd", "epoch": 0, "logs": {}, "metrics": 1}, "unknown field of EpochEnd 'metrics'"),
        ({"type": "EpochEnd", "epoch": 0}, "no whole EpochEnd"),
    ],
)
def test_from_dict_says_what_is_wrong(given: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidInput, match=part):
        Event.from_dict(given)


# --- control, model, pickles ---------------------------------------------------------------------------------------


class Control:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def stop(self, reason: str, resumable: bool) -> None:
        self.asked.append(("stop", reason, resumable))

    def cancel(self, reason: str) -> None:
        self.asked.append(("cancel", reason))

    def learning_rate(self) -> float:
        return 0.25

    def set_learning_rate(self, value: float) -> None:
        self.asked.append(value)

    def set_weights(self, snapshot: Any) -> None:
        self.asked.append(("set", snapshot))

    def restore_at_end(self, snapshot: Any, default: bool) -> None:
        self.asked.append(("restore", snapshot))

    def show_model(self, snapshot: Any) -> None:
        self.asked.append(("show", snapshot))

    def add_logs(self, logs: Any) -> None:
        self.asked.append(logs)

    def publish(self, event: Any) -> None:
        self.asked.append(("publish", event))

    def start_soon(self, function: Any, args: Any, wait: bool) -> None:
        self.asked.append((function, args, wait))


def test_control_goes_to_what_was_attached_and_drops_out_of_copies() -> None:
    control = Control()
    snapshot: Any = object()
    event = EpochEnd(epoch=0, logs={})._attach(control, snapshot)
    event.stop("enough", resumable=True)
    event.cancel("no more")
    assert event.learning_rate == 0.25
    event.set_learning_rate(0.1)
    event.set_weights(snapshot)
    event.restore_at_end(snapshot)
    event.add_logs(f1=0.5)
    event.publish(event)
    event.start_soon(anyio.sleep, 3)
    event.start_soon(anyio.sleep, 4, wait=False)
    assert control.asked == [
        ("stop", "enough", True), ("cancel", "no more"), 0.1, ("set", snapshot), ("restore", snapshot), {"f1": 0.5},
        ("publish", event), (anyio.sleep, (3,), True), (anyio.sleep, (4,), False),
    ]  # fmt: skip
    assert event.model is snapshot
    for twin in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(EpochEnd(epoch=0, logs={})))):
        with pytest.raises(DetachedEvent, match=r"stop\(\)"):
            twin.stop()
        with pytest.raises(DetachedEvent, match="snapshots=True"):
            _ = twin.model


@pytest.mark.parametrize(
    ("kind", "able"),
    [
        ("TrainBegin", {"stop", "set_learning_rate", "set_weights"}),
        ("EpochBegin", {"stop", "set_learning_rate", "set_weights", "restore_at_end"}),
        ("ValidationBegin", {"stop", "set_learning_rate", "set_weights", "restore_at_end"}),
        ("ValidationEnd", {"stop", "set_learning_rate", "set_weights", "restore_at_end", "add_logs", "show_model"}),
        ("EpochEnd", {"stop", "set_learning_rate", "set_weights", "restore_at_end", "add_logs", "show_model"}),
        ("BatchEnd", {"stop"}),
        ("BatchBegin", set()),
        ("TrainEnd", set()),
        ("StopRequested", set()),
    ],
)
def test_each_event_has_the_control_that_it_may_have(kind: str, able: set[str]) -> None:
    names = {"stop", "set_learning_rate", "set_weights", "restore_at_end", "add_logs", "show_model"}
    assert {name for name in names if hasattr(getattr(events, kind), name)} == able


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("ValidationBegin", "model", "TrainBegin, EpochBegin, EpochEnd, BatchEnd, ValidationEnd, TrainEnd have"),
        ("BatchBegin", "stop", "TrainBegin, EpochBegin, EpochEnd, BatchEnd, ValidationBegin, ValidationEnd have; run"),
        ("BatchEnd", "set_learning_rate", "ValidationBegin, ValidationEnd have; run.set_learning_rate(value) works"),
        ("TrainBegin", "add_logs", "EpochEnd, ValidationEnd have"),
        ("TrainBegin", "restore_at_end", "EpochBegin, EpochEnd, ValidationBegin, ValidationEnd have"),
    ],
)
def test_what_an_event_lacks_is_named_with_the_events_that_have_it(kind: str, name: str, says: str) -> None:
    event: Any = example(getattr(events, kind))
    assert not hasattr(event, name)
    with pytest.raises(AttributeError) as caught:
        getattr(event, name)
    assert str(caught.value).startswith(f"{kind} has no event.{name}; ")
    assert says in str(caught.value)
    with pytest.raises(AttributeError, match=f"^'{kind}' object has no attribute 'nothing'"):
        _ = event.nothing
    assert pickle.loads(pickle.dumps(event)) == event == copy.copy(event)


def test_an_exception_that_cannot_be_pickled_is_told_in_words() -> None:
    class Local(Exception):
        pass

    event = TrainEnd(outcome="failed", error=Local("lost"))
    assert "Local: lost" in str(pickle.loads(pickle.dumps(event)).error)


def test_contents_cannot_be_changed() -> None:
    logs = FrozenDict(loss=1.0)
    for change in ("logs['x'] = 1", "logs.update(x=1)", "logs.pop('loss')", "logs.clear()", "del logs['loss']"):
        with pytest.raises(TypeError, match="make a copy"):
            exec(change, {"logs": logs})
    with pytest.raises(TypeError, match="make a copy"):
        logs |= {"x": 1}
    assert dict(logs) == {"loss": 1.0}
    assert hash(logs) == hash(FrozenDict(loss=1.0))
    assert pickle.loads(pickle.dumps(logs)) == logs == copy.deepcopy(logs)


# --- users' own events ---------------------------------------------------------------------------------------------


def test_users_events_are_events_like_any_other() -> None:
    event = Special(name="half", points=(1, 2), level=3)
    assert same(Event.from_dict(json.loads(json.dumps(event.to_dict()))), event)
    assert pickle.loads(pickle.dumps(event)) == event
    assert (event.run_id, event.seq) == (None, -1)
    assert event._replace(run_id="r", seq=4).id == "r:0:4"
    assert (Milestone.lossy, Special.lossy) == (True, False)
    assert Special in set(kinds_below(Milestone))


def test_names_of_our_own_events_cannot_be_taken() -> None:
    with pytest.raises(TypeError, match="BatchEnd is an event of asyncfit"):
        type("BatchEnd", (Event,), {"__module__": "mine"})


def test_only_batch_events_and_users_own_may_be_dropped() -> None:
    batches = {"BatchBegin", "BatchEnd", "EvaluateBatchEnd", "PredictBatchEnd"}
    assert {kind.__name__ for kind in BUILT_IN if kind.lossy} == batches
    assert Milestone(name="x").lossy


def test_time_is_now_unless_given() -> None:
    import time

    before = time.time()
    assert before <= StopRequested(who="me", step=0).time <= time.time()
    assert TrainBegin(params={}, time=3.0).time == 3.0
    assert not TrainBegin(params={}).replay
    assert EventsDropped(first=1, last=3, count=2).count == 2
