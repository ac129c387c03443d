"""Temporary files: never swept while somebody writes them, always when nobody does any longer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from asyncfit import temporaries
from asyncfit.checkpoints import sweep, write_whole
from asyncfit.errors import CheckpointError

ROOT = Path(__file__).parent.parent
LEFT = ".m.h5.12345.0123abcd.tmp"

WRITER = """
import os, signal, sys
from asyncfit.checkpoints import write_whole

def data(file):
    file.write(b"half of it")
    file.flush()
    os.write(1, b".")
    if os.read(0, 1) == b"k":
        os.kill(os.getpid(), signal.SIGKILL)
    file.write(b" and the other")

write_whole(sys.argv[1], data)
"""


def writer(path: Path) -> subprocess.Popen[bytes]:
    """A process in the middle of writing `path`; a byte lets it go on, "k" makes it kill itself."""
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1) == b"."
    return process


def test_what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    with writer(tmp_path / "dead.h5") as dead, writer(tmp_path / "live.h5") as live:
        names = sorted(os.listdir(tmp_path))
        assert [name.split(".")[1] for name in names] == ["dead", "live"]
        assert sweep(tmp_path) == []
        dead.communicate(b"k")
        assert dead.returncode == -signal.SIGKILL
        assert sorted(os.listdir(tmp_path)) == names
        assert sweep(tmp_path) == [names[0]]
        assert os.listdir(tmp_path) == [names[1]]
        live.communicate(b".")
        assert live.returncode == 0
    assert os.listdir(tmp_path) == ["live.h5"]
    assert (tmp_path / "live.h5").read_bytes() == b"half of it and the other"


def test_a_file_that_this_process_writes_is_not_swept(tmp_path: Path) -> None:
    swept: list[str] = []

    def data(file: BinaryIO) -> None:
        file.write(b"x")
        thread = threading.Thread(target=lambda: swept.extend(sweep(tmp_path)))
        thread.start()
        thread.join()

    write_whole(tmp_path / "m.h5", data)
    assert swept == []
    assert os.listdir(tmp_path) == ["m.h5"]


def test_writing_sweeps_what_is_left_of_its_own_name(tmp_path: Path) -> None:
    long = "n" * 255
    left = [LEFT, f".{'n' * 200}.1.0123abcd.tmp"]
    other = [".other.h5.1.0123abcd.tmp", ".m.h5.1.0123abcd", ".m.h5.1.0123abcg.tmp", ".m.h5.tmp", "m.h5.1.0123abcd.tmp"]
    for name in (*left, *other):
        (tmp_path / name).write_bytes(b"x")
    write_whole(tmp_path / "m.h5", b"new")
    write_whole(tmp_path / long, b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*other, "m.h5", long])
    assert sweep(tmp_path) == other[:1]
    assert sorted(os.listdir(tmp_path)) == sorted([*other[1:], "m.h5", long])


def test_a_name_like_ours_that_is_no_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LEFT)  # to open it would wait for a writer
    (tmp_path / "kept").write_bytes(b"x")
    (tmp_path / LEFT.replace("m.h5", "link")).symlink_to("kept")
    (tmp_path / LEFT.replace("m.h5", "folder")).mkdir()
    names = sorted(os.listdir(tmp_path))
    assert sweep(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == names


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sweep(tmp_path / "missing")


@pytest.mark.parametrize("times", [1, 5])
def test_a_file_swept_between_its_creation_and_its_lock_is_made_again(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    swept: list[str] = []

    def late(descriptor: int, how: int) -> None:
        if len(swept) < times:
            with monkeypatch.context() as patch:
                patch.setattr(fcntl, "flock", flock)
                swept.extend(sweep(tmp_path))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_whole(tmp_path / "m.h5", b"new")
    assert len(set(swept)) == times
    assert os.listdir(tmp_path) == ["m.h5"]
    assert (tmp_path / "m.h5").read_bytes() == b"new"


def test_a_file_that_a_sweep_looks_at_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, waits = fcntl.flock, [True, True]

    def taken(descriptor: int, how: int) -> None:
        if waits:
            waits.pop()
            raise BlockingIOError(errno.EWOULDBLOCK, "taken")
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", taken)
    write_whole(tmp_path / "m.h5", b"new")
    assert not waits
    assert os.listdir(tmp_path) == ["m.h5"]


def test_a_file_that_is_always_swept_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(descriptor: int, how: int) -> None:
        raise BlockingIOError(errno.EWOULDBLOCK, "taken")

    monkeypatch.setattr(fcntl, "flock", taken)
    with pytest.raises(CheckpointError):
        write_whole(tmp_path / "m.h5", b"new")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_done_while_a_sweep_looks_at_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep has opened it, then it is renamed and its lock let go of, then the sweep gets the lock."""
    path, descriptor = temporaries.create(str(tmp_path), "m.h5", 0o600)
    flock = fcntl.flock

    def after_the_writer(swept: int, how: int) -> None:
        os.replace(path, tmp_path / "m.h5")
        os.close(descriptor)
        flock(swept, how)

    monkeypatch.setattr(fcntl, "flock", after_the_writer)
    assert sweep(tmp_path) == []
    assert os.listdir(tmp_path) == ["m.h5"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def test_without_locks_files_are_written_and_nothing_is_swept(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / LEFT).write_bytes(b"x")
    write_whole(tmp_path / "m.h5", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([LEFT, "m.h5"])
