"""Random subscribers, policies, speeds, cancellations, re-entrant publishes: nothing gets lost, mixed up or stuck."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncfit.bus import EventBus
from asyncfit.errors import AsyncFitError
from asyncfit.events import BatchEnd, EpochEnd, Event, EventsDropped
from asyncfit.streams import EventStream
from asyncfit.subscriptions import Subscription

from .conftest import BACKENDS

LIMIT = 10.0
KINDS: list[tuple[type[Event], ...]] = [(BatchEnd,), (EpochEnd,), (BatchEnd, EpochEnd), (Event,)]


@dataclass
class Member:
    """A subscriber: how it subscribes, and what it does at its n-th event."""

    kinds: tuple[type[Event], ...]
    how: dict[str, Any]
    sort: str  # async, plain or stream
    speed: list[int]  # checkpoints per delivery, in turn
    acts: dict[int, tuple[str, int]]
    accepted: list[Event] = field(default_factory=list)
    got: list[Event] = field(default_factory=list)
    overlaps: int = 0
    subscription: Subscription | None = None


@st.composite
def members(draw: st.DrawFn) -> Member:
    sort = draw(st.sampled_from(["async", "async", "plain", "stream"]))
    how: dict[str, Any] = {
        "overflow": draw(st.sampled_from(["drop_oldest", "latest", "block", "fail"])),
        "buffer": draw(st.integers(1, 4)),
        "gate": draw(st.booleans()),
        "every": draw(st.sampled_from([1, 1, 1, 2, 3])),
    }
    if sort != "stream":
        how["order"] = draw(st.sampled_from([0, 0, 100]))
        how["on_error"] = draw(st.sampled_from(["log", "detach"]))
        if sort == "plain" and not how["gate"]:
            how["inline"] = draw(st.booleans())
    what = st.tuples(
        st.sampled_from(["cancel", "publish", "publish", "publish_nowait", "raise", "subscribe"]), st.integers(0, 5)
    )
    return Member(
        kinds=draw(st.sampled_from(KINDS)),
        how=how,
        sort=sort,
        speed=draw(st.lists(st.integers(0, 3), min_size=1, max_size=4)),
        acts=draw(st.dictionaries(st.integers(0, 6), what, max_size=3)),
    )


@dataclass
class Publisher:
    """A task that publishes: at each step which kind, how, and how many checkpoints before."""

    steps: list[tuple[str, bool, int]]
    cancelled_after: int | None


publishers = st.builds(
    Publisher,
    st.lists(st.tuples(st.sampled_from("BBBE"), st.booleans(), st.integers(0, 2)), max_size=12),
    st.none() | st.integers(0, 20),
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Errors on purpose are logged by the hundred."""
    logger = logging.getLogger("asyncfit")
    logger.disabled = True
    yield
    logger.disabled = False


class World:
    """One random program on one bus."""

    def __init__(self, members: list[Member], publishers: list[Publisher], entered: bool) -> None:
        self.bus = EventBus()
        self.members = members
        self.publishers = publishers
        self.entered = entered
        self.count = 0
        self.budget = 15  # events that handlers publish
        self.streams: list[EventStream[Any]] = []

    def event(self, letter: str) -> Event:
        self.count += 1
        n = self.count
        if letter == "B":
            return BatchEnd(seq=n, epoch=0, batch=n, step=n, size=1, logs={})
        return EpochEnd(seq=n, epoch=n, logs={})

    async def publish(self, letter: str, awaited: bool) -> None:
        if awaited:
            await self.bus.publish(self.event(letter))
            return
        try:
            self.bus.publish_nowait(self.event(letter))
        except anyio.WouldBlock:
            pass
        except RuntimeError:
            assert self.bus._tasks is None  # an async subscriber, on a bus not entered or left meanwhile

    def note(self, member: Member, event: Event) -> tuple[str, int] | None:
        member.got.append(event)
        return member.acts.get(len(member.got) - 1)

    def act(self, what: str, which: int) -> None:
        if what == "cancel":
            subscription = self.members[which % len(self.members)].subscription
            if subscription is not None:
                subscription.cancel()
        elif what == "raise":
            raise ValueError("on purpose")
        elif what == "subscribe" and len(self.members) < 8:
            self.add(Member((Event,), {}, "async", [1], {}))

    def add(self, member: Member) -> None:
        def seen(event: Event) -> bool:
            member.accepted.append(event)
            return True

        how = {**member.how, "where": seen}
        if member.sort == "stream":
            stream: EventStream[Any] = self.bus.events(*member.kinds, **how)
            member.subscription = stream._subscription
            self.streams.append(stream)
            self.readers.start_soon(self.read, member, stream)
            return
        busy = False

        async def awaited(event: Event) -> None:
            nonlocal busy
            member.overlaps += busy
            busy = True
            try:
                act = self.note(member, event)
                for _ in range(member.speed[len(member.got) % len(member.speed)]):
                    await anyio.lowlevel.checkpoint()
                await self.act_awaited(act)
            finally:
                busy = False

        def plain(event: Event) -> None:
            nonlocal busy
            member.overlaps += busy
            busy = True
            try:
                act = self.note(member, event)
                if act is not None and act[0].startswith("publish"):
                    if self.budget:
                        self.budget -= 1
                        try:
                            self.bus.publish_nowait(self.event("BBBE"[act[1] % 4]))
                        except (RuntimeError, anyio.WouldBlock):
                            pass
                elif act is not None:
                    self.act(*act)
            finally:
                busy = False

        handler: Any = awaited if member.sort == "async" else plain
        member.subscription = self.bus.subscribe(*member.kinds, handler, **how)
        if member not in self.members:
            self.members.append(member)

    async def act_awaited(self, act: tuple[str, int] | None) -> None:
        if act is None:
            return
        what, which = act
        if not what.startswith("publish"):
            self.act(what, which)
        elif self.budget:
            self.budget -= 1
            await self.publish("BBBE"[which % 4], what == "publish")

    async def read(self, member: Member, stream: EventStream[Any]) -> None:
        try:
            async for event in stream:
                act = self.note(member, event)
                for _ in range(member.speed[len(member.got) % len(member.speed)]):
                    await anyio.lowlevel.checkpoint()
                if act is not None and act[0] != "raise":
                    await self.act_awaited(act)
        except AsyncFitError:  # it fell behind
            pass

    async def run_publisher(self, publisher: Publisher) -> None:
        with anyio.CancelScope() as scope:
            for n, (letter, awaited, pause) in enumerate(publisher.steps):
                for _ in range(pause):
                    await anyio.lowlevel.checkpoint()
                if n == publisher.cancelled_after:
                    async with anyio.create_task_group() as tg:
                        tg.start_soon(self.publish, letter, True)
                        await anyio.lowlevel.checkpoint()
                        tg.cancel_scope.cancel()
                    scope.cancel()
                await self.publish(letter, awaited)

    async def run(self) -> None:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as self.readers:
                if self.entered:
                    async with self.bus:
                        await self.publish_all()
                else:
                    await self.publish_all()
                for stream in self.streams:
                    stream.finish()
        self.check()

    async def publish_all(self) -> None:
        for member in list(self.members):
            self.add(member)
        async with anyio.create_task_group() as tg:
            for publisher in self.publishers:
                tg.start_soon(self.run_publisher, publisher)

    def check(self) -> None:
        for member in self.members:
            assert member.subscription is not None
            stats = member.subscription.statistics()
            assert stats.busy_for is None
            assert not member.overlaps, "two deliveries at a time"
            places = {id(event): place for place, event in enumerate(member.accepted)}
            order = [-1 if isinstance(event, EventsDropped) else places[id(event)] for event in member.got]
            order = [place for place in order if place >= 0]
            assert order == sorted(set(order)), "out of order, or twice"
            total = stats.delivered + stats.dropped + stats.cancelled + stats.queued
            assert total == len(member.accepted), "lost, or counted twice"
            if self.entered:
                assert stats.queued == 0


@pytest.mark.parametrize("backend", [param.values[0] for param in BACKENDS], ids=[param.id for param in BACKENDS])
@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
@given(members=st.lists(members(), min_size=1, max_size=5), publishers=st.lists(publishers, min_size=1, max_size=3))
@settings(max_examples=150)
def test_nothing_gets_lost_mixed_up_or_stuck(
    backend: Any, entered: bool, members: list[Member], publishers: list[Publisher]
) -> None:
    world = World(members, publishers, entered)
    anyio.run(world.run, backend=backend[0], backend_options=backend[1])
