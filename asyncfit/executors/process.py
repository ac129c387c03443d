"""Compute in processes of their own: nothing that it does can hold the loop, and one that dies takes nothing with it.

    run's loop                                  worker process (`worker.py`)
      ProcessWorker.send  ── commands ───────►  a reading thread → Compute.inbox
      ProcessWorker.wait  ◄── reports ────────  Compute.run(), in the main thread

Between them is one Unix socket (`channel.py`); arrays go as descriptors (`memory.py`). A worker is a fresh interpreter
that imports this package and what the work names, never the main module. The end of the socket tells each side that
the other is gone. The parent keeps the newest state that nobody can undo, and puts it into its own model at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import anyio

from ..compute import Progress, Work, copy_state
from ..errors import InvalidInput, NotStarted, WorkerLost
from ..machine import THREAD_VARIABLES
from ..protocol import (
    BatchBegun,
    BatchDone,
    Command,
    Confirm,
    End,
    Ended,
    EpochDone,
    Lost,
    Report,
    State,
    TrainBegun,
    ValidationBegun,
    WasSnapshot,
)
from ..signals import Signal
from .base import Place, Wakeup, Worker, in_context
from .channel import Frame, Kind, Outbox, Reader, batches_from, plain_from
from .memory import NotPortable, SharedState, adopted, check_portable, dumps, loads, many_adopted

__all__ = ["OwnProcess", "ProcessExecutor", "ProcessWorker"]

READ_AT_ONCE = 1 << 20
"""Bytes that are taken from the socket before others get the loop."""

EXIT = 2.0
"""Seconds that a worker has to end itself when nothing is left to do."""

_START = """
import sys
sys.path[:] = eval(sys.argv[2])
from asyncfit.executors.worker import main
main(int(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
"""


class _Process:
    """A worker process: started, asked to end, killed, reaped. The constructor takes milliseconds: not on the loop.

    Attributes:
        ended: a descriptor that becomes readable when it has ended, -1 where the system has none. The socket may stay
            open longer: what the process started in its turn may have inherited its end of it.

    Raises:
        WorkerLost: the system gives us no process, or no descriptors.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._line = self.ended = -1
        with contextlib.ExitStack() as theirs:
            try:
                self.socket, other = socket.socketpair()
                theirs.callback(other.close)
                line, self._line = os.pipe()  # its other end tells the kernel, if all else fails, that we are gone
                theirs.callback(os.close, line)
                paths: list[Any] = sys.path
                path = ascii([each for each in paths if isinstance(each, str)])  # imports ignore all others
                self._process = subprocess.Popen(
                    [
                        sys.executable, *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                        "-c", _START, str(other.fileno()), path, str(line), str(os.getpid()),
                    ],
                    pass_fds=[other.fileno(), line],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **env},
                    process_group=0,  # Ctrl-C is for us; the worker hears of it from the run
                )  # fmt: skip
            except BaseException as error:
                self.close()
                if isinstance(error, OSError):
                    raise WorkerLost(f"no worker process could be started: {error}") from error
                raise
        self.socket.setblocking(False)
        with contextlib.suppress(AttributeError, OSError):
            self.ended = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def status(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it lives."""
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Close our ends: it ends itself, if it lives."""
        mine = getattr(self, "socket", None)
        if mine is not None and mine.fileno() >= 0:
            with contextlib.suppress(OSError):
                mine.shutdown(socket.SHUT_RDWR)  # a process that we forked may have a copy of our end
            mine.close()
        for descriptor in (self._line, self.ended):
            if descriptor >= 0:
                os.close(descriptor)
        self._line = self.ended = -1

    async def gone(self, seconds: float) -> int:
        """Wait until it has ended, kill it when the time is up, and reap it."""
        deadline = time.monotonic() + seconds
        pause = 0.0005
        while (status := self._process.poll()) is None:
            if time.monotonic() >= deadline:
                self._process.kill()
                deadline = math.inf
            await anyio.sleep(pause)
            pause = min(2 * pause, 0.02)
        return status

    def reap(self) -> None:
        """Kill it if it lives, and see to it that nothing of it is left: takes milliseconds."""
        self._process.kill()
        self._process.wait()


class _Waiting:
    """A run's place in the queue for a worker."""

    def __init__(self, executor: ProcessExecutor, changed: Callable[[], None]) -> None:
        self.ready = False
        self.refused = False
        self._executor = executor
        self._changed = changed

    def grant(self) -> None:
        self.ready = True
        self._changed()

    def refuse(self) -> None:
        """There will be no place: to whoever starts it says so."""
        self.refused = True
        self.grant()

    def start(self, work: Work) -> Worker:
        if self.refused:
            raise NotStarted(_ENDED)
        try:
            return ProcessWorker(self._executor, work)
        except BaseException:
            self._executor._given_back(None)
            raise

    def release(self) -> None:
        self._executor._leave(self)


_ENDED = "the block of this ProcessExecutor has ended; make another one"


class ProcessExecutor:
    """Runs compute in worker processes: `async with af.ProcessExecutor(workers=2) as pool: … fit(…, executor=pool)`.

    A worker is a fresh interpreter, so scripts need no `if __name__ == "__main__"` guard. It is started when a run
    needs it, serves one run after the other, and ends with the block, which waits for the runs that still use it
    (leaving it with an exception ends them). More runs than workers wait for a free one, in order; they have begun
    nothing yet. A worker that dies fails the run that it serves with `WorkerLost`; the next run gets another one.

    Args:
        workers: how many runs may compute at the same time.
        env: environment variables for the workers, in addition to this process's.
        threads: BLAS threads of each worker; None leaves that to the environment. More than cores/workers is slower,
            and the last bits depend on the number.
        factory: "package.module:function", which makes a model of your own in the worker; its state is taken over.
            Without it the model must be importable and picklable itself.

    Raises:
        InvalidInput: a value that makes no sense.
    """

    name = "process"
    remote = True

    def __init__(
        self,
        workers: int = 1,
        *,
        env: Mapping[str, str] | None = None,
        threads: int | None = None,
        factory: str | None = None,
    ) -> None:
        numbers: dict[str, Any] = {"workers": workers, "threads": 1 if threads is None else threads}
        for what, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InvalidInput(f"ProcessExecutor({what}=…) takes a whole number of at least 1, not {number!r}")
        given: Any = {} if env is None else env
        if not isinstance(given, Mapping) or not all(isinstance(t, str) for pair in given.items() for t in pair):
            raise InvalidInput(f"ProcessExecutor(env=…) takes a mapping of text to text, not {env!r}")
        if factory is not None:
            _check_factory(factory)
        self.workers = workers
        self.factory = factory
        self.env = {**given, **({} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads)))}
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._taken = 0
        self._queue: deque[_Waiting] = deque()
        self._live: weakref.WeakSet[ProcessWorker] = weakref.WeakSet()
        self._changed = Signal()  # a place was given back; renewed each time
        self._state = "new"

    # --- its block -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise NotStarted("this ProcessExecutor has been entered already; make another one")
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._unused()
        finally:
            with self._lock:
                self._state = "closed"
                live, queue = list(self._live), list(self._queue)
                idle, self._idle = self._idle, []
                self._queue.clear()
            for waiting in queue:
                waiting.refuse()
            for worker in live:
                worker.kill(WorkerLost("the worker process was ended: the block of its ProcessExecutor was left"))
            for process in idle:
                process.close()
            with anyio.CancelScope(shield=True):
                try:
                    await self._unused()
                    for process in idle:
                        await process.gone(EXIT)
                finally:
                    for process in idle:
                        process.reap()

    async def _unused(self) -> None:
        """Wait until no run has a worker, or waits for one."""
        while True:
            changed = self._changed  # before the look: what changes after it sets this one
            with self._lock:
                if not self._taken and not self._queue:
                    return
            await changed.wait()

    # --- places --------------------------------------------------------------------------------------------------

    def check(self, trainable: Any) -> None:
        if self.factory is not None:
            return
        try:
            check_portable(trainable)
        except NotPortable as error:
            reason = str(error)
        except Exception as error:  # whatever a model's own pickling raises
            reason = f"it cannot be pickled ({type(error).__name__}: {error})"
        else:
            return
        raise InvalidInput(
            f"{type(trainable).__name__} cannot compute in a process of its own: {reason}. Define it at the top of a "
            "module that can be imported, or name a function there that makes it: "
            "ProcessExecutor(factory='package.module:function'); executor='thread' takes it as it is"
        )

    def place(self, changed: Callable[[], None]) -> Place:
        if self._state != "open":
            raise NotStarted(
                "a ProcessExecutor serves runs within its block: "
                f"async with af.ProcessExecutor({self.workers}) as executor: … fit(…, executor=executor)"
                if self._state == "new"
                else _ENDED
            )
        waiting = _Waiting(self, changed)
        with self._lock:
            self._queue.append(waiting)
        self._grant()
        return waiting

    def _grant(self) -> None:
        granted = []
        with self._lock:
            while self._queue and self._taken < self.workers:
                granted.append(self._queue.popleft())
                self._taken += 1
        for waiting in granted:
            waiting.grant()

    def _leave(self, waiting: _Waiting) -> None:
        with self._lock:
            queued = waiting in self._queue
            if queued:
                self._queue.remove(waiting)
        if queued:
            self._tell()
        elif not waiting.refused:
            self._given_back(None)

    def _process(self) -> _Process:
        """A worker process for a run that has a place; a new one if none is idle."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return _Process(self.env)
            if process.status() is None:
                return process
            process.close()  # it died meanwhile

    def _given_back(self, process: _Process | None) -> bool:
        """A run needs its place no longer; whether its process is kept."""
        with self._lock:
            self._taken -= 1
            keep = process is not None and self._state == "open" and process.status() is None
            if keep and process is not None:
                self._idle.append(process)
        self._tell()
        self._grant()
        return keep

    def _tell(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, Signal()
        changed.set()

    def __repr__(self) -> str:
        return f"<ProcessExecutor: {self._taken} of {self.workers} workers busy, {len(self._queue)} runs wait>"


class OwnProcess(ProcessExecutor):
    """`executor="process"`: one worker, for one run."""

    def __init__(self) -> None:
        super().__init__()
        self._state = "open"

    def _given_back(self, process: _Process | None) -> bool:
        self._taken -= 1
        return False


class ProcessWorker:
    """One run's compute in a worker process, seen from the run's loop."""

    def __init__(self, executor: ProcessExecutor, work: Work) -> None:
        self.reports: deque[Report] = deque()
        self.progress = Progress()
        self.progress.epoch = work.initial_epoch
        self._executor = executor
        self._work = work
        self._wakeup = Wakeup()
        self._selector: selectors.DefaultSelector | None = None
        self._process: _Process | None = None
        self._out, self._in = Outbox(), Reader()
        self._early: list[Command] = []  # until the process is there
        self._era = 0
        self._holds: deque[tuple[State | None, int, int]] = deque()
        self._confirmed: tuple[State | None, int, int] = (None, 0, work.initial_epoch)
        self._freed: deque[int] = deque()
        self._begun = self._ended = self._end_sent = self._gone = self._killed = False
        self._why: WorkerLost | None = None  # it was killed
        self._error: BaseException | None = None  # why there is no compute
        self._made: tuple[_Process, bytes, list[int]] | BaseException | None = None
        self._closed = False
        self._leaving: _Process | None = None  # what is still to be waited for in `aclose`
        self._loading: tuple[Signal, list[BaseException]] | None = None
        try:
            self._thread = in_context(self._make, "asyncfit process")
        except BaseException:
            self._wakeup.close()
            raise
        with executor._lock:
            executor._live.add(self)

    def _make(self) -> None:
        """In a thread: make one message of the work, all arrays included, and get a process."""
        blocks: list[int] = []
        try:
            data, blocks = dumps(_parcel(self._work, self._executor.factory))
            self._made = self._executor._process(), data, blocks
        except BaseException as error:
            for block in blocks:
                os.close(block)
            self._made = error
        self._wakeup.set()

    # --- what the run calls --------------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        if self._ended:
            return
        if isinstance(command, Confirm):
            self._confirm(command)
        elif isinstance(command, End):
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

    def _close(self, made: tuple[_Process, bytes, list[int]] | BaseException) -> None:
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
            state, self._confirmed = self._confirmed[0], (None, 0, 0)
            self._holds.clear()
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
        if isinstance(made, BaseException):
            self._fail(made)
            return
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

    def _put_command(self, command: Command) -> None:
        data, blocks = dumps(command)
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
            self.reports.extend(batches_from(data))
        elif kind == Kind.PROGRESS:
            self._take_progress(*plain_from(data))
        else:
            told = loads(data, blocks, self._adopted)
            if kind == Kind.REPORT:
                if many_adopted():
                    told = _copied(told)
                self.reports.append(self._noted(told))
            elif kind == Kind.REFUSED:
                self._fail(told)
            elif self._work.inline is not None:
                self._work.inline.take(told)

    def _adopted(self, number: int, descriptor: int, size: int) -> Any:
        me = weakref.ref(self)

        def freed(number: int) -> None:
            worker = me()
            if worker is not None:
                worker._freed.append(number)

        return adopted(number, descriptor, size, freed)

    def _take_progress(self, epoch: int, batch: int, step: int, sums: Any, counts: Any, figures: Any) -> None:
        at = self.progress
        at.epoch, at.batch, at.step, at.sums, at.counts = epoch, batch, step, sums, counts
        if figures and self._work.inline is not None:
            self._work.inline.take_figures(figures)

    # --- the newest state that nobody can undo -------------------------------------------------------------------

    def _noted(self, report: Any) -> Any:
        """What the ledger is to hear."""
        kind = report.__class__
        if kind is Ended:
            self._ended = True
            if report.state is None:  # what it came to on the way is of no use
                state, step, epoch = self._confirmed
                return report._replace(state=state, step=step, epoch=epoch)
            self._confirmed = (report.state, report.step, report.epoch)
        elif report.era != self._era:  # of work that has been undone
            pass
        elif kind is EpochDone or kind is ValidationBegun or kind is TrainBegun:
            self._begun = True
            if report.held:
                if kind is ValidationBegun or not self._reopened(report):
                    epoch = self._work.initial_epoch if kind is TrainBegun else report.epoch
                    self._holds.append((report.snapshot, report.step, epoch))
            elif kind is EpochDone and not self._holds and report.snapshot is not None:
                self._confirmed = (report.snapshot, report.step, report.epoch)
        elif kind is WasSnapshot:
            if not self._holds:
                self._confirmed = (report.state, report.step, report.epoch)
        elif (kind is BatchDone or kind is BatchBegun) and report.held:
            self._holds.append((None, 0, 0))
        return report

    def _reopened(self, report: Any) -> bool:
        """Whether the boundary of this EpochDone was opened by its ValidationBegun, with the same hold."""
        if report.__class__ is not EpochDone or not self._holds:
            return False
        state, step, epoch = self._holds[-1]
        if state is None or epoch != report.epoch or step != report.step or report.val_logs is None:
            return False
        if report.snapshot is not None:
            self._holds[-1] = (report.snapshot, step, epoch)
        return True

    def _confirm(self, command: Confirm) -> None:
        if not self._holds:
            return
        state, step, epoch = self._holds.popleft()
        if command.change is not None:
            self._era += 1
            self._holds.clear()  # undone; the changed state is on its way
        elif state is not None:
            self._confirmed = (state, step, epoch)

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
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """There is no compute, or no longer."""
        self._error, self._gone = error, True
        if not self._begun:
            self.reports.append(self._beginning())
        self.reports.append(Lost(error))
        if self._end_sent:
            self._answer_end()
        self._wakeup.set()

    def _beginning(self) -> TrainBegun:
        """What compute would have said first: whoever hears of the end has heard of a beginning."""
        self._begun = True
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
        state, step, epoch = self._confirmed
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


# --- what is handed over ---------------------------------------------------------------------------------------------


def _parcel(work: Work, factory: str | None) -> Work:
    """The work as the worker gets it."""
    trainable: Any = work.trainable
    if factory is not None:
        trainable = _FromFactory(factory, dict(trainable.state()))
    inline: Any = work.inline
    return dataclasses.replace(
        work, trainable=trainable, inline=inline.parcel() if inline is not None else None, mirrored=True,
        early=tuple(work.early),
    )  # fmt: skip


class _FromFactory:
    """Stands for a model that is made in the worker."""

    def __init__(self, factory: str, state: State) -> None:
        self._factory, self._state = factory, state

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_by, (self._factory, self._state)


def _made_by(factory: str, state: State) -> Any:
    import importlib

    module, _, name = factory.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        trainable = function()
        trainable.load_state(state)
    except BaseException as error:
        error.add_note(f"in ProcessExecutor(factory={factory!r}), which makes the model in the worker process")
        raise
    return trainable


def _check_factory(factory: object) -> None:
    module, colon, name = factory.partition(":") if isinstance(factory, str) else ("", "", "")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise InvalidInput(f"factory={factory!r} should name a function as 'package.module:function'")
    if module == "__main__":
        raise InvalidInput(f"factory={factory!r}: a worker does not import the main module; move it to one of its own")
