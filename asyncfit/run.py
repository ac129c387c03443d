"""One run, from its start to its last drained queue, and the handle to it.

    _main (its own task, shielded)        compute (thread)            a task for each subscriber
      prepare data in a thread
      start the worker  ───────────────►  reports …
      loop: wait for the wake-up
            requests, then reports
              → ledger → publish, ask ──────────────────────────────►  handlers
              ◄──────────────────────────────────── answers of gates ──┘
              → commands  ──────────────►  …
      TrainEnd, drain, release the model

The handle's methods only leave a request and wake the loop, so that any thread and any signal handler may call them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, Unpack, overload

import anyio
import anyio.abc
import anyio.lowlevel

from .background import Background
from .bus import EventBus
from .callback import Callback
from .compute import ENDLESS, Work
from .control import LateControl, Owner, checked_event, checked_rate, checked_reason
from .data import Feed
from .delivery import Delivery
from .errors import DetachedEvent, GateReleased, InvalidInput, RunCancelled
from .events import CheckpointFailed, Event, Outcome, TrainBegin, WorkerRestarted
from .executors.base import AtOnce, Executor, Place, Wakeup, Worker, in_context
from .executors.thread import ThreadWorker
from .feeding import Feeding
from .history import History, Progress
from .ledger import Carried, Ledger, Point
from .mailbox import Mailbox, handling
from .notebook import run_html, show
from .protocol import Command, Decision, Ended, Failed, Lost, Pause, Restarted, State, Stop, StopAsked, Update
from .resuming import Resumed
from .roster import Entry, guarded, line, roster
from .saving import Saver, Savings
from .signals import Signal
from .snapshot import Snapshot, StateReader
from .streams import EventStream, stream_subscription
from .subscriptions import StreamOptions, SubscriberStats, Subscription
from .tasks import awake, take_back, was_interrupted

__all__ = ["Order", "Run", "Usage", "sole"]

E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)

SHARED = 1.0
"""For so many seconds a copy of the state that was made for one prediction serves others too."""

CHUNK = 256
"""Reports that are handled before others get the loop."""

MOST_NAMED = 20
"""Of so many late subscribers a warning has the names."""

_logger = logging.getLogger("asyncfit")


class Usage(Protocol):
    """The model's side of being in use."""

    def _claim(self, run: Run) -> None:
        """Raises ModelBusy if another run holds the model."""

    def _release(self, run: Run) -> None: ...

    async def _whole_state(self, run: Run) -> State:
        """A copy of the model's state, whole, whoever uses it; compute of `run` has ended."""


@dataclass(kw_only=True)
class Order:
    """What `fit` was asked to do, checked; a run is made of it."""

    prepare: Callable[[Run], Work]
    """Reads and checks all data: called in a worker thread before anything is published."""
    reader: StateReader
    usage: Usage
    executor: Executor
    subscriptions: list[Subscription] = field(default_factory=list)
    bus: EventBus | None = None
    before: list[Callable[[], Any]] = field(default_factory=list)
    """Called, and awaited if they return something to await, before `TrainBegin`: news of the model."""
    settled: Callable[[History], None] = lambda history: None
    lookahead: int = 1
    run_id: str
    drain_timeout: float = 10.0
    grace: float = 5.0
    as_stored: Callable[[float], float] = float
    schedule: str | None = None
    savers: list[Saver] = field(default_factory=list)
    resumed: Resumed | None = None
    """What the run goes on with."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What its numbers depend on, besides the model's state; known when `prepare` has returned."""

    def forget(self) -> None:
        """The run is over: hold no data, and nothing of a checkpoint."""
        self.resumed = None
        self.prepare = _over


def _over(run: Run) -> Work:
    raise RuntimeError(f"run {run.id} is over")


class Ending:
    """What `run.stop()` returns: the request is made; awaiting it waits for the end of the run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __await__(self) -> Generator[Any, Any, None]:
        return self._run._ended().__await__()


class Run:
    """A live run. `stop`, `cancel`, `pause`, `resume`, `set_learning_rate`, `publish`: at once, from any thread.

    Attributes:
        id: its name in all its events.
        history: what it has brought so far; the whole once it has ended.
        errors: what went wrong after the outcome was settled, or beside what settled it.
    """

    def __init__(self, order: Order) -> None:
        resumed = order.resumed
        self._loaded: list[Callback] = []  # those that were given a state for this run
        self._step_before = 0 if resumed is None else resumed.position.step
        self._attempt = 0 if resumed is None else resumed.attempt
        self.id = order.run_id
        order.usage._claim(self)
        self._thread = threading.get_ident()
        self.history = History(self.id)
        self.errors: list[BaseException] = []
        self._order = order
        self._requests: deque[Callable[[], object]] = deque()
        self._worker: Worker | None = None
        self._early: list[Command] = []  # asked for before there was a worker
        self._epochs: int | None = 0
        self._steps = self._batches = 0
        self._feeding: Feeding | None = None
        self._feeds_awaited = False
        self._feeds_until = math.inf  # until then the end waits for those who read the data
        self._began: float | None = None
        self._paused = False
        self._waits = False  # for a place in the executor
        self._done = Signal()
        self._over = False
        self._until = math.inf  # when nobody is waited for any longer
        self._hurried = False
        self._compute_over = Signal()
        self._shared: _Answer | None = None
        self._raise: BaseException | None = None  # what whoever hosts the run gets instead of a result
        self._given_up: tuple[str, BaseException | None] | None = None  # cancelled before it began
        self._observed = False
        self._wake: Callable[[], None] = lambda: None  # lets the run's own task look at the requests
        self._background = Background(
            on_loop=self._ask,
            failed=self._failed,
            crashed=self._crashed,
            interrupted=self._loop_ended,
            settled=lambda: self._wake(),
        )
        self._final: Ended | None = None  # compute's last report, while work in the background is waited for
        self._final_error: BaseException | None = None
        late = LateControl(
            stop=lambda asked: self._ask(lambda: self._ledger.stop(asked)),
            cancel=self.cancel,
            publish=lambda event: self._publish_own(checked_event("event.publish", event)),
            start_soon=self._background.start,
        )
        self._delivery = Delivery(
            Owner(
                answered=self._answered,
                failed=self._failed,
                also_failed=self._also_failed,
                publish=self._publish_fact,
                on_loop=self._ask,
                crashed=self._crashed,
                interrupted=self._loop_ended,
                throttle=lambda on: self._throttle(self, on),
                listen=lambda interest: self._ledger.listen(interest) if self._worker is not None else None,
                late=late,
                model=order.reader,
                schedule=order.schedule,
                rate=lambda asked: self._ledger.rate(asked),
            ),
            order.subscriptions,
            order.bus,
        )
        self._delivery.inline.run_id, self._delivery.inline.remote = self.id, order.executor.remote
        if resumed is not None:
            self._delivery.inline.attempt = resumed.attempt
            self.history.take_up(resumed.history)
        self._savings = self._delivery.savings = Savings(
            order.savers,
            collect=self._delivery.collect,
            settling=self._delivery.settling,
            start=lambda function, args: self._background.start(function, args, None, True),
            publish=self._publish_fact,
            throttle=self._throttle,
            take_point=lambda: self._ledger.take_point(),
            describe=self._described,
            model=order.reader,
            attempt=self._attempt,
        )
        self._throttling: set[object] = set()
        self._ledger = Ledger(
            publish=self._published,
            ask=self._delivery.ask,
            send=self._send,
            gated=self._delivery.gated,
            view=lambda state, step, epoch: Snapshot(state, step, epoch, order.reader),
            as_stored=order.as_stored,
            lookahead=order.lookahead,
            run_id=self.id,
            attempt=self._attempt,
            carried=Carried() if resumed is None else resumed.carried,
            reached=self._savings.reached,
            control=late,
        )

    # --- asking for things -------------------------------------------------------------------------------------------

    def stop(self, reason: str = "", *, resumable: bool = False) -> Ending:
        """Ask for a stop. It acts at the boundary that is open, else before compute's next batch.

        Args:
            reason: kept in the events and the history.
            resumable: "to be continued": `BackupAndRestore` writes a last checkpoint, and keeps its files, which it
                deletes after a stop for good.

        Returns:
            something to await for the end of the run, if you want to; it raises nothing (`run.wait()` does).
        """
        asked = StopAsked("run", checked_reason(reason), bool(resumable))
        self._ask(lambda: self._ledger.stop(asked))
        return Ending(self)

    def cancel(self, reason: str = "") -> Ending:
        """End it now: compute stops within a batch, gates are not waited for. Whoever awaits it gets `RunCancelled`."""
        checked_reason(reason)
        self._ask(lambda: self._cancel(reason, RunCancelled(reason)))
        return Ending(self)

    def pause(self) -> None:
        """Let compute train no further batch until `resume`. Only compute pauses: handlers go on."""
        self._paused = True
        self._ask(lambda: self._ledger.pause(True))

    def resume(self) -> None:
        """Let compute go on."""
        self._paused = False
        self._ask(lambda: self._ledger.pause(False))

    def set_learning_rate(self, value: float) -> None:
        """Train on with this rate: from the boundary that is open, else from compute's next batch."""
        rate = checked_rate(value)
        if self._order.schedule is not None:
            raise InvalidInput(self._order.schedule)
        self._ask(lambda: self._ledger.set_learning_rate(Update("run", rate)))

    def publish(self, event: Event) -> None:
        """Publish an event of your own in the run's stream, where it gets its number.

        Raises:
            DetachedEvent: the run has come to its `TrainEnd`, so nobody would get it.
        """
        self._publish_own(checked_event("run.publish", event))

    def _publish_own(self, event: Event) -> None:
        if self._over or self._ledger.closed:
            how = f" ({self._ledger.outcome})" if self._ledger.outcome else ""
            raise DetachedEvent(f"run {self.id} has ended{how}, so nobody would get this {event.type}")
        self._ask(lambda: self._ledger.publish(event))

    def _ask(self, request: Callable[[], object]) -> None:
        if not self._over:
            self._requests.append(request)
            self._wake()

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def wait(self) -> History:
        """Wait for the end. Cancelling the wait, or interrupting a notebook cell in it, does not cancel the run.

        Raises:
            RunCancelled: somebody cancelled the run.
            Exception: what made it fail.
            RuntimeError: a handler of this run would wait for itself.
        """
        box = self._calling()
        if box is not None and box.in_hand is not None:
            raise RuntimeError(
                f"{box.name} has an event of run {self.id} in hand, which cannot end before it is done with it: to end "
                "the run say `await run.stop()`; to wait for its end use a task of your own"
            )
        self._observed = True
        await self._done.wait()
        return self._result()

    async def _ended(self) -> None:
        """Wait for the end, from anywhere: a handler that waits here releases the event that it holds."""
        box = self._calling()
        if box is not None and box.subscription.is_stream:
            box.end()  # nor is it waited for at what follows: its reader is here
        elif box is not None and box.in_hand is not None:
            box.let_go()
            await self._compute_over.wait()  # the rest of the end waits for this handler
            return
        await self._done.wait()

    def _calling(self) -> Mailbox | None:
        """The mailbox whose handler, or reader, calls this in its own task: what it waits for cannot wait for it."""
        box = handling.get()
        mine = box is not None and box.home is self._delivery and box.task == anyio.get_current_task().id
        return box if mine else None

    async def snapshot(self) -> Snapshot:
        """The model as it is: one whole state that nobody can undo, not older than this call."""
        return await self._answer(_Answer())

    async def _whole(self) -> Snapshot:
        """A whole state for predictions: of the newest confirmed boundary, or one shared by all who ask in a second."""
        newest: Snapshot | None = self._ledger.newest
        if newest is not None:
            return newest
        shared = self._shared
        if shared is None or (shared.given.is_set() and time.monotonic() - shared.asked > SHARED):
            self._shared = _Answer()
            return await self._answer(self._shared)
        return await self._answer(shared, ask=False)

    async def _answer(self, answer: _Answer, *, ask: bool = True) -> Snapshot:
        if ask:
            if self._over:
                answer.give(None)
            else:
                self._ask(lambda: answer.give(None) if self._over else self._ledger.snapshot(answer.give))
        await answer.given.wait()
        if answer.snapshot is not None:
            return answer.snapshot
        await self._compute_over.wait()  # so the model itself is the answer: this run changes it no more
        state = await self._order.usage._whole_state(self)
        return Snapshot(state, self._ledger.step, self._ledger.epoch, self._order.reader)

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """Where compute is."""
        worker = self._worker
        if worker is None:
            epoch = batch = step = 0
            logs: dict[str, float] = {}
        else:
            at = worker.progress
            epoch, batch, step, logs = at.epoch, at.batch, at.step, at.means()
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        before = self._step_before
        rate = max(0, step - before) / seconds if seconds > 0 else 0.0
        left = self._batches - (step - before)
        return Progress(
            epoch=epoch, epochs=self._epochs, batch=batch, steps=self._steps, step=step,
            ahead=max(0, step - self._ledger.step), rate=rate,
            eta=left / rate if rate > 0 and left >= 0 and self._epochs is not None and not self._over else None,
            logs=logs,
        )  # fmt: skip

    @property
    def subscribers(self) -> list[SubscriberStats]:
        """For each subscriber: what it got, missed, has waiting, how long it took, what it holds."""
        return self._delivery.statistics()

    @property
    def outcome(self) -> Outcome | None:
        """ "completed", "stopped", "cancelled" or "failed"; None while it runs."""
        return self._ledger.outcome if self._over else None

    @property
    def reason(self) -> str:
        """Why it was stopped or cancelled."""
        return self._ledger.reason

    @property
    def error(self) -> BaseException | None:
        """What made it fail, or what it was cancelled with."""
        return self._ledger.error

    @property
    def paused(self) -> bool:
        """Whether it has been paused, by `pause`."""
        return self._paused and not self._over

    @overload
    def events(self, kind: type[E1], /, **how: Unpack[StreamOptions]) -> EventStream[E1]: ...
    @overload
    def events(self, kind: type[E1], kind2: type[E2], /, **how: Unpack[StreamOptions]) -> EventStream[E1 | E2]: ...
    @overload
    def events(
        self, kind: type[E1], kind2: type[E2], kind3: type[E3], /, **how: Unpack[StreamOptions]
    ) -> EventStream[E1 | E2 | E3]: ...
    @overload
    def events(
        self, kind: types.UnionType, /, *kinds: type[Event] | types.UnionType, **how: Unpack[StreamOptions]
    ) -> EventStream[Any]: ...
    @overload
    def events(self, *kinds: type[Event] | types.UnionType, **how: Unpack[StreamOptions]) -> EventStream[Event]: ...
    def events(self, *kinds: Any, **how: Any) -> Any:
        """The run's events as an async iterator, from now on; of all classes if none is named.

        It ends after `TrainEnd` and raises nothing: errors come from whoever hosts the run. With `gate=True` the
        event is held from its hand-over to the next step, `close`, or the end of the run's block. More options:
        `snapshots`, `every`, `every_s`, `where`, `buffer`, `overflow`, `name` (see `asyncfit.subscriptions.How`).
        """
        if threading.get_ident() != self._thread:
            raise RuntimeError(f"run.events belongs in the thread of the loop that run {self.id} was started in")
        subscription = stream_subscription(kinds, how, self._forget)
        stream: EventStream[Any] = EventStream(subscription, bound=True)
        self._delivery.add_stream(subscription, stream)
        return stream

    def _forget(self, subscription: Subscription) -> None:
        self._delivery.unsubscribed(subscription)

    def __repr__(self) -> str:
        return guarded(f"Run {line(self.id)}", lambda: self._shown(self._delivery.entries()))

    def _shown(self, entries: list[Entry]) -> str:
        there = sum(not entry.gone for entry in entries)
        many = f"{there} subscriber{'s' if there != 1 else ''}"
        return roster(f"Run {line(self.id)}: {self._state()}, {many}", entries)

    def _ipython_display_(self) -> None:
        """In a notebook: a small table, live until the run has ended."""
        show(self)

    def _repr_html_(self) -> str:
        return run_html(self)

    def _look(self, each: Callable[[], object], every_s: float) -> None:
        """Call `each` on the run's loop every so many seconds as long as it lives, and once when it has ended."""
        self._ask(lambda: self._delivery.look(each, every_s))

    def _state(self) -> str:
        """Where it is, in a few words."""
        if self._over:
            return f"{self.outcome or 'not begun'} at step {self._ledger.step}"
        if self._worker is None:
            return "waits for a worker" if self._waits else "starting"
        at = self._worker.progress
        whole = "" if self._epochs is None else f"/{self._epochs}"
        return f"{'paused, ' if self._paused else ''}epoch {at.epoch + 1}{whole}, step {at.step}"

    # --- between ledger, worker and delivery -------------------------------------------------------------------------

    def _send(self, command: Command) -> None:
        if self._worker is not None:
            self._worker.send(command)
        else:
            self._early.append(command)

    def _throttle(self, who: object, on: bool) -> None:
        """Let compute wait as long as somebody wants it to."""
        before = bool(self._throttling)
        (self._throttling.add if on else self._throttling.discard)(who)
        if bool(self._throttling) != before:
            self._send(Pause(on, throttle=True))

    def _described(self, point: Point) -> dict[str, Any]:
        """What a checkpoint says of the run, besides where it was and what the model is."""
        params = self.history.params
        return {
            "run_id": self.id,
            "attempt": self._attempt,
            "time": point.time,
            "history": self.history.kept(),
            "settings": self._order.settings,
            "machine": {name: params[name] for name in ("blas", "kernels", "threads") if name in params},
        }

    def _begin_again(self, resumed: Resumed) -> None:
        """Let the callbacks have the states that they had."""
        states = dict(resumed.callbacks)
        for subscription in self._order.subscriptions:
            state, callback = states.pop(subscription.name, None), subscription.source
            if state is not None and isinstance(callback, Callback):
                self._loaded.append(callback)
                try:
                    callback.load_state_dict(state)
                except Exception as error:
                    error.add_note(f"in load_state_dict of {subscription.name}, with what {resumed.path} has of it")
                    raise
        if states:
            _logger.warning("run %s goes on without %s, whose state is in %s", self.id, ", ".join(states), resumed.path)
        for path, damage in resumed.damaged:
            self._ledger.publish(CheckpointFailed(path=path, error=damage, step=resumed.position.step))

    def _published(self, event: Event) -> None:
        if event.__class__ is TrainBegin and self._order.resumed is not None:
            self._order.resumed.warn_of_machine(event.params)
        if not event.lossy:
            self.history.note(event)
        self._delivery.publish(event)

    def _publish_fact(self, event: Event) -> None:
        self._ask(lambda: self._ledger.publish(event))

    def _answered(self, event: Event, decision: Decision, error: BaseException | None) -> None:
        self._obey()  # what was asked for during the event counts as of this event
        if error is not None and self._ledger.outcome is not None:
            self._also_failed(error)
        self._ledger.answered(event, decision, error)
        self._wake()

    def _failed(self, error: BaseException) -> None:
        """A handler that nobody waits for raised; perhaps at this moment, while the ledger publishes."""

        def fail() -> None:
            if self._cancel("", error, outcome="failed"):
                return
            ledger = self._ledger
            if ledger.outcome in ("completed", "stopped") and not ledger.closed and self._final_error is None:
                self._final_error = error  # it is not too late for `TrainEnd` to tell of it
            else:
                self._also_failed(error)

        self._ask(fail)

    def _also_failed(self, error: BaseException) -> None:
        if any(error is known for known in (self._ledger.error, *self.errors)):
            return
        ending = self._ledger.outcome in ("cancelled", "failed")
        if ending and isinstance(error, GateReleased):  # its gate was abandoned: nothing is wrong with the handler
            return
        self.errors.append(error)
        if ending:  # reported, never raised
            _logger.error("run %s: a handler failed while the run was ending", self.id, exc_info=error)

    def _cancel(self, reason: str, error: BaseException | None, *, outcome: Outcome = "cancelled") -> bool:
        """End it now. False if it was about to end anyway; a cancellation still sees to it that it does so soon."""
        if self._over:
            return False
        acts = True
        if self._worker is None:
            self._given_up = self._given_up or (reason, error)
        elif self._ledger.cancel(reason, outcome=outcome, error=None if isinstance(error, RunCancelled) else error):
            self._delivery.abandon()
        else:
            acts = False
        if acts or outcome == "cancelled":
            self._hurry()
        return acts

    def _hurry(self) -> None:
        """From now on handlers have the grace time, all together."""
        if not self._hurried:
            self._hurried = True
            now, grace = anyio.current_time(), self._order.grace
            self._until = min(self._until, now + grace)
            self._background.hurry(now + grace / 2)  # the other half is for what follows: `TrainEnd`

    def _obey(self) -> None:
        requests = self._requests
        while requests:
            requests.popleft()()

    # --- its life ----------------------------------------------------------------------------------------------------

    async def _hosted(self) -> None:
        """Run in the care of this task, to the end: cancelling it cancels the run, and goes on when that has ended."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._main, name=f"asyncfit: run {self.id}")
                tasks.start_soon(self._care)
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            self._settle()

    async def _care(self) -> None:
        try:
            await self._done.wait()
        except BaseException:
            self._host_cancelled()
            raise

    def _host_cancelled(self) -> None:
        self._ask(lambda: self._cancel("the awaiting task was cancelled", None))

    async def _apart(self) -> None:
        """As `_hosted`, for those who wait elsewhere."""
        try:
            await self._hosted()
        finally:
            self._tell_nobody()

    async def _alone(self) -> None:
        """Be the run: in an asyncio task of its own, with no cancel scope around it."""
        await self._main()
        self._tell_nobody()

    def _tell_nobody(self) -> None:
        error = self._raise or self._ledger.error
        if self._observed or error is None or isinstance(error, RunCancelled):
            return
        if not isinstance(error, Exception | asyncio.CancelledError):
            raise error
        _logger.error("run %s failed, and nobody waits for it", self.id, exc_info=error)

    async def _main(self) -> None:
        """The whole run. Nothing cancels it from outside; whoever hosts it asks with `_cancel`."""
        with anyio.CancelScope(shield=True), awake():
            try:
                await self._live()
            except BaseException as error:
                self._raise = self._raise or error
            finally:
                self._settle()

    async def _live(self) -> None:
        wakeup = Wakeup()
        self._wake = wakeup.set
        try:
            async with anyio.create_task_group() as tasks:
                queued, place = self._order.executor.place(wakeup.set), None  # before what may take long: in order
                try:
                    work = await self._prepared(tasks, wakeup)
                    if work is not None and self._order.resumed is not None:
                        self._begin_again(self._order.resumed)
                except BaseException:
                    queued.release()
                    raise
                if work is None:
                    queued.release()
                else:
                    place = await self._placed(queued, wakeup)
                if work is not None and place is not None:
                    worker = self._start(work, place, tasks)
                    try:
                        await self._conduct(tasks, worker)
                    finally:
                        self._wake = wakeup.set
                        await self._closed(worker)
                        work.start = None
                        self._feeding = None
                    await self._drain(tasks, wakeup)
                self._background.close()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            wakeup.close()

    async def _closed(self, worker: Worker) -> None:
        """Nothing of it is left when this returns, whatever interrupts it."""
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await worker.aclose()
                    if self._feeding is not None:
                        await self._feeding.gone()
                    return
            except (asyncio.CancelledError, KeyboardInterrupt) as error:
                self._interrupted(error)

    async def _wait(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait until woken, or until the time is up, and do what was asked for."""
        now = anyio.current_time()
        deadline = self._until if now < self._until else math.inf
        if self._feeds_awaited:  # also if that is past by now: whoever waits for it has to look again
            deadline = min(deadline, self._feeds_until)
        try:
            with anyio.CancelScope(shield=True, deadline=deadline):
                await wait()
        except BaseException as error:
            self._interrupted(error)
        self._obey()

    async def _prepared(self, tasks: anyio.abc.TaskGroup, wakeup: Wakeup) -> Work | None:
        """What compute will work on; None if the run was given up meanwhile."""
        for _ in range(2):  # whoever was started beside it may still subscribe
            await self._wait(anyio.lowlevel.checkpoint)
        order, work, done = self._order, None, False

        async def tell() -> None:
            nonlocal done
            try:
                for each in order.before:
                    told = each()
                    if told is not None:
                        await told
            except Exception as error:
                self._raise = error
            finally:
                done = True
                wakeup.set()

        def prepare() -> None:
            nonlocal done, work
            try:
                work = order.prepare(self)
            except BaseException as error:
                self._raise = error
            finally:
                done = True
                wakeup.set()

        if order.before:
            tasks.start_soon(tell, name="asyncfit: news of the model")
            while not done and anyio.current_time() < self._until:
                await self._wait(wakeup.wait)
        if self._given_up is None and self._raise is None:
            done = False
            thread = in_context(prepare, "asyncfit data")
            while not done:
                await self._wait(wakeup.wait)
            thread.join()  # its last steps
        return work if self._given_up is None else None

    async def _placed(self, place: Place, wakeup: Wakeup) -> Place | None:
        """The place when it is ready, however long that takes; None if the run was given up meanwhile."""
        try:
            while not place.ready:
                self._waits = True
                await self._wait(wakeup.wait)
                if self._given_up is not None:
                    place.release()
                    return None
                if any(isinstance(command, Stop) for command in self._early):
                    place.release()  # nothing will be computed: whoever stops it need not wait for others
                    return AtOnce(ThreadWorker)
        finally:
            self._waits = False
        if self._given_up is None:
            return place
        place.release()
        return None

    def _start(self, work: Work, place: Place, tasks: anyio.abc.TaskGroup) -> Worker:
        self._epochs = work.epochs if work.epochs < ENDLESS else None
        self._steps = work.data.steps(work.initial_epoch)
        self._batches = (work.epochs - work.initial_epoch) * self._steps - (
            work.start.position.batch if work.start else 0
        )
        work.interest = self._delivery.interest()
        work.inline = inline = self._delivery.inline
        inline.trainable = work.trainable
        work.early = self._early
        feeds = tuple(source if isinstance(source, Feed) else None for source in (work.data, work.validation))
        if any(feeds):
            self._feeding = Feeding(
                (feeds[0], feeds[1]),
                remote=self._order.executor.remote,
                on_loop=self._ask,
                failed=self._failed,
                crashed=self._crashed,
                interrupted=self._loop_ended,
                closed=lambda: self._wake(),
            )
        self._worker = worker = place.start(work)
        if self._feeding is not None:
            self._feeding.serve(tasks, worker.send, getattr(worker, "pack", None))
        self._wake = worker.wake
        self._began = time.monotonic()
        return worker

    async def _conduct(self, tasks: anyio.abc.TaskGroup, worker: Worker) -> None:
        """Carry reports to the ledger until `TrainEnd` has been published and its gates have returned."""
        ledger, reports = self._ledger, worker.reports
        report: Any
        self._background.serve(tasks)
        self._delivery.serve(tasks)
        if self._savings.looks is not None:
            self._delivery.look(self._savings.look, self._savings.looks)
        while not ledger.ended:
            await self._wait(worker.wait)
            for _ in range(CHUNK):
                if not reports:
                    break
                report = reports[0]
                if isinstance(report, Ended):
                    if self._waits_for_data(report) or self._waits_for_work(report):
                        break
                    if report.error is None:
                        report = report._replace(error=self._final_error)
                reports.popleft()
                if isinstance(report, Failed) and self._feeding is not None:
                    report = report._replace(error=self._feeding.error(report.error))
                if isinstance(report, Lost):
                    self._failed(report.error)
                    self._obey()
                elif isinstance(report, Restarted):
                    ledger.publish(WorkerRestarted(step=ledger.step, **report._asdict()))
                else:
                    ledger.report(report)
            else:
                worker.wake()
            report = None  # it may have brought a state
            if ledger.compute_ended and not self._compute_over.is_set():
                self._compute_over.set()
                if self._hurried:  # what compute took of the grace time is not at the handlers' expense
                    self._until = anyio.current_time() + self._order.grace
            if ledger.outcome in ("cancelled", "failed"):
                self._hurry()
            if anyio.current_time() >= self._until:  # nobody is waited for any longer
                if not ledger.compute_ended:
                    worker.abandon()
                if ledger.asking is not None:
                    self._delivery.abandon()
                    ledger.answered(ledger.asking)

    def _waits_for_data(self, report: Ended) -> bool:
        """Whether somebody still reads: what is read last is counted."""
        feeding = self._feeding
        if feeding is None:
            return False
        if self._feeds_until == math.inf:
            self._feeds_until = anyio.current_time() + min(self._order.drain_timeout, self._order.grace)
            feeding.close()
        self._feeds_awaited = waits = not feeding.over and anyio.current_time() < self._feeds_until
        self._ledger.unread = feeding.unread(report.step - self._step_before)
        return waits

    def _waits_for_work(self, report: Ended) -> bool:
        """Whether work in the background is not done: what that publishes comes before this, compute's last."""
        if self._background.finish():
            if self._final is not None:  # uninterruptible work may have used up the time of those who come now
                self._until = max(self._until, anyio.current_time() + self._order.grace / 2)
            self._obey()  # what it published last
            return False
        if self._final is None:
            self._final = report
            self._savings.hurry(anyio.current_time() + self._order.drain_timeout)
            self._ledger.compute_over(report)
        return True

    async def _drain(self, tasks: anyio.abc.TaskGroup, wakeup: Wakeup) -> None:
        """Let those who still have events take them."""
        began, drained = anyio.current_time(), False
        self._until = min(self._until, began + self._order.drain_timeout)

        async def drain() -> None:
            nonlocal drained
            while not drained:
                try:
                    await self._delivery.drain()
                    drained = True
                except asyncio.CancelledError as error:
                    if not was_interrupted(error):
                        raise
                    self._interrupted(error)
            wakeup.set()

        tasks.start_soon(drain, name="asyncfit: drain")
        while not drained and anyio.current_time() < self._until:
            await self._wait(wakeup.wait)
        late = self._delivery.close()
        if late:
            _logger.warning(
                "run %s: %.3g s after its end (drain_timeout=, grace=) these had not taken all their events, "
                "the rest is counted as cancelled: %s",
                self.id, anyio.current_time() - began,
                ", ".join(late[:MOST_NAMED]) + (f" and {len(late) - MOST_NAMED} more" if late[MOST_NAMED:] else ""),
            )  # fmt: skip

    def _interrupted(self, error: BaseException) -> None:
        """The loop's own cancellation, which asyncio gives to all tasks when it ends; or an interrupt."""
        if isinstance(error, asyncio.CancelledError):
            take_back()
            self._cancel("the event loop ended", RunCancelled("the event loop ended"))
        else:
            self._crashed(error)

    def _loop_ended(self) -> None:
        self._ask(lambda: self._cancel("the event loop ended", None))

    def _crashed(self, error: BaseException) -> None:
        """Something that no handler may raise, such as SystemExit: the run ends, then it goes on its way."""
        self._raise = self._raise or error
        self._ask(lambda: self._cancel("", error, outcome="failed"))

    def _settle(self) -> None:
        """The very last: nothing more is delivered, the model is free, and whoever waits gets an answer."""
        if self._done.is_set():
            return
        ledger = self._ledger
        self._over = True
        self._delivery.close()
        if not ledger.begun:
            for callback in self._loaded:  # for this run, and not for the next one
                forget: Callable[[], None] = getattr(callback, "forget_state", lambda: None)
                forget()
        self._loaded.clear()
        self._order.usage._release(self)
        if not ledger.ended:
            reason, error = self._given_up or ("its host ended before it began", None)
            failed = self._raise is not None and not isinstance(self._raise, asyncio.CancelledError)
            if not failed:
                self._raise = error or RunCancelled(reason)
            ledger.give_up("failed" if failed else "cancelled", "" if failed else reason, self._raise)
            self.history.outcome, self.history.reason = ledger.outcome, ledger.reason
        self.errors[:0] = ledger.errors
        self._compute_over.set()
        self._obey()
        ledger.forget()  # who keeps the handle keeps no models
        self._shared = None
        self._order.forget()
        self._order.settled(self.history)
        self._delivery.last_look()
        self._done.set()

    def _result(self) -> History:
        ledger = self._ledger
        if self._raise is not None:
            raise self._raise
        if ledger.outcome == "failed" and ledger.error is not None:
            raise ledger.error
        if ledger.outcome == "cancelled":
            raise RunCancelled(ledger.reason)
        if self.errors:
            raise self.errors[0]
        return self.history


class _Answer:
    """A snapshot that somebody waits for."""

    def __init__(self) -> None:
        self.asked = time.monotonic()
        self.given = Signal()
        self.snapshot: Snapshot | None = None

    def give(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.given.set()


def sole(error: BaseException) -> BaseException:
    """What is in a group, or in groups of groups: no user gets to see one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
