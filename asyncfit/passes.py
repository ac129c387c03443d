"""A pass: one `evaluate` or `predict`, and who hears of it.

    _main (a task, shielded)             worker threads (`Stepping`)      a task for each subscriber
      check input, copy the state  ────►  to the first batch
      Begin: wait for its gates  ─────────────────────────────────────►  handlers
      batches                      ────►  done …
      as they come: publish them  ────────────────────────────────────►  handlers
      End: wait for its gates, drain

Without callbacks and without a bus there is none of that: the steps are done in one go, in one thread.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc

from .bus import EventBus
from .callback import Callback
from .claims import subscriptions_of
from .control import LateControl, Owner
from .delivery import Delivery
from .errors import DetachedEvent, RunCancelled
from .events import (
    EvaluateBatchEnd,
    EvaluateBegin,
    EvaluateEnd,
    Event,
    FrozenDict,
    Outcome,
    PredictBatchEnd,
    PredictBegin,
    PredictEnd,
    maker,
)
from .inline_port import check_inline
from .protocol import Decision
from .run import sole
from .signals import loop_caller
from .stepping import Ended, Fetch, Stepping
from .subscriptions import Subscription
from .tasks import awake, take_back, was_interrupted

__all__ = ["EVALUATE", "PREDICT", "Kind", "check_listeners", "perform"]

T = TypeVar("T")

GRACE = 5.0
"""Seconds that all handlers together have after a cancellation or failure; the gates of the End have half of them."""

DRAIN = 10.0
"""Seconds that subscribers have for what is queued when the pass has ended."""

GATHER = 0.005
"""Seconds between two looks at what threads have done."""

_logger = logging.getLogger("asyncfit")


@dataclass(frozen=True)
class Kind:
    """What a sort of pass publishes. `make` makes the event of a batch from its fields, by position."""

    begin: Callable[..., Event]
    batch: type[Event]
    make: Callable[..., Event]
    end: Callable[..., Event]


EVALUATE = Kind(EvaluateBegin, EvaluateBatchEnd, maker(EvaluateBatchEnd), EvaluateEnd)
PREDICT = Kind(PredictBegin, PredictBatchEnd, maker(PredictBatchEnd), PredictEnd)


def check_listeners(callbacks: Iterable[Callback], bus: Any) -> None:
    """Refuse a `bus=` that is none, and inline handlers of a pass: there is no live model for them to look at."""
    if bus is not None and not isinstance(bus, EventBus):
        raise TypeError(f"bus= takes an af.EventBus(), not {bus!r}")
    for subscription in [*subscriptions_of(callbacks), *(bus.subscriptions if bus is not None else ())]:
        check_inline(subscription)


def _refuse(*_: object) -> None:
    raise DetachedEvent("publish() and start_soon() are for runs: an evaluate or predict ends with its last batch")


async def perform(
    kind: Kind,
    start: Callable[[Stepping[T]], Awaitable[object]],
    *,
    callbacks: Sequence[Callback] = (),
    bus: EventBus | None = None,
    params: Mapping[str, Any],
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    holders: set[object] | None = None,
    fetch: Fetch | None = None,
) -> T:
    """Do a pass and return its result.

    Args:
        start: gets what the pass needs, and lets `Stepping.open` have its steps in a worker thread, by `Stepping.hop`.
        callbacks, bus: checked already, see `check_listeners`.
        params: of the Begin.
        around: entered around all steps in a thread.
        holders: the pass's delivery is in it from before `start` until the steps are over: what the steps hold, its
            handlers must not wait for.
        fetch: brings what the steps need whenever they cannot go on without it.
    """
    if callbacks or bus is not None:
        subscriptions = subscriptions_of(callbacks)
        held = set() if holders is None else holders
        with awake():
            return await Pass(kind, start, subscriptions, bus, params, around, held, fetch).run()
    stepping: Stepping[T] = Stepping(around)
    try:
        with awake():
            await start(stepping)
            while not stepping.over:
                await stepping.go_on(fetch)
        return stepping.result
    finally:
        stepping.close()


class Pass(Generic[T]):
    """A pass that somebody listens to.

    Attributes:
        id: its `run_id` in its events.
        errors: what went wrong after the outcome was settled, or beside what settled it.
    """

    def __init__(
        self,
        kind: Kind,
        start: Callable[[Stepping[T]], Awaitable[object]],
        subscriptions: list[Subscription],
        bus: EventBus | None,
        params: Mapping[str, Any],
        around: Callable[[], AbstractContextManager[Any]],
        holders: set[object],
        fetch: Fetch | None = None,
    ) -> None:
        self.id = os.urandom(6).hex()
        self.errors: list[BaseException] = []
        self._kind, self._start, self._params, self._holders = kind, start, params, holders
        self._fetch = fetch
        soon = loop_caller()
        assert soon is not None
        self._news = anyio.Event()
        self._stepping: Stepping[T] = Stepping(around, lambda: soon(self._tell))
        self._seq = 0
        self._outcome: Outcome | None = None
        self._reason = ""
        self._error: BaseException | None = None
        self._raise: BaseException | None = None
        self._begun = self._over = False
        self._computing: anyio.CancelScope | None = None
        self._patience: anyio.CancelScope | None = None
        self._hurried = math.inf  # since when handlers have no more than the grace time
        self._share = 1.0
        self._room = anyio.Event()
        self._asking = False
        self._facts: list[Event] = []  # that arose while gates were asked
        self._done = anyio.Event()
        self._delivery = Delivery(
            Owner(
                answered=self._answered,
                failed=self._failed,
                also_failed=self._also_failed,
                publish=self._fact,
                on_loop=lambda request: None,  # of inline handlers, which there are none of
                crashed=self._crashed,
                interrupted=lambda: self._end("cancelled", "the event loop ended", None),
                throttle=self._throttle,
                listen=lambda interest: self._listen(),
                late=LateControl(_refuse, _refuse, _refuse, _refuse),
            ),
            subscriptions,
            bus,
        )
        self._listen()

    # --- its life ----------------------------------------------------------------------------------------------------

    async def run(self) -> T:
        """Do it in the care of this task: cancelling that cancels the pass, and goes on when it has ended."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._main, name=f"asyncfit: pass {self.id}")
                try:
                    await self._done.wait()
                except BaseException:
                    self._end("cancelled", "the awaiting task was cancelled", None)
                    raise
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            self._delivery.close()  # also if it never began
        if self._raise is not None:
            raise self._raise
        if self._outcome != "completed":
            raise self._error or RunCancelled(self._reason)
        if self.errors:
            raise self.errors[0]
        return self._stepping.result

    async def _main(self) -> None:
        """The whole pass. Nothing cancels it from outside but `_end`."""
        with anyio.CancelScope(shield=True):
            try:
                async with anyio.create_task_group() as tasks:
                    self._delivery.serve(tasks)
                    tasks.start_soon(self._gather, name="asyncfit: batches of a pass")
                    try:
                        with anyio.CancelScope() as self._computing:
                            await self._compute()
                    except Ended:
                        pass
                    except BaseException as error:
                        if isinstance(error, anyio.get_cancelled_exc_class()) and not was_interrupted(error):
                            raise
                        self._broke(error)
                    self._free()
                    if self._begun:
                        await self._finish()
                    tasks.cancel_scope.cancel()
            except BaseException as error:
                self._raise = self._raise or sole(error)
            finally:
                self._free()
                self._done.set()

    def _free(self) -> None:
        """What the steps hold is free from now on, also for the handlers of the End."""
        self._stepping.close()
        self._holders.discard(self._delivery)

    async def _compute(self) -> None:
        stepping = self._stepping
        if self._outcome is not None:  # cancelled before it began
            return
        self._holders.add(self._delivery)
        await self._start(stepping)
        self._begun = True
        await self._ask(self._kind.begin(params=FrozenDict(self._params), **self._stamp()))
        while self._outcome is None:
            await stepping.go_on(self._fetch)
            self._take()
            if stepping.over:
                self._settle()
                return
            while stepping.wait:
                await self._room.wait()

    async def _finish(self) -> None:
        self._take()
        self._over = True
        said: dict[str, Any] = {"outcome": self._outcome, "reason": self._reason, "error": self._error}
        if self._kind is EVALUATE and self._outcome == "completed":
            said["logs"] = FrozenDict(self._stepping.result)  # type: ignore[call-overload]
        await self._ask(self._kind.end(batches=self._stepping.batches, **said, **self._stamp()))
        began = anyio.current_time()
        with anyio.move_on_after(DRAIN):
            await self._patiently(self._delivery.drain)
        late = self._delivery.close()
        if late:
            _logger.warning(
                "pass %s: %.3g s after its end these had not taken all their events, the rest is counted as "
                "cancelled: %s", self.id, anyio.current_time() - began, ", ".join(late),
            )  # fmt: skip

    async def _patiently(self, wait: Callable[[], Awaitable[object]], share: float = 1.0) -> None:
        """Wait as long as the handlers have time: this share of the grace, once there is one."""
        self._share = share
        while True:
            try:
                with anyio.CancelScope(deadline=self._hurried + GRACE * share) as self._patience:
                    await wait()
                return
            except BaseException as error:
                if not was_interrupted(error):
                    raise
                self._broke(error)
            finally:
                self._patience = None

    def _settle(self) -> None:
        if self._outcome is None:
            self._outcome = "completed"

    # --- its end -----------------------------------------------------------------------------------------------------

    def _end(self, outcome: Outcome, reason: str, error: BaseException | None) -> None:
        """End it now; what was settled before stays so, but handlers have no more than the grace time."""
        if self._outcome is None:
            self._outcome, self._reason, self._error = outcome, reason, error
            self._stepping.end()
            if self._computing is not None:
                self._computing.cancel()
        self._hurried = min(self._hurried, anyio.current_time())
        if self._patience is not None:
            self._patience.deadline = self._hurried + GRACE * self._share

    def _failed(self, error: BaseException) -> None:
        if self._outcome is None:
            self._end("failed", "", error)
        else:
            self._also_failed(error)

    def _also_failed(self, error: BaseException) -> None:
        if any(error is known for known in (self._error, *self.errors)):
            return
        self.errors.append(error)
        if self._outcome != "completed":  # reported, never raised
            _logger.error("pass %s: a handler failed while it was ending", self.id, exc_info=error)

    def _crashed(self, error: BaseException) -> None:
        """Something that no handler may raise, such as SystemExit: the pass ends, then it goes on its way."""
        self._raise = self._raise or error
        self._end("failed", "", error)

    def _broke(self, error: BaseException) -> None:
        """What its own task came upon."""
        if was_interrupted(error):  # asyncio cancels all tasks when it ends
            take_back()
            self._raise = self._raise or error
            self._end("cancelled", "the event loop ended", None)
        elif isinstance(error, Exception):
            self._failed(error)
        else:
            self._crashed(error)

    # --- publishing --------------------------------------------------------------------------------------------------

    def _stamp(self) -> dict[str, Any]:
        self._seq += 1
        return {"run_id": self.id, "seq": self._seq - 1}

    async def _ask(self, event: Event) -> None:
        """Ask the gates of `event`, then give it to all others."""
        self._asking = True
        self._settled = anyio.Event()
        self._delivery.ask(event)
        try:
            await self._patiently(self._settled.wait, 0.5)
        finally:
            if not self._settled.is_set():
                self._delivery.abandon()
            self._asking = False
            self._delivery.publish(event)
            facts, self._facts = self._facts, []
            for fact in facts:
                self._fact(fact)

    def _answered(self, event: Event, decision: Decision, error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
        self._settled.set()

    def _fact(self, fact: Event) -> None:
        if self._over or not self._begun:  # nothing comes behind the End
            return
        if self._asking:
            self._facts.append(fact)
        else:
            self._delivery.publish(fact._replace(**self._stamp()))

    def _tell(self) -> None:
        self._news.set()

    async def _gather(self) -> None:
        """Publish batches as they come, without a wake-up for each."""
        while True:
            try:
                await self._news.wait()
                self._news = anyio.Event()
                self._take()
                await anyio.sleep(GATHER)
            except BaseException as error:
                if isinstance(error, anyio.get_cancelled_exc_class()) and not was_interrupted(error):
                    raise
                self._broke(error)
            self._stepping.woken = False  # first this, then a look: what comes later calls again
            if self._stepping.done:
                self._news.set()

    def _take(self) -> None:
        """Publish the batches that are done."""
        done, kind = self._stepping.done, self._kind
        while done:
            batch, size, found, now = done.popleft()
            if self._over:
                continue
            seq, self._seq = self._seq, self._seq + 1
            if kind is EVALUATE:
                found = FrozenDict(found)
            else:
                found.flags.writeable = False
            self._delivery.publish(kind.make(self.id, 0, seq, now, batch, size, found))

    def _listen(self) -> None:
        self._stepping.every = self._delivery.every(self._kind.batch)

    def _throttle(self, full: bool) -> None:
        self._stepping.wait = full
        if not full:
            self._room.set()
            self._room = anyio.Event()
