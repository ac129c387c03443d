from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar, Union

import pytest

from asyncfit.bus import EventBus
from asyncfit.callback import Callback
from asyncfit.events import BatchBegin, BatchEnd, EpochEnd, Event, StopRequested, TrainEnd
from asyncfit.subscriptions import Filter, How


def plain(event: Any) -> None: ...
async def awaited(event: Any) -> None: ...
def nothing() -> None: ...
def two(event: Any, more: Any) -> None: ...


async def yields(event: Any) -> AsyncIterator[int]:
    yield 1


class AsyncObject:
    async def __call__(self, event: Any) -> None: ...


class Mine(Callback): ...


BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], list[str]]] = [
    # kinds
    ((), {}, TypeError, ["needs to know which events", "af.BatchEnd"]),
    ((plain,), {}, TypeError, ["subscribe(af.BatchEnd, handler)", "af.Event for all"]),
    ((BatchEnd,), {}, TypeError, ["handler", "last"]),
    ((plain, BatchEnd), {}, TypeError, ["event classes first", "then the handler"]),
    (("BatchEnd", plain), {}, TypeError, ["'BatchEnd'", "did you mean af.BatchEnd?"]),
    (("on_epoch_end", plain), {}, TypeError, ["did you mean af.EpochEnd?"]),
    (("onTrainEnd", plain), {}, TypeError, ["did you mean af.TrainEnd?"]),
    ((int, plain), {}, TypeError, ["takes event classes"]),
    ((BatchEnd | int, plain), {}, TypeError, ["takes event classes"]),
    ((TrainEnd(outcome="completed"), plain), {}, TypeError, ["give the class, TrainEnd"]),
    ((3, plain), {}, TypeError, ["takes event classes", "3"]),
    # handlers
    ((BatchEnd, 3), {}, TypeError, ["async def handler(event)", "3"]),
    ((BatchEnd, nothing), {}, TypeError, ["one argument, the event", "nothing takes ()"]),
    ((BatchEnd, two), {}, TypeError, ["one argument", "two takes"]),
    ((BatchEnd, functools.partial(plain, 1)), {}, TypeError, ["one argument"]),
    ((BatchEnd, yields), {}, TypeError, ["yields has a `yield`"]),
    ((BatchEnd, AsyncObject), {}, TypeError, ["AsyncObject is a class"]),
    ((BatchEnd, Mine()), {}, TypeError, ["callbacks=[…]"]),
    # options
    ((BatchEnd, plain), {"evry": 2}, TypeError, ["unknown keyword 'evry'", "did you mean 'every'"]),
    ((BatchEnd, plain), {"onError": "log"}, TypeError, ["did you mean 'on_error'"]),
    ((BatchEnd, plain), {"overflow": "drop"}, ValueError, ["unknown overflow 'drop'", "drop_oldest"]),
    ((BatchEnd, plain), {"on_error": "logs"}, ValueError, ["did you mean 'log'"]),
    ((BatchEnd, plain), {"every": 0}, ValueError, ["every=0"]),
    ((BatchEnd, plain), {"every": 0.5}, TypeError, ["whole number", "every_s="]),
    ((BatchEnd, plain), {"every": True}, TypeError, ["whole number"]),
    ((BatchEnd, plain), {"every_s": 0}, ValueError, ["more than 0 seconds"]),
    ((BatchEnd, plain), {"every_s": 1, "gate": True}, ValueError, ["queued"]),
    ((BatchEnd, plain), {"every_s": 1, "inline": True}, ValueError, ["queued"]),
    ((BatchEnd, plain), {"buffer": 0}, ValueError, ["buffer=0"]),
    ((BatchEnd, plain), {"buffer": "big"}, TypeError, ["whole number"]),
    ((BatchEnd, plain), {"timeout": 0}, ValueError, ["more than 0 seconds"]),
    ((BatchEnd, plain), {"timeout": float("inf")}, ValueError, ["finite"]),
    ((BatchEnd, plain), {"timeout": "1s"}, TypeError, ["seconds as a number"]),
    ((BatchEnd, plain), {"where": "x"}, TypeError, ["where= takes a function"]),
    ((BatchEnd, plain), {"where": awaited}, TypeError, ["plain function"]),
    ((BatchEnd, plain), {"gate": 1}, TypeError, ["True or False"]),
    ((BatchEnd, plain), {"name": 3}, TypeError, ["name= takes text"]),
    ((BatchEnd, plain), {"inline": True, "gate": True}, ValueError, ["exclude each other"]),
    ((BatchEnd, plain), {"inline": True, "thread": True}, ValueError, ["exclude each other"]),
    ((BatchEnd, plain), {"inline": True, "timeout": 1}, ValueError, ["exclude each other"]),
    ((BatchEnd, plain), {"replayable": True}, ValueError, ["inline=True"]),
    ((BatchEnd, awaited), {"inline": True}, TypeError, ["plain functions", "awaited is async"]),
    ((BatchEnd, awaited), {"thread": True}, TypeError, ["plain functions", "awaited is async"]),
    ((BatchEnd, AsyncObject()), {"thread": True}, TypeError, ["plain functions"]),
]


@pytest.mark.parametrize(("given", "how", "error", "parts"), BAD, ids=range(len(BAD)))
def test_bad_subscriptions_are_refused_at_the_door(
    given: Any, how: Any, error: type[Exception], parts: list[str]
) -> None:
    bus = EventBus()
    with pytest.raises(error) as caught:
        bus.subscribe(*given, **how)
    for part in parts:
        assert part in str(caught.value)
    assert bus.subscriptions == ()


def test_a_coroutine_instead_of_a_function_is_refused_and_closed() -> None:
    with pytest.raises(TypeError, match=r"drop the \(\) after it"):
        EventBus().subscribe(BatchEnd, awaited(None))  # type: ignore[call-overload]


def test_the_decorator_checks_before_it_decorates_and_gives_the_function_back() -> None:
    bus = EventBus()
    with pytest.raises(TypeError, match=r"@bus\.on\(af\.BatchEnd\)"):
        bus.on()
    with pytest.raises(TypeError, match=r"@bus\.on\(af\.BatchEnd\)"):
        bus.on(plain)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="every"):
        bus.on(BatchEnd, evry=1)  # type: ignore[call-overload]
    assert bus.on(BatchEnd)(plain) is plain


@pytest.mark.parametrize(
    "options", [{"thread": True}, {"inline": True}, {"timeout": 1.0}, {"on_error": "log"}, {"order": 1}]
)
def test_streams_refuse_what_only_handlers_have(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"takes no {next(iter(options))}="):
        EventBus().events(BatchEnd, **options)


def test_kinds_may_be_bases_and_unions() -> None:
    bus = EventBus()
    assert bus.subscribe(BatchEnd | EpochEnd, plain).kinds == (BatchEnd, EpochEnd)
    assert bus.subscribe(Union[BatchEnd, EpochEnd], TrainEnd, plain).kinds == (BatchEnd, EpochEnd, TrainEnd)  # type: ignore[call-overload] # noqa: UP007
    everything = bus.subscribe(Event, plain)
    assert everything.handler_for(BatchEnd) is not None
    assert bus.subscribe(BatchEnd, plain).handler_for(EpochEnd) is None


def test_names_come_from_the_handler() -> None:
    bus = EventBus()

    def local(event: Any) -> None: ...

    assert bus.subscribe(BatchEnd, local).name == "local"
    assert bus.subscribe(BatchEnd, functools.partial(two, 1)).name == "two"
    assert bus.subscribe(BatchEnd, AsyncObject()).name == "AsyncObject"
    assert bus.subscribe(BatchEnd, AsyncObject().__call__).name == "AsyncObject.__call__"
    assert bus.subscribe(BatchEnd, print, name="mine").name == "mine"
    assert "<lambda>" in bus.subscribe(BatchEnd, lambda event: None).name


# --- filters -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEvent(Event):
    value: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnNumbered(Event):
    round: int
    numbered: ClassVar[str | None] = "round"


def passed(how: How, events: list[Event]) -> list[Event]:
    found = Filter.of(how)
    return events if found is None else [event for event in events if found.passes(event)]


def test_every_goes_by_the_events_own_number() -> None:
    events: list[Event] = [BatchBegin(epoch=0, batch=0, step=step) for step in (5, 6, 7, 8, 9)]
    assert passed(How(every=4), events) == [events[2]]
    rounds: list[Event] = [OwnNumbered(round=n) for n in range(6)]
    assert passed(How(every=3), rounds) == [rounds[2], rounds[5]]


def test_every_counts_events_without_a_number_and_lets_facts_pass() -> None:
    own: list[Event] = [OwnEvent(value=n) for n in range(7)]
    assert passed(How(every=3), own) == [own[2], own[5]]
    facts: list[Event] = [StopRequested(who="me", step=0), TrainEnd(outcome="completed")]
    assert passed(How(every=3, every_s=10), facts) == facts


def test_every_s_goes_by_the_time_of_the_events_and_per_type() -> None:
    times = [0.0, 0.4, 1.0, 1.9, 2.0, 2.5]
    events: list[Event] = [BatchBegin(epoch=0, batch=0, step=0, time=t) for t in times]
    assert [event.time for event in passed(How(every_s=1.0), events)] == [0.0, 1.0, 2.0]
    mixed: list[Event] = [events[0], EpochEnd(epoch=0, logs={}, time=0.1)]
    assert passed(How(every_s=1.0), mixed) == mixed


def test_every_s_does_not_count_what_where_keeps_out() -> None:
    events: list[Event] = [BatchBegin(epoch=0, batch=0, step=n, time=n * 0.5) for n in range(4)]
    kept = passed(How(every_s=1.0, where=lambda event: event.step != 0), events)
    assert [event.time for event in kept] == [0.5, 1.5]


def test_a_clock_that_was_put_back_does_not_silence_a_subscriber() -> None:
    events: list[Event] = [BatchBegin(epoch=0, batch=0, step=0, time=t) for t in (100.0, 1.0)]
    assert passed(How(every_s=10.0), events) == events


def test_without_filters_there_is_no_filter() -> None:
    assert Filter.of(How()) is None
