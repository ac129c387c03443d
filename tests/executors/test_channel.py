"""Frames over a socket: whole, in order, with their descriptors, however the bytes are cut."""

from __future__ import annotations

import os
import socket

import pytest

from asyncfit.executors.channel import Kind, Outbox, Reader, batches_from, batches_to
from asyncfit.protocol import BatchBegun, BatchDone


def pipe_with(text: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    return reading


def test_frames_arrive_whole_and_in_order_through_a_full_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    out, reader, got = Outbox(), Reader(), []
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        blocks = [pipe_with(b"%d.%d" % (number, k)) for k in range(number % 3)]
        out.put(Kind.REPORT, bytes([number % 251]) * (number * 37 % 9000), blocks)
    while True:
        done = out.flush(ours)
        try:
            while reader.receive(theirs):
                got += list(reader.frames())
        except BlockingIOError:
            pass
        if done:
            break
    assert [frame.data for frame in got] == [bytes([n % 251]) * (n * 37 % 9000) for n in range(300)]
    for number, frame in enumerate(got):
        assert [os.read(block, 100) for block in frame.blocks] == [b"%d.%d" % (number, k) for k in range(number % 3)]
        for block in frame.blocks:
            os.close(block)
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()
    assert not reader.receive(theirs)
    theirs.close()


def test_what_was_not_sent_or_not_taken_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    out, reader = Outbox(), Reader()
    out.put(Kind.REPORT, b"x" * 10, [pipe_with(b"a")])
    out.flush(ours)
    reader.receive(theirs)
    reader.close()
    out.put(Kind.REPORT, b"", [pipe_with(b"b")])
    out.close()
    with pytest.raises(ValueError, match="251 arrays"):
        out.put(Kind.REPORT, b"", [pipe_with(b"c") for _ in range(251)])
    ours.close()
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_plain_batches_come_back_as_they_were() -> None:
    reports = [
        BatchDone(1, 2.5, 3, 4, 5, 32, {"loss": float("nan"), "accuracy": 0.5}, False, None, None),
        BatchBegun(1, 2.5, 3, 4, 5, False, None),
    ]
    again = batches_from(batches_to([tuple(report) for report in reports]))
    assert [type(report) for report in again] == [BatchDone, BatchBegun]
    assert repr(again) == repr(reports)
