"""Whole or not there: `write_whole` under failures, kills and competition."""

from __future__ import annotations

import errno
import io
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from asyncfit.checkpoints import sweep, write_whole
from asyncfit.errors import CheckpointError

OLD, NEW = b"the old content", bytes(range(256)) * 512
ROOT = Path(__file__).parent.parent
unless_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def by_function(data: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        for start in range(0, len(data), 1000):
            file.write(data[start : start + 1000])

    return write


WAYS = [
    pytest.param(lambda data: data, id="bytes"),
    pytest.param(memoryview, id="memoryview"),
    pytest.param(by_function, id="function"),
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "m.h5"
    path.write_bytes(OLD)
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("way", WAYS)
def test_writes_a_new_file_and_replaces_an_old_one(tmp_path: Path, way: Any) -> None:
    path = tmp_path / "m.h5"
    for data in (NEW, b"", OLD):
        write_whole(path, way(data))
        assert path.read_bytes() == data
        assert os.listdir(tmp_path) == ["m.h5"]


def test_takes_any_kind_of_buffer_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_whole("plain.h5", memoryview(b"\1\0\2\0").cast("H"))
    assert Path("plain.h5").read_bytes() == b"\1\0\2\0"
    longest = "ü" * 127 + "x"  # 255 bytes, so that the temporary must have a shorter one
    write_whole(longest, NEW)
    assert Path(longest).read_bytes() == NEW


def test_a_function_may_seek_and_read(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"xxxx tail")
        file.seek(0)
        assert file.read(4) == b"xxxx"
        file.seek(0)
        file.write(b"head")

    write_whole(tmp_path / "m.h5", write)
    assert (tmp_path / "m.h5").read_bytes() == b"head tail"


def test_syncs_the_content_before_the_rename_and_the_directory_after(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else f"file of {os.fstat(fd).st_size}")
        fsync(fd)

    def seen_replace(source: str, target: str) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    for data in (NEW, by_function(NEW)):
        write_whole(old, data)
        assert calls == [f"file of {len(NEW)}", "rename", "directory"]
        calls.clear()


def test_short_writes_are_continued(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    write_whole(old, NEW[:100])
    assert old.read_bytes() == NEW[:100]


def failing(number: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open", "close"])
@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission"), (errno.EIO, "Input/output")],
)
def test_a_failure_names_the_path_and_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(CheckpointError, match=reason) as caught:
            write_whole(old, NEW)
    assert caught.value.errno == number
    assert caught.value.filename == str(old)
    assert str(old) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert_untouched(old)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.errno, again.filename, str(again)) == (number, str(old), str(caught.value))


def test_a_write_that_writes_nothing_is_a_failure(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: 0)
        with pytest.raises(CheckpointError):
            write_whole(old, NEW)
    assert_untouched(old)


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interruption_comes_out_as_itself_and_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: type[BaseException]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupted)
        with pytest.raises(error):
            write_whole(old, NEW)
    assert_untouched(old)


def test_an_error_in_the_middle_of_a_function_leaves_the_old_file(old: Path) -> None:
    def full(file: BinaryIO) -> None:
        file.write(NEW)
        raise OSError(errno.ENOSPC, "full")

    def broken(file: BinaryIO) -> None:
        file.write(NEW)
        raise ZeroDivisionError("mine")

    def rude(file: BinaryIO) -> None:
        file.write(NEW)
        file.close()
        raise ZeroDivisionError("mine")

    with pytest.raises(CheckpointError, match="disk is full"):
        write_whole(old, full)
    for write in (broken, rude):
        with pytest.raises(ZeroDivisionError, match="mine"):
            write_whole(old, write)
    assert_untouched(old)


def test_a_directory_that_cannot_be_synced_is_told_though_the_file_is_there(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "broken")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", only_files)
    with pytest.raises(CheckpointError, match="in place, but"):
        write_whole(old, NEW)
    assert old.read_bytes() == NEW
    assert os.listdir(old.parent) == [old.name]


def test_a_temporary_that_cannot_be_removed_is_named(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(errno.EIO))
        patch.setattr(os, "unlink", failing(errno.EROFS))
        with pytest.raises(CheckpointError) as caught:
            write_whole(old, NEW)
    assert caught.value.__cause__ is not None
    assert ".tmp could not be removed" in caught.value.__cause__.__notes__[0]
    assert old.read_bytes() == OLD


def test_no_descriptor_is_left_open(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write_whole(old, NEW)
    for call in ("write", "fsync", "replace", "chmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing(errno.EIO))
            with pytest.raises(CheckpointError):
                write_whole(old, NEW)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_written_to_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.symlink("round", tmp_path / "round")
    numbers = {
        "missing/m.h5": errno.ENOENT,
        "file/m.h5": errno.ENOTDIR,
        "folder": errno.EISDIR,
        "pipe": errno.EINVAL,
        "round": errno.ELOOP,
        "n" * 256: errno.ENAMETOOLONG,
    }
    before = sorted(os.listdir(tmp_path))
    for name, number in numbers.items():
        with pytest.raises(CheckpointError) as caught:
            write_whole(tmp_path / name, NEW)
        assert caught.value.errno == number, name
    assert sorted(os.listdir(tmp_path)) == before


def test_a_write_protected_file_stays(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # as it is for all but root
    with pytest.raises(CheckpointError, match="permission"):
        write_whole(old, NEW)
    assert_untouched(old)


@unless_root
def test_a_write_protected_directory_is_a_permission_error(old: Path) -> None:
    old.parent.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="permission"):
            write_whole(old, NEW)
    finally:
        old.parent.chmod(0o700)
    assert_untouched(old)


def test_permission_bits_stay_or_follow_the_umask(old: Path) -> None:
    for bits in (0o600, 0o640, 0o666):
        old.chmod(bits)
        write_whole(old, NEW)
        assert stat.S_IMODE(old.stat().st_mode) == bits
    for umask, bits in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            new = old.with_name(f"{umask}.h5")
            write_whole(new, NEW)
        finally:
            os.umask(before)
        assert stat.S_IMODE(new.stat().st_mode) == bits


def test_a_symbolic_link_stays_and_its_target_is_replaced(old: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link, dangling = tmp_path / "links" / "latest.h5", tmp_path / "links" / "next.h5"
    link.symlink_to("../m.h5")
    dangling.symlink_to("../later.h5")
    for path in (link, dangling):
        write_whole(path, NEW)
        assert path.is_symlink()
        assert path.read_bytes() == NEW
    assert old.read_bytes() == NEW
    assert (tmp_path / "later.h5").read_bytes() == NEW
    assert sorted(os.listdir(tmp_path / "links")) == ["latest.h5", "next.h5"]


def test_of_several_writers_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    contents = [bytes([i]) * (50_000 + i) for i in range(4)]
    start = threading.Barrier(len(contents))

    def write(data: bytes) -> None:
        start.wait()
        for _ in range(10):
            write_whole(path, data)
            assert path.read_bytes() in contents

    errors: list[object] = []
    threading.excepthook, hook = lambda args: errors.append(args.exc_value), threading.excepthook
    try:
        threads = [threading.Thread(target=write, args=(data,)) for data in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert errors == []
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["m.h5"]


WRITER = """
import itertools, os, sys
from asyncfit.checkpoints import sweep, write_whole
for n in itertools.count(1):
    write_whole(sys.argv[1], n.to_bytes(4, "little") * 250_000)
    os.write(1, b".")
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_file_is_the_one_before_or_the_one_after(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    numbers = []
    for kill in range(12):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            done = len(os.read(process.stdout.fileno(), 1))
            for _ in range(kill * 997):  # a different moment of the next save, without a clock
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += len(process.stdout.read())
        content = path.read_bytes()
        numbers.append(int.from_bytes(content[:4], "little"))
        assert content == content[:4] * 250_000
        assert numbers[-1] in (done, done + 1)
    left = [name for name in os.listdir(tmp_path) if name != "m.h5"]
    assert all(name.startswith(".m.h5.") and name.endswith(".tmp") for name in left)
    assert len(left) <= 1, "each writer sweeps what the one before left"
    assert sweep(tmp_path) == left


def test_a_limit_on_the_size_of_files_is_met_as_a_real_short_write(old: Path) -> None:
    code = f"""
import resource
from asyncfit.checkpoints import sweep, write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for data in (bytes(5000), lambda file: file.write(bytes(5000))):
    try:
        write_whole({str(old)!r}, data)
    except OSError as error:
        print(type(error).__name__, error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [f"CheckpointError {errno.EFBIG}"] * 2
    assert_untouched(old)


def test_the_function_gets_a_buffered_binary_file(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        assert isinstance(file, io.BufferedRandom)

    write_whole(tmp_path / "m.h5", write)
