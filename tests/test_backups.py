"""A directory of checkpoints: one writer of all processes, names that sort, and nothing deleted that is needed."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncfit.backups import Directory, file_name
from asyncfit.errors import CheckpointError, DirectoryBusy
from asyncfit.locks import Lock

ROOT = Path(__file__).parent.parent
HOST = os.uname().nodename
unless_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")

HOLDER = """
import sys
from asyncfit.backups import Directory
directory = Directory(sys.argv[1])
directory.open("of the other")
directory.begin("of the other", int(sys.argv[2]))
print(directory.attempt, flush=True)
sys.stdin.read()
directory.close(delete=True)
"""


@contextmanager
def other_process(folder: Path, attempt: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that has the directory, until its input is closed."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(attempt)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{attempt}\n"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    made = Directory(str(tmp_path / "backup"))
    made.open()
    yield made
    made.close()


def fill(directory: Directory, *numbers: tuple[int, int]) -> list[str]:
    """Files of these attempts and steps."""
    paths = [directory.place(*number) for number in numbers]
    for path in paths:
        Path(path).write_bytes(b"x")
    return paths


def names(directory: Directory) -> list[str]:
    return sorted(name for name in os.listdir(directory.path) if name != ".lock")


def failing(number: int) -> Any:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_newest_is_of_the_newest_attempt_and_there_of_the_highest_step(directory: Directory) -> None:
    numbers = [(1, 8), (0, 999), (1, 16), (0, 10**12), (12345, 3)]
    fill(directory, *numbers)
    assert [(file.attempt, file.step) for file in directory.listed()] == sorted(numbers)
    assert file_name(1, 16) == "checkpoint-0001-000000000016.h5"
    assert Path(directory.listed()[0].path) == Path(directory.path) / "checkpoint-0000-000000000999.h5"


def test_names_sort_as_the_checkpoints_do() -> None:
    numbers = [(attempt, step) for attempt in (0, 1, 9, 10, 9999) for step in (0, 9, 10, 10**9, 10**12 - 1)]
    assert sorted(file_name(*number) for number in numbers) == [file_name(*number) for number in sorted(numbers)]


def test_other_files_are_none_of_ours_and_stay(directory: Directory) -> None:
    folder = Path(directory.path)
    others = [
        "notes.txt",
        "checkpoint-1-2.h5",
        "checkpoint-0001-000000000016.h5.bak",
        "xcheckpoint-0001-000000000016.h5",
    ]
    others += [
        "checkpoint-00001-000000000016.h5",
        "checkpoint-0001-0000000000016.h5",
        "checkpoint-٠٠٠١-000000000016.h5",
    ]
    others += ["checkpoint-0001-000000000016.h5\n"]
    for name in others:
        (folder / name).write_bytes(b"mine")
    (folder / "checkpoint-0000-000000000001.h5").mkdir()
    os.mkfifo(folder / "checkpoint-0000-000000000002.h5")  # whoever opened it would wait for ever
    assert directory.listed() == []
    fill(directory, (0, 3))
    directory.prune(1)
    directory.close(delete=True)
    kept = [*others, "checkpoint-0000-000000000001.h5", "checkpoint-0000-000000000002.h5"]
    assert sorted(os.listdir(folder)) == sorted(kept)


def test_without_a_directory_nothing_is_listed(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path / "none"))
    assert directory.listed() == []
    assert not directory.is_open
    directory.close(delete=True)
    with pytest.raises(RuntimeError, match="is not open"):
        directory.place(0, 1)
    assert not os.listdir(tmp_path)


# --- who may write ---------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with other_process(folder) as holder:
        with pytest.raises(DirectoryBusy) as caught:
            Directory(str(folder)).open()
        error = caught.value
        assert (error.path, error.pid, error.host, error.run_id) == (str(folder), holder.pid, HOST, "of the other")
        for part in (str(folder), f"process {holder.pid}", HOST, "'of the other'", "a directory of its own"):
            assert part in str(error)
        assert isinstance(error, RuntimeError)
        twin = pickle.loads(pickle.dumps(error))
        assert (str(twin), vars(twin)) == (str(error), vars(error))
        _, _ = holder.communicate("")  # it ends, and deletes all
        assert holder.returncode == 0
    assert not folder.exists()
    mine = Directory(str(folder))
    mine.open()
    mine.close()


def test_a_killed_holder_is_no_obstacle_and_its_attempt_is_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with other_process(folder, attempt=4) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert os.listdir(folder) == [".lock"]
    mine = Directory(str(folder))
    mine.open("mine")
    assert mine.attempt == 4  # although no file tells of it
    with pytest.raises(DirectoryBusy, match=rf"run 'mine' of this process \({os.getpid()}"):
        Directory(str(folder)).open()
    mine.begin("mine", 5)
    fill(mine, (5, 1))
    mine.close()
    assert os.listdir(folder) == [file_name(5, 1)]
    mine.open()
    assert mine.attempt == 5
    mine.close()


def test_an_attempt_that_ended_without_a_file_keeps_its_number(directory: Directory) -> None:
    """Cancelled before its first checkpoint: the next resumed one must not be called the same."""
    directory.begin("r", 0)
    fill(directory, (0, 8))
    directory.close()
    assert names(directory) == os.listdir(directory.path)
    for attempt in (1, 2):
        directory.open()
        assert directory.attempt == attempt - 1
        directory.begin("r", attempt)
        directory.close()
        assert os.listdir(directory.path).count(".lock") == 1
    directory.open()
    assert directory.attempt == 2
    directory.close()  # refused before it began: nothing is forgotten
    directory.open()
    assert directory.attempt == 2
    directory.close(delete=True)
    assert not os.path.exists(directory.path)


def test_a_second_run_of_this_process_is_refused(directory: Directory, tmp_path: Path) -> None:
    directory.begin("first", 0)
    link = tmp_path / "link"
    link.symlink_to(directory.path)
    for other in (Directory(directory.path), Directory(f"{tmp_path}/./x/../backup/"), Directory(str(link)), directory):
        with pytest.raises(DirectoryBusy, match=rf"run 'first' of this process \({os.getpid()} on host"):
            other.open()
    assert fill(directory, (0, 1))  # the refusals took nothing away
    with pytest.raises(DirectoryBusy):
        Directory(directory.path).open()


def test_of_many_threads_one_at_a_time_has_it(tmp_path: Path) -> None:
    """Each removes file and directory when it ends, under the feet of those who just opened them."""
    folder, inside, most, times = str(tmp_path / "backup"), [0], [0], [0]
    guard = threading.Lock()
    wrong: list[BaseException] = []

    def compete() -> None:
        try:
            done = 0
            while done < 20:
                directory = Directory(folder)
                try:
                    directory.open()
                except DirectoryBusy:
                    continue
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                fill(directory, (0, 1))
                with guard:
                    inside[0] -= 1
                    times[0] += 1
                directory.close(delete=True)
                done += 1
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=compete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert (most, times) == ([1], [120])
    assert os.listdir(tmp_path) == []


def test_a_lock_file_that_is_removed_while_it_is_being_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder lets go between our opening the file and our locking it."""
    first, second, third = (Directory(str(tmp_path)) for _ in range(3))
    first.open()
    flock = fcntl.flock

    def late(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        first.close()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second.open()
    with pytest.raises(DirectoryBusy):
        third.open()
    second.close()
    assert os.listdir(tmp_path) == []


def test_a_forked_child_does_not_hold_the_lock_for_its_dead_parent(tmp_path: Path) -> None:
    code = """
import os, sys
from asyncfit.backups import Directory
directory = Directory(sys.argv[1])
directory.open()
child = os.fork()
if not child:
    print(directory._lock.held, flush=True)
    sys.stdin.read()  # it outlives its parent
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "False\n"
        process.wait()
        mine = Directory(str(tmp_path))
        mine.open()
        mine.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    directory = Directory(str(tmp_path / "backup"))
    with caplog.at_level(logging.WARNING, "asyncfit"):
        directory.open()
    assert [record.getMessage() for record in caplog.records] == [
        f"the file system of {directory.path!r} knows no locks ({os.strerror(number)}): "
        "nothing keeps a second process from writing there"
    ]
    directory.begin("r", 3)
    fill(directory, (3, 1))
    directory.close(delete=True)
    assert os.listdir(tmp_path) == []


NONSENSE = [b"", b"\0" * 5000, b"{", b"[" * 4000, b'"text"', b'{"pid": true, "host": "h", "run": "r"}',
            b'{"pid": 1e999, "host": "h", "run": "r"}', b"9" * 4000, b'{"pid": 1, "host": {}, "run": []}']  # fmt: skip


@pytest.mark.parametrize("content", NONSENSE)
def test_nonsense_in_a_lock_file_does_no_harm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with open(tmp_path / ".lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DirectoryBusy, match="a run of another process") as caught:
            Directory(str(tmp_path)).open()
        assert caught.value.pid is None
    directory = Directory(str(tmp_path))
    directory.open("mine")
    assert directory.attempt is None
    assert json.loads((tmp_path / ".lock").read_text())["run"] == "mine"
    directory.close()


@pytest.mark.parametrize("attempt", ["-1", "1e3", "true", '"4"', "1" + "0" * 400])
def test_an_attempt_that_cannot_be_is_forgotten(tmp_path: Path, attempt: str) -> None:
    (tmp_path / ".lock").write_text(f'{{"pid": 1, "host": "h", "run": "r", "attempt": {attempt}}}')
    directory = Directory(str(tmp_path))
    directory.open()
    assert directory.attempt is None
    directory.close()


def test_the_rest_of_a_longer_line_that_was_there_before_does_no_harm(tmp_path: Path) -> None:
    """A reader may come between the writing and the shortening; so may a power cut."""
    (tmp_path / ".lock").write_text('{"pid": 1, "host": "h", "run": "r", "attempt": 7}\n"attempt": 6}\n')
    directory = Directory(str(tmp_path))
    directory.open()
    assert directory.attempt == 7
    directory.close()


def test_a_long_name_of_a_run_is_shortened(directory: Directory) -> None:
    directory.begin("𝄞" * 10_000, 1)
    with pytest.raises(DirectoryBusy) as caught:
        Directory(directory.path).open()
    assert caught.value.run_id == "𝄞" * 200
    directory.begin("r", 2)  # shorter than before
    with pytest.raises(DirectoryBusy, match="run 'r' of this process"):
        Directory(directory.path).open()


def test_what_a_killed_writer_left_half_written_is_removed(tmp_path: Path) -> None:
    left, others = f".{file_name(0, 8)}.123456.0123abcd.tmp", [".x.tmp", "x.123456.0123abcd.tmp"]
    for name in (left, *others):
        (tmp_path / name).write_bytes(b"x")
    directory = Directory(str(tmp_path))
    directory.open()
    assert sorted(os.listdir(tmp_path)) == sorted([".lock", *others])
    directory.close()


# --- places ----------------------------------------------------------------------------------------------------------


def test_the_working_directory_counts_when_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    directory = Directory("backup")
    monkeypatch.chdir(tmp_path / "b")
    directory.open()
    fill(directory, (0, 1))
    monkeypatch.chdir(tmp_path)
    assert os.listdir("a/backup") != []
    assert len(directory.listed()) == 1
    directory.close(delete=True)
    assert (os.listdir("a"), os.listdir("b")) == ([], [])


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    (tmp_path / "a").rmdir()
    with pytest.raises(CheckpointError, match="the working directory is gone"):
        Directory("backup")


def test_a_link_is_followed_once_and_stays(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("one")
    directory = Directory(str(link))
    directory.open()
    link.unlink()
    link.symlink_to("two")  # a deployment moves it
    fill(directory, (0, 1))
    assert len(os.listdir(tmp_path / "one")) == 2
    assert os.listdir(tmp_path / "two") == []
    directory.close(delete=True)
    assert os.listdir(tmp_path / "one") == []
    assert link.is_symlink()


def test_names_of_all_kinds_of_letters(tmp_path: Path) -> None:
    for name in ("Zwischenstände für später", "備份", "\udcff\udcfe", "a'b\"c\nd", "e\u0301", " "):
        directory = Directory(str(tmp_path / name / name))
        directory.open(name)
        fill(directory, (0, 1))
        with pytest.raises(DirectoryBusy) as caught:
            Directory(directory.path).open()
        assert caught.value.run_id == name
        str(caught.value).encode()  # whatever the name, a log can write it
        directory.close(delete=True)
        assert os.listdir(tmp_path / name) == []


def test_parents_are_made_and_stay(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path / "a" / "b" / "c"))
    directory.open()
    directory.close()  # it never began: no trace
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_directory_that_was_there_stays_unless_its_checkpoints_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    directory = Directory(str(folder))
    directory.open()
    directory.close()
    assert os.listdir(folder) == []
    directory.open()
    directory.close(delete=True)
    assert not folder.exists()


def test_the_working_directory_itself_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = Directory(".")
    directory.open()
    fill(directory, (0, 1))
    directory.close(delete=True)
    assert os.listdir(tmp_path) == []
    assert os.getcwd() == str(tmp_path)


def test_a_new_directory_is_made_durable_by_syncing_what_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def seen(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", seen)
    directory = Directory(str(tmp_path / "a" / "b"))
    directory.open()
    folder = str(tmp_path)
    assert synced == [folder, f"{folder}/a", f"{folder}/a/b/.lock"]
    directory.begin("r", 1)
    assert synced[3:] == [f"{folder}/a/b/.lock"]
    fill(directory, (1, 1))
    directory.delete_all()
    assert synced[4:] == [f"{folder}/a/b"]
    directory.close()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "loop").symlink_to("loop")
    for path, said in (("file", "it is a file, not a directory"), ("file/sub", "Not a directory"), ("loop", "a link")):
        with pytest.raises(CheckpointError, match=f"no checkpoints can be written there: .*{said}") as caught:
            Directory(str(tmp_path / path)).open()
        assert caught.value.filename == str(tmp_path / path)
        assert caught.value.errno == errno.ENOTDIR
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_something_else_called_lock_is_told(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    makers: list[Callable[[], None]] = [lambda: lock.symlink_to("elsewhere"), lock.mkdir, lambda: os.mkfifo(lock)]
    for make in makers:
        make()
        with pytest.raises(CheckpointError, match="no checkpoints can be written there"):
            Directory(str(tmp_path)).open()
        assert os.listdir(tmp_path) == [".lock"]
        lock.rmdir() if lock.is_dir() else lock.unlink()


@unless_root
def test_a_read_only_directory_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for path in (tmp_path, tmp_path / "backup"):
        with pytest.raises(CheckpointError, match="Permission denied") as caught:
            Directory(str(path)).open()
        assert caught.value.errno == errno.EACCES
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("call", ["makedirs", "open", "pwrite", "ftruncate", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE])
def test_whatever_fails_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    directory = Directory(str(tmp_path / "backup"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(CheckpointError, match=os.strerror(number)) as caught:
            directory.open()
        assert (caught.value.errno, caught.value.filename) == (number, directory.path)
    assert not directory.is_open
    assert os.listdir(tmp_path) == []
    directory.open()  # nor is it held
    directory.close()


def test_a_lock_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with other_process(tmp_path, attempt=2) as holder:
        holder.kill()
        holder.wait()
    before = (tmp_path / ".lock").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda file, data, at: 0)
        with pytest.raises(CheckpointError, match=os.strerror(errno.ENOSPC)):
            Directory(str(tmp_path)).open()
    assert (tmp_path / ".lock").read_bytes() == before


def test_a_directory_that_cannot_be_read_is_told_and_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing(errno.EACCES))
        with pytest.raises(CheckpointError, match="the directory cannot be read"):
            directory.open()
    assert os.listdir(tmp_path) == []
    directory.open()
    directory.close()


def test_a_directory_that_vanishes_is_made_and_locked_again(
    directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    directory.begin("mine", 3)
    os.rename(directory.path, directory.path + ".old")
    with caplog.at_level(logging.WARNING, "asyncfit"):
        fill(directory, (3, 1))
    assert f"the lock of {directory.path!r} was removed while run mine writes there" in caplog.text
    with pytest.raises(DirectoryBusy, match="run 'mine'"):
        Directory(directory.path).open()
    fill(directory, (3, 2))
    os.unlink(Path(directory.path) / ".lock")
    fill(directory, (3, 3))
    with pytest.raises(DirectoryBusy, match="run 'mine'"):
        Directory(directory.path).open()
    assert json.loads((Path(directory.path) / ".lock").read_text())["attempt"] == 3
    assert len(directory.listed()) == 3


def test_a_directory_that_another_run_has_made_anew_is_not_written_into(directory: Directory) -> None:
    os.rename(directory.path, directory.path + ".old")
    other = Directory(directory.path)
    other.open("the other")
    for _ in range(2):
        with pytest.raises(DirectoryBusy, match="run 'the other'"):
            directory.place(0, 1)
    other.close()
    directory.place(0, 1)
    directory.close()
    with pytest.raises(RuntimeError, match="is not open"):
        directory.place(0, 2)


def test_a_directory_that_cannot_be_made_again_is_told_each_time(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.rename(directory.path, directory.path + ".old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", failing(errno.EROFS))
        for _ in range(2):
            with pytest.raises(CheckpointError, match=os.strerror(errno.EROFS)):
                directory.place(0, 1)
    fill(directory, (0, 1))


def test_a_lock_that_was_released_is_not_taken_again_by_a_late_writer(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path))
    lock.take()
    lock.release()
    with pytest.raises(CheckpointError, match="its lock was released"):
        lock.keep()
    lock.release()
    assert os.listdir(tmp_path) == []


# --- deleting --------------------------------------------------------------------------------------------------------


def test_the_newest_are_kept(directory: Directory) -> None:
    fill(directory, (0, 30), (1, 10), (1, 20), (0, 20))
    directory.prune(2)
    assert names(directory) == [file_name(1, 10), file_name(1, 20)]
    directory.prune(5)
    assert len(names(directory)) == 2
    directory.prune(0)  # never all of them
    assert names(directory) == [file_name(1, 20)]


def test_damaged_ones_do_not_count(directory: Directory) -> None:
    """Else the newest whole one would be the only one, when two are to be kept."""
    _, _, damaged, _ = fill(directory, (0, 10), (0, 20), (0, 30), (1, 21))
    directory.prune(2, [damaged])
    assert names(directory) == [file_name(0, 20), file_name(1, 21)]


def test_what_cannot_be_deleted_is_logged_and_the_others_go(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = fill(directory, (0, 1), (0, 2), (0, 3), (0, 4))
    unlink = os.unlink

    def fails_at_one(path: Any, **how: Any) -> None:
        if path == paths[0]:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
        if path == paths[1]:
            unlink(path)  # somebody else was quicker
        unlink(path, **how)

    monkeypatch.setattr(os, "unlink", fails_at_one)
    with caplog.at_level(logging.WARNING, "asyncfit"):
        directory.prune(2)
    assert [record.getMessage() for record in caplog.records] == [
        f"{paths[0]!r} is to be kept no longer, but could not be deleted: {os.strerror(errno.EPERM)}"
    ]
    assert names(directory) == [file_name(0, 1), file_name(0, 3), file_name(0, 4)]
    directory.close(delete=True)
    assert os.listdir(directory.path) == [file_name(0, 1)]


def test_errors_of_the_directory_are_logged_where_only_deleting_is_at_stake(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(directory, (0, 1))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "asyncfit"):
        patch.setattr(os, "scandir", failing(errno.EIO))
        directory.prune(1)
        assert "the directory cannot be read" in caplog.text
        caplog.clear()
        patch.undo()
        patch.setattr(os, "fsync", failing(errno.EIO))
        directory.delete_all()
        assert "was not synced" in caplog.text
    assert names(directory) == []


def test_deleting_goes_from_the_oldest_to_the_newest(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off in between, the newest is still there, and nothing is trained again."""
    paths = fill(directory, (0, 2), (1, 1), (0, 1), (0, 3))
    gone: list[str] = []
    monkeypatch.setattr(os, "unlink", gone.append)
    directory.prune(1)
    assert gone == [paths[2], paths[0], paths[3]]
    gone.clear()
    directory.delete_all()
    assert gone == [paths[2], paths[0], paths[3], paths[1]]
