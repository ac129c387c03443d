"""What runs in a worker process: it takes up one run after the other, until the process that started it is gone.

The main thread computes. One more thread reads commands, sends what has gathered for long, and ends the process when
nobody is left to report to.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import json
import marshal
import os
import pickle
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from ..compute import Compute, Work
from ..data.feed import Feed
from ..errors import AsyncFitError
from ..machine import blas
from ..pool import Pool
from ..protocol import BatchBegun, BatchDone, Ended, Failed
from .channel import Frame, Kind, Outbox, Reader, batches_to, plain_to
from .memory import dumps, loads
from .thread import GATHER

__all__ = ["Server", "main"]

STALE = 0.05
"""Seconds after which the reading thread sends what compute has gathered but not sent, because its batch takes long."""

_F_SETSIG = 10


def main(connection: int, line: int, parent: int) -> None:
    """The whole life of a worker process.

    Args:
        connection, line: descriptors of the socket, and of the pipe whose other end only the parent holds.
        parent: its process number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent
    for mine in (connection, line):
        os.set_inheritable(mine, False)
    _die_with(line)
    Server(socket.socket(fileno=connection), parent).serve()


def _die_with(line: int) -> None:
    """Let the kernel kill this process when the last writer of the pipe is gone, even amid native code."""
    with contextlib.suppress(OSError):  # not every kernel can; the reading thread looks as well
        fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(line, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(line, fcntl.F_SETFL, os.O_NONBLOCK | fcntl.FASYNC)
    if select.select([line], [], [], 0)[0]:
        os._exit(1)


class Server:
    """Takes up runs that come over `sock`."""

    def __init__(self, sock: socket.socket, parent: int) -> None:
        self._socket = sock
        self._parent = parent
        self._reader = Reader()
        self._out, self._sending = Outbox(), threading.RLock()
        self._runs: queue.SimpleQueue[tuple[Frame, deque[Any], Pool]] = queue.SimpleQueue()
        self._inbox: deque[Any] = deque()
        self._commanded = threading.Event()
        self._gathered: list[tuple[Any, ...]] = []
        self._sent = 0.0
        self._told: Any = None
        self._compute: Compute | None = None
        self._pool = Pool(portable=True)

    def serve(self) -> None:
        threading.Thread(target=self._read, name="asyncfit commands", daemon=True).start()
        while True:
            self._serve_run(*self._runs.get())
            gc.collect()  # the arrays of a run are not to wait for the next one

    # --- the main thread ---------------------------------------------------------------------------------------------

    def _serve_run(self, frame: Frame, inbox: deque[Any], pool: Pool) -> None:
        self._pool, self._told = pool, None
        try:
            work: Work = loads(frame.data, frame.blocks)
            work.copy, pool.most = pool.share, work.copies
            work.params = {**work.params, **blas()}
            if work.inline is not None:
                work.inline.trainable = work.trainable
                work.inline.tell = self._tell
            for which, source in enumerate((work.data, work.validation)):
                if isinstance(source, Feed):
                    source.ask = functools.partial(self._want, which)
            self._compute = compute = Compute(work, self._report)
        except BaseException as error:
            self._put(Kind.REFUSED, _portable(error))
            return
        try:
            with work.around():
                inbox.extendleft(reversed(compute.inbox))  # what was asked for before there was a worker
                compute.inbox = inbox
                for _ in compute.run():
                    self._flush()
                    while not inbox:
                        self._commanded.wait()
                        self._commanded.clear()
        except BaseException as error:  # not of a batch: those are reports
            at = compute.progress
            self._report(Ended(0, time.time(), at.step, at.epoch, None, error))
        finally:
            self._flush()
            self._compute = None
            self._gathered.clear()
            pool.close()

    def _report(self, report: Any) -> None:
        kind: Any = report.__class__
        often = kind is BatchBegun or (kind is BatchDone and report.snapshot is None)
        if often and not report.held and report.inline is None:
            self._gathered.append(tuple(report))
            now: float = report.time
            if 0.0 <= now - self._sent < GATHER:
                return
            self._flush()
            return
        if isinstance(report, Failed | Ended) and report.error is not None:
            report = report._replace(error=_portable(report.error))
        with self._sending:
            self._flush()
            self._put(Kind.REPORT, report)

    def _tell(self, told: Any) -> None:
        stamped = None if self._compute is None else self._compute.stamped(told)
        if stamped is not None:
            self._put(Kind.TOLD, stamped)

    def _want(self, which: int, turn: int, epoch: int, batch: int) -> None:
        with self._sending:
            self._out.put(Kind.WANTED, marshal.dumps((which, turn, epoch, batch)))
            self._send()

    # --- sending -----------------------------------------------------------------------------------------------------

    def _put(self, kind: int, obj: Any) -> None:
        with self._sending:
            self._out.put(kind, *dumps(obj, self._pool.again))
            self._send()

    def _flush(self) -> None:
        """Send what has gathered, and where compute is."""
        with self._sending:
            gathered, self._gathered = self._gathered, []
            if gathered:
                self._out.put(Kind.BATCHES, batches_to(gathered))
            compute = self._compute
            if compute is not None:
                at = compute.progress
                figures = None if compute.work.inline is None else compute.work.inline.figures()
                told = (at.epoch, at.batch, at.step, dict(at.sums), dict(at.counts), figures)
                if told != self._told:
                    self._told = told
                    self._out.put(Kind.PROGRESS, plain_to(told, at.sums))
            self._sent = time.time()
            self._send()

    def _send(self) -> None:
        try:
            self._out.flush(self._socket)
        except OSError:
            os._exit(1)  # nobody is there

    # --- the reading thread ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        code = 0
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            while True:
                if not poll.poll(STALE * 1000):
                    if os.getppid() != self._parent:
                        os._exit(1)
                    if time.time() - self._sent > STALE and self._sending.acquire(blocking=False):
                        try:
                            self._flush()
                        finally:
                            self._sending.release()
                    continue
                if not self._reader.receive(self._socket):
                    break
                for frame in self._reader.frames():
                    self._take(frame)
        except ConnectionError:
            pass
        except BaseException:
            code = 1
            traceback.print_exc()
        try:
            sys.stdout.flush()
        finally:  # the parent is gone, or has no more use for it; perhaps nobody reads what is printed either
            os._exit(code)

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.RUN:
            self._inbox, self._filling = deque(), Pool(portable=True)
            self._runs.put((frame, self._inbox, self._filling))
        elif frame.kind == Kind.FREED:
            self._filling.freed(json.loads(frame.data))
        else:
            self._inbox.append(loads(frame.data, frame.blocks, self._filling.adopt))
            self._commanded.set()

    _filling: Pool
    """The pool of the run that commands are for: it may not have been taken up yet."""


def _portable(error: BaseException) -> BaseException:
    """`error` as the parent can have it: with its traceback as a note, and by its words alone if need be."""
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
        dumps(error)
    except BaseException:
        words = AsyncFitError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            words.add_note(note)
        error = words
    if where:
        error.add_note(f"in the worker process:\n{where}")
    return error
