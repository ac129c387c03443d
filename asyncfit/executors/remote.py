"""One run's compute in a worker process, seen from the run's loop: commands go there, reports come from there.

The parent keeps the newest state that nobody can undo, and puts it into its own model at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import marshal
import os
import selectors
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import anyio

from ..compute import Progress, Work
from ..errors import WorkerLost
from ..pool import SharedState, adopted, copy_state, many_adopted
from ..protocol import Command, End, Ended, Lost, Report, Restarted, TrainBegun
from ..signals import Signal
from .base import Wakeup, in_context
from .channel import Frame, Kind, Outbox, Reader, batches_from, plain_from
from .child import EXIT, Child
from .journal import Journal
from .memory import Packed, dumps, loads
from .parcel import parcel

__all__ = ["Host", "ProcessWorker"]

READ_AT_ONCE = 1 << 20
"""Bytes that are taken from the socket before others get the loop."""


class Host(Protocol):
    """What a worker needs of its executor."""

    factory: str | None
    restarts: int
    _lock: threading.Lock
    _live: weakref.WeakSet[ProcessWorker]

    def _process(self) -> Child: ...
    def _given_back(self, process: Child | None) -> bool: ...


class ProcessWorker:
    """One run's compute in a worker process, seen from the run's loop."""

    def __init__(self, executor: Host, work: Work) -> None:
        self.reports: deque[Report] = deque()
        self.progress = Progress()
        self.progress.epoch = work.initial_epoch
        self._executor = executor
        self._work = work
        self._wakeup = Wakeup()
        self._selector: selectors.DefaultSelector | None = None
        self._process: Child | None = None
        self._out, self._in = Outbox(), Reader()
        self._early: list[Command | Packed] = []  # until the process is there
        self._left = executor.restarts
        inline = work.inline
        names = (lambda: None) if inline is None else inline.names
        self._journal = Journal(work, replaceable=bool(self._left), names=names)
        self._freed: deque[int] = deque()
        self._ended = self._end_sent = self._gone = self._killed = False
        self._loss: WorkerLost | None = None  # why another worker is on its way
        self._why: WorkerLost | None = None  # it was killed
        self._error: BaseException | None = None  # why there is no compute
        self._made: tuple[Child, bytes, list[int]] | BaseException | None = None
        self._closed = False
        self._leaving: Child | None = None  # what is still to be waited for in `aclose`
        self._loading: tuple[Signal, list[BaseException]] | None = None
        try:
            self._thread = in_context(lambda: self._make(work), "asyncfit process")
        except BaseException:
            self._wakeup.close()
            raise
        with executor._lock:
            executor._live.add(self)

    def _make(self, work: Work) -> None:
        """In a thread: make one message of the work, all arrays included, and get a process."""
        blocks: list[int] = []
        executor = self._executor
        try:
            data, blocks = dumps(parcel(work, executor.factory, replaceable=bool(executor.restarts)))
            self._made = self._executor._process(), data, blocks
        except BaseException as error:
            for block in blocks:
                os.close(block)
            self._made = error
        self._wakeup.set()

    # --- what the run calls --------------------------------------------------------------------------------------

    pack = Packed
    """For `send`, of commands that bring much; from any thread."""

    def send(self, command: Command | Packed) -> None:
        if self._ended:
            return
        if not isinstance(command, Packed):
            self._journal.command(command)
        if isinstance(command, End):
            self._end_sent = True
        if self._gone:
            if self._end_sent and self._error is not None:  # else it is being found out why
                self._answer_end()
        elif self._process is None:
            self._early.append(command)
        else:
            with self._unless_broken():
                self._put_command(command)
                self._flush()

    async def wait(self) -> None:
        if self._gone:
            if self._error is None and not self._ended:
                await self._lost()
            else:
                await self._wakeup.wait()
        elif self._selector is None:
            await self._wakeup.wait()
            self._adopt()
        else:
            if self._freed:
                with self._unless_broken():
                    self._flush()
            await anyio.wait_readable(self._selector.fileno())
            dead = False
            for key, _ in self._selector.select(0):
                if key.fileobj is self._wakeup:
                    self._wakeup.clear()
                elif self._process is not None:
                    dead = dead or key.fileobj == self._process.ended
            with self._unless_broken():
                if self._receive() and dead:  # whatever else holds the socket open
                    self._gone = True
                if not self._gone:
                    self._flush()

    def wake(self) -> None:
        self._wakeup.set()

    def abandon(self) -> None:
        self.kill(None)

    def kill(self, error: WorkerLost | None) -> None:
        """End it by force; `error` says why, unless the run is ending anyway."""
        if not self._killed:
            self._killed, self._why = True, error
        if self._process is not None and not self._ended:
            self._process.kill()
        self._wakeup.set()

    async def aclose(self) -> None:
        while self._made is None:  # the thread is at it
            await self._wakeup.wait()
        if not self._closed:
            self._closed = True
            self._close(self._made)
        if self._leaving is not None:
            await self._leaving.gone(EXIT)
            self._leaving = None
        await self._put_back()

    def _close(self, made: tuple[Child, bytes, list[int]] | BaseException) -> None:
        process, healthy = self._process, self._ended and not self._gone
        try:
            self._thread.join()  # its last steps
            if process is None and not isinstance(made, BaseException):
                process, _, blocks = made
                for block in blocks:
                    os.close(block)
            if self._selector is not None:
                self._selector.close()
            self._wakeup.close()
            self._out.close()
            self._in.close()
        finally:
            with self._executor._lock:
                self._executor._live.discard(self)
            if not self._executor._given_back(process if healthy else None) and process is not None:
                if not healthy:
                    process.kill()
                process.close()
                self._leaving = process

    async def _put_back(self) -> None:
        """Let the model here have the newest state that nobody can undo. Loading may take long: in a thread."""
        if self._loading is None:
            state = self._journal.confirmed[0]
            self._journal.forget()
            self.reports.clear()
            self._loading = done, failed = Signal(), list[BaseException]()

            def load() -> None:
                try:
                    if state is not None:
                        self._work.trainable.load_state(state)
                except BaseException as error:
                    failed.append(error)
                finally:
                    done.set()

            try:
                self._thread = in_context(load, "asyncfit state")
            except RuntimeError:  # the system gives us no thread
                load()
        done, failed = self._loading
        await done.wait()
        self._thread.join()  # its last steps
        if failed:
            raise failed[0]

    # --- starting ------------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """The thread has made the process, or failed."""
        made = self._made
        if made is None:
            return
        loss, self._loss = self._loss, None
        if isinstance(made, BaseException):
            if loss is not None:
                loss.add_note(f"another worker could not be started: {type(made).__name__}: {made}")
            self._fail(loss or made)
            return
        if loss is not None and not self._killed:
            self.reports.append(Restarted(self._journal.from_step, loss, self._left))
        self._process, data, blocks = made
        if self._killed:
            self._process.kill()
        with self._unless_broken():
            self._out.put(Kind.RUN, data, blocks)
            self._selector = selectors.DefaultSelector()
            for each in (self._process.socket, self._wakeup, self._process.ended):
                if each != -1:
                    self._selector.register(each, selectors.EVENT_READ)
            for command in self._early:
                self._put_command(command)
            self._early.clear()
            self._flush()

    @contextlib.contextmanager
    def _unless_broken(self) -> Iterator[None]:
        """What goes wrong on the way to the process or from it, descriptors that ran out, say, is the end of it."""
        try:
            yield
        except BaseException as error:
            assert self._process is not None
            self._process.kill()
            if self._ended or self._error is not None:
                self._gone = True
            else:
                self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _put_command(self, command: Command | Packed) -> None:
        data, blocks = command.take() if isinstance(command, Packed) else dumps(command)
        self._out.put(Kind.COMMAND, data, blocks)

    def _flush(self) -> None:
        assert self._process is not None
        assert self._selector is not None
        if self._freed:
            numbers = [self._freed.popleft() for _ in range(len(self._freed))]
            self._out.put(Kind.FREED, json.dumps(numbers).encode())
        try:
            done = self._out.flush(self._process.socket)
        except ConnectionError:  # it is gone: the end of what it sent tells the rest
            self._out.close()
            done = True
        events = 1 if done else 3
        if self._selector.get_key(self._process.socket).events != events:
            self._selector.modify(self._process.socket, events)

    # --- receiving -----------------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        """Take what came; whether that was all for now."""
        assert self._process is not None
        taken = 0
        while taken < READ_AT_ONCE and not self._gone:
            try:
                received = self._in.receive(self._process.socket)
            except BlockingIOError:
                return True
            except ConnectionError:
                received = 0
            if not received:
                self._gone = True
            taken += received
            for frame in self._in.frames():
                self._take(frame)
        return self._gone

    def _take(self, frame: Frame) -> None:
        kind, data, blocks = frame
        if kind == Kind.BATCHES:
            batches = batches_from(data)
            self._journal.report(batches[-1])
            self.reports.extend(batches)
        elif kind == Kind.PROGRESS:
            self._take_progress(*plain_from(data))
        elif kind == Kind.WANTED:
            which, turn, epoch, number = marshal.loads(data)
            feed: Any = (self._work.data, self._work.validation)[which]
            feed.ask(turn, epoch, number)
        else:
            told = loads(data, blocks, self._adopted)
            if kind == Kind.REPORT:
                if many_adopted():
                    told = _copied(told)
                self.reports.append(self._noted(told))
            elif kind == Kind.REFUSED:
                self._fail(told)
            elif self._work.inline is not None:
                era, moment, count, what = told
                self._journal.told(era, moment, count)
                self._work.inline.take(what)

    def _adopted(self, number: int, descriptor: int, size: int) -> Any:
        freed, wakeup = self._freed, self._wakeup

        def left(number: int) -> None:
            freed.append(number)
            wakeup.set()  # it may be needed there before anything else is said

        return adopted(number, descriptor, size, left)

    def _take_progress(self, epoch: int, batch: int, step: int, sums: Any, counts: Any, figures: Any) -> None:
        at = self.progress
        at.epoch, at.batch, at.step, at.sums, at.counts = epoch, batch, step, sums, counts
        self._journal.progress(step)
        if figures and self._work.inline is not None:
            self._work.inline.take_figures(figures)

    def _noted(self, report: Any) -> Any:
        """What the ledger is to hear."""
        if report.__class__ is not Ended:
            self._journal.report(report)
            return report
        self._ended = True
        if report.state is None:  # what it came to on the way is of no use
            state, step, epoch = self._journal.confirmed
            return report._replace(state=state, step=step, epoch=epoch)
        self._journal.confirmed = (report.state, report.step, report.epoch)
        return report

    # --- the end of the process ----------------------------------------------------------------------------------

    async def _lost(self) -> None:
        assert self._process is not None
        status = await self._process.gone(0.5)
        if self._killed and self._why is None:
            self._error = WorkerLost("the worker process was ended by force: it took longer than the grace time")
            self._answer_end(quiet=True)
            return
        if self._why is not None:
            self._fail(self._why)
            return
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = "unknown"
            hint = "; perhaps the system ran out of memory" if -status == signal.SIGKILL else ""
            text = f"the worker process was ended by signal {-status} ({name}){hint}"
            error = WorkerLost(text, signal=-status)
        else:
            error = WorkerLost(f"the worker process ended itself with exit code {status}", exitcode=status)
        if self._left:
            self._begin_again(error)
        else:
            self._fail(error)

    def _begin_again(self, error: WorkerLost) -> None:
        """Let another worker go on where this one was."""
        process, selector, journal = self._process, self._selector, self._journal
        assert process is not None
        assert selector is not None
        self._thread.join()  # its last steps
        selector.close()
        self._out.close()
        self._in.close()
        process.close()
        self._left, self._loss = self._left - 1, error
        self._process = self._selector = self._made = None
        self._out, self._in, self._freed, self._gone = Outbox(), Reader(), deque(), False
        again, pending = journal.again(), journal.pending()
        start = self._work.start if again.mark is None else None
        work = dataclasses.replace(self._work, again=again, start=start, interest=journal.interest, early=pending)
        try:
            self._thread = in_context(lambda: self._make(work), "asyncfit process")
        except RuntimeError as none:  # the system gives us no thread
            self._made = none
            self._wakeup.set()

    def _fail(self, error: BaseException) -> None:
        """There is no compute, or no longer."""
        self._error, self._gone = error, True
        if not self._journal.begun:
            self.reports.append(self._beginning())
        self.reports.append(Lost(error))
        if self._end_sent:
            self._answer_end()
        self._wakeup.set()

    def _beginning(self) -> TrainBegun:
        """What compute would have said first: whoever hears of the end has heard of a beginning."""
        self._journal.begun = True
        work, trainable = self._work, self._work.trainable
        epoch = work.initial_epoch if work.initial_epoch < work.epochs else None
        held = work.interest.hold_boundary or work.interest.hold_begin
        state = copy_state(trainable.state()) if held else None
        rate = float(trainable.learning_rate)
        return TrainBegun(0, time.time(), work.params, False, epoch, 0, rate, state, None)

    def _answer_end(self, *, quiet: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        state, step, epoch = self._journal.confirmed
        if state is None:
            state = copy_state(self._work.trainable.state())
        self.progress.step = step
        error = None if quiet else self._error
        self.reports.append(Ended(0, time.time(), step, epoch, state, error))
        self._wakeup.set()


def _copied(report: Any) -> Any:
    """The report with a copy of the state that it brings."""
    for name in ("snapshot", "state"):
        state = getattr(report, name, None)
        if isinstance(state, SharedState):
            report = report._replace(**{name: copy_state(state)})
    return report
