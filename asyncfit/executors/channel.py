"""Frames over a Unix socket, between a run and its worker process: a kind, some bytes, some descriptors.

What is said most often, plain batches, goes as one frame for many, in `marshal`'s encoding: both ends are the same
interpreter, and it is three times as fast as pickling. All else is pickled by `memory.dumps`.
"""

from __future__ import annotations

import array
import marshal
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..protocol import BatchBegun, BatchDone

__all__ = ["Frame", "Kind", "Outbox", "Reader", "batches_from", "batches_to", "plain_from", "plain_to"]

_HEADER = struct.Struct("<BBQ")
_MOST = 250
"""Descriptors that may go with one frame; the kernel takes 253 at a time."""
_OF_DONE = len(BatchDone._fields)


class Kind:
    """What a frame is."""

    RUN = 1  # down: the work of a run, pickled
    COMMAND = 2  # down: a command, pickled
    FREED = 3  # down: numbers of blocks that are no longer read here, as JSON
    BATCHES = 4  # up: BatchBegun and BatchDone, marshalled
    REPORT = 5  # up: any other report, pickled
    PROGRESS = 6  # up: where compute is, marshalled
    REFUSED = 7  # up: the work could not be taken up, and why, pickled
    WANTED = 9  # up: a batch of data that is read here is wanted, marshalled
    TOLD = 8  # up: an inline handler failed and the run goes on, pickled


class Frame(NamedTuple):
    kind: int
    data: bytes
    blocks: list[int]


class Reader:
    """Takes bytes and descriptors as they come, gives whole frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._blocks: deque[int] = deque()

    def receive(self, sock: socket.socket) -> int:
        """Take what there is, without waiting if `sock` does not wait; how many bytes, 0 at the end of the stream."""
        data, ancillary, flags, _ = sock.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 253), socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
                self._blocks.extend(found)
        if flags & socket.MSG_CTRUNC:
            raise OSError("this process has too many files open to take over another one")
        self._bytes += data
        return len(data)

    def frames(self) -> Iterator[Frame]:
        """The frames that are complete."""
        while len(self._bytes) >= _HEADER.size:
            kind, count, size = _HEADER.unpack_from(self._bytes)
            end = _HEADER.size + size
            if len(self._bytes) < end:
                return
            data = bytes(memoryview(self._bytes)[_HEADER.size : end])
            del self._bytes[:end]
            yield Frame(kind, data, [self._blocks.popleft() for _ in range(count)])

    def close(self) -> None:
        """Close the descriptors of frames that never became complete."""
        while self._blocks:
            os.close(self._blocks.popleft())


class Outbox:
    """Frames on their way out. Owns their descriptors until they are sent."""

    def __init__(self) -> None:
        self._frames: deque[tuple[memoryview, list[int]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._frames)

    def put(self, kind: int, data: bytes = b"", blocks: Iterable[int] = ()) -> None:
        """Queue a frame; takes over the descriptors."""
        blocks = list(blocks)
        if len(blocks) > _MOST:
            for block in blocks:
                os.close(block)
            raise ValueError(f"{len(blocks)} arrays lie in files of their own; at most {_MOST} can be handed over")
        self._frames.append((memoryview(_HEADER.pack(kind, len(blocks), len(data)) + data), blocks))

    def flush(self, sock: socket.socket) -> bool:
        """Send what can be sent, without waiting if `sock` does not wait; whether all of it is out.

        Raises:
            OSError: the other side is gone.
        """
        while self._frames:
            view, blocks = self._frames[0]
            try:
                sent = socket.send_fds(sock, [view], blocks) if blocks else sock.send(view)
            except BlockingIOError:
                return False
            for block in blocks:
                os.close(block)
            if sent < len(view):
                self._frames[0] = view[sent:], []
            else:
                self._frames.popleft()
        return True

    def close(self) -> None:
        """Forget what was not sent."""
        while self._frames:
            for block in self._frames.popleft()[1]:
                os.close(block)


def plain_to(obj: Any, names: Iterable[object]) -> bytes:
    """Tuples, lists and dicts of numbers for `plain_from`, and the names in it: fast, if these are text."""
    if all(name.__class__ is str for name in names):  # else `marshal` may make bytes of them, and not say so
        return b"m" + marshal.dumps(obj)
    return b"p" + pickle.dumps(obj)


def plain_from(data: bytes) -> Any:
    return marshal.loads(memoryview(data)[1:]) if data[:1] == b"m" else pickle.loads(memoryview(data)[1:])


def batches_to(reports: list[tuple[Any, ...]]) -> bytes:
    """Plain reports of batches, as tuples, for `batches_from`."""
    return plain_to(reports, (name for fields in reports if len(fields) == _OF_DONE for name in fields[6]))


def batches_from(data: bytes) -> list[BatchBegun | BatchDone]:
    done, begun = BatchDone._make, BatchBegun._make
    return [done(fields) if len(fields) == _OF_DONE else begun(fields) for fields in plain_from(data)]
