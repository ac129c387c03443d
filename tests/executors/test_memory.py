"""What crosses between processes: arrays in memory without a name, and nothing that another interpreter lacks."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit.executors import memory
from asyncfit.executors.memory import NotPortable, check_portable, dumps, loads
from asyncfit.pool import Pool, SharedState, adopted

BIG = np.random.default_rng(0).normal(size=(300, 40))


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def across(obj: Any) -> Any:
    return loads(*dumps(obj))


@pytest.mark.parametrize(
    "array",
    [
        BIG,
        BIG.astype(">f4"),
        BIG.T,
        BIG[::2, ::3],
        np.zeros((0, 10_000)),
        np.zeros((100_000, 0), np.int8),
        np.arange(40_000, dtype="m8[ms]"),
        np.array(["é" * 20] * 1000),
        np.zeros(2000, [("a", "f8"), ("b", "i4", (3,))]),
        np.array([{"a": 1}, None] * 2000, dtype=object),
        np.float32(3),
        np.array(1.5),
    ],
    ids=repr,
)
def test_arrays_arrive_as_they_were(array: Any) -> None:
    before = descriptors()
    got = across({"one": array, "again": array})
    assert got["one"].dtype == array.dtype
    assert np.shape(got["one"]) == np.shape(array)
    assert np.array_equal(got["one"], array)
    del got
    assert descriptors() == before


def test_large_arrays_travel_by_descriptor_once_and_may_be_written_to() -> None:
    data, blocks = dumps([BIG, BIG, BIG.copy()])
    assert len(data) < 1000
    assert os.fstat(blocks[0]).st_size < 2.1 * BIG.nbytes
    one, same, other = loads(data, blocks)
    assert one is same
    one[:] = 0
    assert np.array_equal(other, BIG), "they do not overlap"


def test_memory_maps_travel_as_their_files(tmp_path: Path) -> None:
    made = np.memmap(tmp_path / "rows", np.float32, "w+", offset=12, shape=(5000, 10))
    made[:] = np.arange(50_000).reshape(5000, 10)
    made.flush()
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", offset=12, shape=(5000, 10))
    for view in (mapped, mapped[100:4000], np.asarray(mapped)[7:], np.asarray(mapped)[10:][5:]):
        data, blocks = dumps(view)
        assert os.fstat(blocks[0]).st_size == (tmp_path / "rows").stat().st_size
        assert np.array_equal(loads(data, blocks), view)
    before = descriptors()
    changed = np.memmap(tmp_path / "rows", np.float32, "c", offset=12, shape=(5000, 10))
    changed[:] = 3  # seen by nobody who maps the file
    assert np.array_equal(across(changed), changed)
    assert np.array_equal(across(mapped[:, 2:4]), mapped[:, 2:4])
    (tmp_path / "rows").unlink()
    assert np.array_equal(across(mapped), mapped)
    (tmp_path / "rows").write_bytes(b"another one")
    assert np.array_equal(across(mapped), mapped)
    del changed
    assert descriptors() == before


class Local:
    """At the top of a module: anybody can import it."""


def test_what_others_could_not_import_is_named() -> None:
    class Inner:
        pass

    across(Local())
    before = descriptors()
    for obj, name in ((Inner(), "Inner"), ([lambda: 0], "lambda"), ({"a": Inner}, "Inner")):
        for refuse in (dumps, check_portable):
            with pytest.raises(NotPortable, match=name):
                refuse([BIG, obj])
    stranger = type("Stranger", (), {"__module__": "__main__"})
    with pytest.raises(NotPortable, match="Stranger is defined in the main module"):
        check_portable(stranger())
    assert descriptors() == before


def test_without_anonymous_memory_an_unlinked_file_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    before = descriptors()
    assert np.array_equal(across(BIG), BIG)
    assert descriptors() == before


# --- states ----------------------------------------------------------------------------------------------------------


def test_a_shared_state_is_a_copy_that_nobody_can_write_to() -> None:
    live: dict[str, Any] = {"w": BIG.copy(), "none": np.zeros((0, 3)), "step": 7, "name": "adam"}
    shared = Pool(portable=True).share(live)
    live["w"][:] = 0
    assert isinstance(shared, SharedState)
    assert np.array_equal(shared["w"], BIG)
    assert (shared["step"], shared["name"], shared["none"].shape) == (7, "adam", (0, 3))
    with pytest.raises(ValueError, match="read-only"):
        shared["w"][0] = 1
    small = Pool(portable=True).share({"w": np.ones(3), "step": 7})
    assert not isinstance(small, SharedState)
    with pytest.raises(ValueError, match="read-only"):
        small["w"][0] = 1


def test_blocks_go_round_when_neither_side_reads_them() -> None:
    before = descriptors()
    pool, freed = Pool(portable=True), list[int]()

    def handed(state: Any) -> Any:
        return loads(*dumps(state, pool.again), lambda n, d, s: adopted(n, d, s, freed.append))

    first = pool.share({"w": BIG})
    theirs = handed(first)
    number = theirs.block.number
    del first
    second = pool.share({"w": BIG + 1})
    assert second["w"].ctypes.data != 0
    assert np.array_equal(theirs["w"], BIG), "it is still read there, so it was not filled anew"
    del theirs
    gc.collect()
    assert freed == [number]
    pool.freed(freed)
    third = pool.share({"w": BIG + 2})
    assert third.block.number == number  # type: ignore[attr-defined]
    assert np.array_equal(second["w"], BIG + 1)
    grown = pool.share({"w": np.vstack([BIG, BIG])})
    assert np.array_equal(grown["w"][300:], BIG)
    pool.close()
    assert np.array_equal(third["w"], BIG + 2), "what is still read stays readable"
    del second, third, grown
    assert descriptors() == before


def test_a_state_that_comes_back_is_not_filled_anew_while_it_waits() -> None:
    pool, freed = Pool(portable=True), list[int]()
    mine = pool.share({"w": BIG})
    theirs = loads(*dumps(mine, pool.again), lambda n, d, s: adopted(n, d, s, freed.append))
    back = dumps({"restore": theirs})  # on its way
    del mine, theirs
    came = loads(*back, pool.adopt)["restore"]
    pool.freed(freed)  # sent after it
    other = pool.share({"w": BIG + 1})
    assert np.array_equal(came["w"], BIG)
    assert other.block is not came.block  # type: ignore[attr-defined]
    number = came.block.number
    del came
    gc.collect()
    assert pool.share({"w": BIG}).block.number == number  # type: ignore[attr-defined]


def test_a_state_of_an_earlier_pool_is_simply_read() -> None:
    before = descriptors()
    pool = Pool(portable=True)
    theirs = loads(*dumps(pool.share({"w": BIG}), pool.again))
    came = loads(*dumps(theirs), Pool(portable=True).adopt)
    assert np.array_equal(came["w"], BIG)
    del theirs, came
    pool.close()
    assert descriptors() == before


def test_a_failed_message_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()

    def full(size: int) -> int:
        raise OSError(28, "no memory")

    shared = Pool(portable=True).share({"w": BIG})
    held = descriptors()
    monkeypatch.setattr(memory, "memfd", full)
    with pytest.raises(OSError, match="no memory"):
        dumps([shared, BIG])
    assert descriptors() == held
    del shared
    assert descriptors() <= before + 1  # the pool's own block waits to be used again


def test_an_array_outlives_its_state_and_keeps_the_block() -> None:
    """A `load_state` may keep what it is given, and a user one array of a snapshot."""
    before = descriptors()
    pool, freed = Pool(portable=True), list[int]()
    mine: Any = pool.share({"w": BIG, "b": BIG})
    theirs: Any = loads(*dumps(mine, pool.again), lambda n, d, s: adopted(n, d, s, freed.append))
    kept_here, kept_there = mine["w"][5:].T, dict(theirs)["b"]
    number = mine.block.number
    del mine, theirs
    gc.collect()
    assert not freed
    pool.freed(freed)
    other = pool.share({"w": BIG + 1, "b": BIG + 1})
    assert np.array_equal(kept_here, BIG[5:].T)
    assert np.array_equal(kept_there, BIG)
    del kept_there
    assert freed == [number]
    pool.freed(freed)
    another: Any = pool.share({"w": BIG + 1, "b": BIG + 1})
    assert another.block.number != number, "still read here"
    del kept_here, other, another
    again: Any = pool.share({"w": BIG, "b": BIG})
    assert again.block.number in (number, number + 1, number + 2)
    del again
    pool.close()
    assert descriptors() == before


def test_what_else_a_state_holds_is_copied_as_it_is() -> None:
    odd: dict[str, Any] = {
        "w": BIG,
        "objects": np.array([1, "two"], dtype=object),
        "masked": np.ma.masked_array(np.arange(9000.0), np.arange(9000) % 2 == 1),
    }
    shared = Pool(portable=True).share(odd)
    odd["objects"][0] = 7
    assert list(shared["objects"]) == [1, "two"]
    came = across(shared)
    assert list(came["objects"]) == [1, "two"]
    assert came["masked"].sum() == odd["masked"].sum() == np.arange(0, 9000, 2).sum()


@pytest.mark.parametrize("array", [np.asfortranarray(BIG), np.asfortranarray(np.arange(9000.0).reshape(30, 20, 15))])
def test_the_order_of_an_array_in_memory_stays(array: Any) -> None:
    """Products of the same numbers in another order differ in their last bits."""
    came = across(array)
    assert came.strides == array.strides
    assert np.array_equal(came, array)


def test_a_memory_map_whose_file_was_replaced_travels_as_it_is(tmp_path: Path) -> None:
    np.arange(5000.0).tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float64, "r", shape=(5000,))
    np.zeros(5000).tofile(tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "rows")
    assert np.array_equal(across(mapped), np.arange(5000.0))


class Slices:
    """Makes the arrays that it is pickled by when it is pickled."""

    def __init__(self, rows: Any) -> None:
        self.parts: list[Any] = []
        self.rows = rows

    def __reduce__(self) -> Any:
        return Slices, (None,), None, (self.rows[k * 3000 : (k + 1) * 3000] for k in range(4))

    def extend(self, parts: Any) -> None:
        self.parts.extend(parts)

    def append(self, part: Any) -> None:
        self.parts.append(part)


def test_arrays_that_live_only_while_they_are_pickled_are_not_mixed_up(tmp_path: Path) -> None:
    np.arange(12_000.0).tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float64, "r", shape=(12_000,))
    assert np.array_equal(np.concatenate(across(Slices(mapped)).parts), np.arange(12_000.0))


def test_a_block_that_cannot_be_mapped_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(portable=True)
    message = dumps(pool.share({"w": BIG}), pool.again)
    pool.close()
    before = descriptors()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(12, "no memory")

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(OSError, match="no memory"):
        loads(*message)
    with pytest.raises(OSError, match="no memory"):
        Pool(portable=True).share({"w": BIG})
    with pytest.raises(OSError, match="no memory"):
        dumps([BIG])
    monkeypatch.undo()
    assert descriptors() == before - 1, "that of the message"
