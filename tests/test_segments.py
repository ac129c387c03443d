"""Blocks of memory at their places in a file: from any memory, with and without direct I/O, whole or not there."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from asyncfit.checkpoints import Segment, write_segments, write_whole
from asyncfit.errors import CheckpointError

from .faults import NUMBERS, faults

ROOT = Path(__file__).parent.parent
PAGE = 4096
OLD = b"the old content"
SIZES = [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 300 * PAGE + 77, (5 << 20) + 13]


def memory(size: int, shift: int = 0) -> Any:
    """Random bytes that begin `shift` behind a page boundary."""
    whole = np.frombuffer(mmap.mmap(-1, size + shift + 1), np.uint8)
    part = whole[shift : shift + size]
    part[:] = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    return part


def laid(sizes: list[int], shift: int, gap: int = 0) -> tuple[list[Segment], bytes]:
    segments: list[Segment] = []
    want = bytearray()
    for size in sizes:
        data = memory(size, shift)
        segments.append((len(want), data))
        want += data.tobytes() + bytes(-size % PAGE)
        if size != sizes[-1]:
            want += bytes(gap)
    return segments, bytes(want)


@pytest.mark.parametrize("shift", [0, 16, 1])
@pytest.mark.parametrize("gap", [0, 3 * PAGE])
def test_every_segment_is_at_its_place(tmp_path: Path, shift: int, gap: int) -> None:
    segments, want = laid(SIZES, shift, gap)
    path = tmp_path / "m.h5"
    assert write_segments(path, segments) == len(want)
    assert path.read_bytes() == want
    assert os.listdir(tmp_path) == ["m.h5"]


def test_takes_any_contiguous_buffer(tmp_path: Path) -> None:
    array = np.arange(5000, dtype=">f8").reshape(50, 100)
    array.flags.writeable = False
    buffers: list[Any] = [array, b"bytes", bytearray(b"more"), memoryview(b"view"), np.array(True), np.array(1 + 2j)]
    segments = [(number * 10 * PAGE, data) for number, data in enumerate(buffers)]
    write_segments(tmp_path / "m", segments)
    content = (tmp_path / "m").read_bytes()
    for offset, data in segments:
        raw = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
        assert content[offset : offset + len(raw)] == raw


@pytest.mark.parametrize(
    "segments",
    [[(1, b"x")], [(0, b"x" * 5000), (PAGE, b"x")], [(PAGE, b"x"), (0, b"x")], [(0, np.arange(9).reshape(3, 3).T)]],
)
def test_what_cannot_lie_in_a_file_is_refused(tmp_path: Path, segments: list[Segment]) -> None:
    with pytest.raises(ValueError, match="a segment"):
        write_segments(tmp_path / "m", segments)
    assert os.listdir(tmp_path) == []


def has_direct(folder: Path) -> bool:
    descriptor = os.open(folder / "probe", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
        os.pwrite(descriptor, mmap.mmap(-1, PAGE), 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
        os.unlink(folder / "probe")
    return True


def test_aligned_memory_goes_to_the_disk_directly_and_uncopied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_direct(tmp_path):
        pytest.skip("this file system has no direct I/O")
    data = memory((9 << 20) + 5)
    start = data.__array_interface__["data"][0]
    seen: list[tuple[int, bool, bool]] = []
    pwrite = os.pwrite

    def spy(descriptor: int, buffer: Any, offset: int) -> int:
        at = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        seen.append((len(buffer), bool(flags & os.O_DIRECT), start <= at < start + data.size))
        return pwrite(descriptor, buffer, offset)

    monkeypatch.setattr(os, "pwrite", spy)
    write_segments(tmp_path / "m", [(0, data)])
    assert seen == [(4 << 20, True, True)] * 2 + [(1 << 20, True, True), (PAGE, True, False)]
    assert (tmp_path / "m").read_bytes() == data.tobytes() + bytes(PAGE - 5)


def test_a_file_system_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, want = laid(SIZES, 0)
    pwrite, call = os.pwrite, fcntl.fcntl

    def no_flag(descriptor: int, what: int, how: int = 0) -> int:
        if what == fcntl.F_SETFL and how & os.O_DIRECT:
            raise OSError(errno.EINVAL, "none here")
        return call(descriptor, what, how)

    def no_write(descriptor: int, data: Any, offset: int) -> int:
        if call(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "none here")
        return pwrite(descriptor, data, offset)

    for module, name, refused in ((fcntl, "fcntl", no_flag), (os, "pwrite", no_write)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refused)
            write_segments(tmp_path / "m", segments)
        assert (tmp_path / "m").read_bytes() == want
    with monkeypatch.context() as patch:
        patch.delattr(os, "O_DIRECT")
        write_segments(tmp_path / "m", segments)
    assert (tmp_path / "m").read_bytes() == want


@pytest.mark.parametrize("most", [1, 512, PAGE, 5 * PAGE, 10_000, 1 << 20])
def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:most], offset))
    segments, want = laid([5, 9 * PAGE if most == 1 else 3 << 20, PAGE + 1], 0)
    write_segments(tmp_path / "m", segments)
    assert (tmp_path / "m").read_bytes() == want


def test_a_write_that_writes_nothing_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *args: 0)
    with pytest.raises(CheckpointError):
        write_segments(tmp_path / "m", [(0, b"x")])
    assert os.listdir(tmp_path) == []


def test_a_limit_on_the_size_of_files_is_met_as_a_real_short_write(tmp_path: Path) -> None:
    code = f"""
import resource, mmap
from asyncfit.checkpoints import write_segments
for limit in (1 << 20, (1 << 20) + 5000, (1 << 20) + 7):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_segments({str(tmp_path / "m")!r}, [(0, mmap.mmap(-1, 3 << 20)), (3 << 20, b"x")])
    except OSError as error:
        print(type(error).__name__, error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"CheckpointError {errno.EFBIG}"] * 3
    assert os.listdir(tmp_path) == []


SEGMENTS, NEW = laid([5000, 2 * PAGE, (5 << 20) + 1], 0)


def by_function(file: BinaryIO) -> None:
    file.write(NEW[:70_000])


WAYS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "segments": (lambda path: write_segments(path, SEGMENTS), NEW),
    "whole": (lambda path: write_whole(path, NEW[:70_000]), NEW[:70_000]),
    "function": (lambda path: write_whole(path, by_function), NEW[:70_000]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", [*NUMBERS, errno.EINVAL, None])
def test_whichever_system_call_fails_the_old_file_is_whole_or_the_new_one_is(
    way: str, lasting: bool, number: int | None, tmp_path: Path
) -> None:
    write, new = WAYS[way]
    path = tmp_path / "m.h5"
    descriptors = len(os.listdir("/proc/self/fd"))
    outcomes = set()
    for at in range(1, 200):
        path.write_bytes(OLD)
        error: CheckpointError | None = None
        with faults(at, number, lasting=lasting) as seen:
            try:
                write(path)
            except CheckpointError as failure:
                error = failure
        content = path.read_bytes()
        left = [name for name in os.listdir(tmp_path) if name != "m.h5"]
        if error is None:
            assert content == new
        else:
            assert error.errno == number
            assert content == (new if "in place" in str(error) else OLD)
        if left:
            assert "unlink" in seen.failed
            assert error is not None
            notes = str(getattr(error.__cause__, "__notes__", ""))
            assert all(f"{tmp_path / name} could not be removed" in notes for name in left)
            for name in left:
                os.unlink(tmp_path / name)
        outcomes.add((error is None, content == new))
        if not seen.failed:
            break
    else:
        pytest.fail("there is no end of it")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert (True, True) in outcomes
    assert number is None or (False, False) in outcomes
    assert number is None or (False, True) in outcomes, "the sync of the directory fails last"
