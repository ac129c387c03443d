"""Batches of arrays."""

from __future__ import annotations

import gc
import pickle
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncfit.data import ArrayData, Source, permutation, plan_fit
from asyncfit.data import arrays as module
from asyncfit.data.arrays import Array

Copied = tuple[Array, Array | None, Array | None, int]


def collect(data: ArrayData, epoch: int = 0, start: int = 0) -> list[Copied]:
    """Copies: what is yielded is valid only until the next."""

    def copy(a: Array | None) -> Array | None:
        return None if a is None else a.copy()

    return [(x.copy(), copy(y), copy(w), n) for x, y, w, n in data.batches(epoch, start)]


def same(one: list[Copied], other: list[Copied]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())

    return len(one) == len(other) and all(
        all(equal(p, q) for p, q in zip(a[:3], b[:3], strict=True)) and a[3] == b[3]
        for a, b in zip(one, other, strict=True)
    )


def numbered(rows: int, width: int = 3) -> tuple[Array, Array, Array]:
    """Every row says which it is, in x, y and sample_weight."""
    number = np.arange(rows)
    x = number[:, None].astype(np.float32) + np.zeros(width, np.float32)
    return x, number, number.astype(np.float32)


@pytest.fixture(params=[64, 1000, 256 * 1024], ids=lambda b: f"window={b}")
def window_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one batch, of a few, and of all: what comes out must not depend on it."""
    monkeypatch.setattr(module, "WINDOW_BYTES", request.param)


@pytest.mark.usefixtures("window_bytes")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("steps_per_epoch", [None, 1, 2, 5, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 30, 31, 32])
def test_every_row_once_a_pass(batch_size: int, steps_per_epoch: int | None, shuffle: bool) -> None:
    data = ArrayData(*numbered(31), batch_size=batch_size, shuffle=shuffle, key=(5, 2), steps_per_epoch=steps_per_epoch)
    passes: dict[int, list[Copied]] = {}
    for epoch in range(80):
        batches = collect(data, epoch)
        assert len(batches) == data.steps(epoch)
        passes.setdefault(data.range_of(epoch).number, []).extend(batches)
    passes.popitem()  # perhaps not whole
    for number, batches in passes.items():
        sizes = [n for *_, n in batches]
        assert sizes == [batch_size] * (31 // batch_size) + [31 % batch_size] * bool(31 % batch_size)
        for x, y, w, n in batches:
            assert y is not None
            assert w is not None
            assert len(x) == len(y) == len(w) == n
            np.testing.assert_array_equal(x[:, 0], w)
            np.testing.assert_array_equal(y, w)
        rows = [int(row) for x, *_ in batches for row in x[:, 0]]
        assert rows == (permutation(31, (5, 2), number).tolist() if shuffle else list(range(31)))


@given(data=st.data(), rows=st.integers(1, 60), batch=st.integers(1, 70), shuffle=st.booleans())
def test_a_rewind_gives_the_same_bits_and_start_skips(
    data: st.DataObject, rows: int, batch: int, shuffle: bool
) -> None:
    steps = data.draw(st.none() | st.integers(1, 80), label="steps_per_epoch")
    source = ArrayData(*numbered(rows), batch_size=batch, shuffle=shuffle, key=(1, 1), steps_per_epoch=steps)
    epoch = data.draw(st.integers(0, 20), label="epoch")
    start = data.draw(st.integers(0, source.steps(epoch)), label="start")
    whole = collect(source, epoch)
    abandoned = source.batches(data.draw(st.integers(0, 20), label="another epoch"))
    next(abandoned)
    assert same(collect(source, epoch, start), whole[start:])
    assert same(collect(ArrayData(*numbered(rows), **settings(source)), epoch), whole)


def settings(source: ArrayData) -> dict[str, Any]:
    return source._settings()


KINDS: list[Any] = [
    pytest.param(lambda a: a.astype(np.float32), id="float32"),
    pytest.param(lambda a: a.astype(np.float64), id="float64"),
    pytest.param(lambda a: a.astype(np.float16), id="float16"),
    pytest.param(lambda a: a.astype(np.longdouble), id="longdouble"),
    pytest.param(lambda a: a.astype(">f4"), id="big-endian"),
    pytest.param(lambda a: a.astype(np.uint8), id="uint8"),
    pytest.param(lambda a: a.astype(np.int64), id="int64"),
    pytest.param(lambda a: (a % 2).astype(bool), id="bool"),
    pytest.param(lambda a: np.asfortranarray(a.astype(np.float32)), id="fortran"),
    pytest.param(lambda a: np.repeat(a.astype(np.float32), 2, 0)[::2], id="strided"),
    pytest.param(lambda a: a.astype(np.float32)[::-1][::-1].T.copy().T, id="transposed"),
    pytest.param(lambda a: np.flip(a.astype(np.float32)), id="reversed"),
    pytest.param(lambda a: np.broadcast_to(a.astype(np.float32)[:1], a.shape), id="broadcast"),
]


@pytest.mark.usefixtures("window_bytes")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", KINDS)
def test_any_array_arrives_as_contiguous_float32(make: Any, shuffle: bool) -> None:
    x = make(np.arange(60.0).reshape(20, 3))
    before = x.copy()
    data = ArrayData(x, batch_size=6, shuffle=shuffle, key=(3, 0))
    order = permutation(20, (3, 0), 0) if shuffle else np.arange(20)
    got = []
    for batch, y, w, _ in data.batches(0):
        assert batch.dtype == np.float32
        assert batch.flags.c_contiguous
        assert (y, w) == (None, None)
        got.append(batch.copy())
    np.testing.assert_array_equal(np.concatenate(got), x.astype(np.float32)[order])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", KINDS)
def test_a_users_own_model_gets_its_own_types_and_may_write_to_its_batches(make: Any, shuffle: bool) -> None:
    x = make(np.arange(60.0).reshape(20, 3))
    before = x.copy()
    for batch, *_ in ArrayData(x, batch_size=6, shuffle=shuffle, as_given=True).batches(0):
        assert batch.dtype == x.dtype.newbyteorder("=")
        batch[:] = 1
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("given", "arrives"),
    [("float64", "float32"), ("float16", "float32"), ("int8", "int64"), ("uint8", "int64"), ("bool", "int64")],
)
def test_types_of_targets(given: str, arrives: str) -> None:
    y = np.ones((4, 1), given)
    (_, got, weight, _), *_ = ArrayData(np.ones((4, 2)), y, np.ones(4), batch_size=4).batches(0)
    assert got is not None
    assert weight is not None
    assert (got.dtype, got.shape, weight.dtype) == (np.dtype(arrives), (4, 1), np.dtype("float32"))
    (_, as_float, *_), *_ = ArrayData(np.ones((4, 2)), y, batch_size=4, y_dtype=np.float32).batches(0)
    assert as_float is not None
    assert as_float.dtype == np.float32


def test_it_is_a_source() -> None:
    source: Source = ArrayData(*numbered(10), batch_size=4)
    assert (source.samples, source.batch_size, source.steps(0)) == (10, 4, 3)


def test_unshuffled_arrays_are_read_where_they_are_and_cannot_be_changed() -> None:
    x, y, w = numbered(10)
    for bx, by, bw, _ in ArrayData(x, y, w, batch_size=3).batches(0):
        assert by is not None
        assert bw is not None
        assert np.shares_memory(bx, x)
        assert np.shares_memory(by, y)
        assert np.shares_memory(bw, w)
        with pytest.raises(ValueError, match="read-only"):
            bx[0] = 1
    assert x.flags.writeable


def test_a_memory_map_stays_on_disk(tmp_path: Path) -> None:
    on_disk = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (100, 4))
    on_disk[:] = np.arange(100)[:, None]
    on_disk.flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = ArrayData(x, batch_size=8, shuffle=True)
    assert sorted(int(r) for b, *_ in data.batches(0) for r in b[:, 0]) == list(range(100))
    assert data.x is x
    (first, *_), *_ = ArrayData(x, batch_size=8).batches(0)
    assert np.shares_memory(first, x)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["float64", "strided", "fortran", "memory map"])
def test_the_whole_is_never_copied(kind: str, shuffle: bool, tmp_path: Path) -> None:
    if kind == "memory map":
        x: Array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (40_000, 50))
    else:
        x = np.zeros((40_000, 100 if kind == "strided" else 50), "f8", order="F" if kind == "fortran" else "C")
        x = x[:, ::2] if kind == "strided" else x
    tracemalloc.start()
    try:
        plan = plan_fit(x, np.zeros(len(x)), batch_size=32, shuffle=shuffle, validation_split=0.1)
        for _ in plan.read().train.batches(0):
            pass
        assert tracemalloc.get_traced_memory()[1] < 4e6 < x.nbytes / 3  # the order of the rows is 0.3 MB of it
    finally:
        tracemalloc.stop()


def test_big_rows_come_a_batch_at_a_time() -> None:
    x = np.zeros((6, 300_000), np.float32)
    data = ArrayData(x, batch_size=2, shuffle=True)
    batches = data.batches(0)
    one, two = next(batches)[0], next(batches)[0]
    assert np.shares_memory(one, two)  # hence "valid only until the next is asked for"


def test_closing_an_iterator_early_leaves_its_buffers_for_the_next_one_only() -> None:
    data = ArrayData(*numbered(64), batch_size=4, shuffle=True)
    iterators = [data.batches(0) for _ in range(5)]
    firsts = [next(i)[0] for i in iterators]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(firsts) for b in firsts[:i])
    del iterators
    gc.collect()
    assert len(data._spare) == 1
    again = next(data.batches(0))[0]
    assert any(np.shares_memory(again, f) for f in firsts)


def test_two_interleaved_iterators_do_not_disturb_each_other() -> None:
    data = ArrayData(*numbered(100), batch_size=7, shuffle=True)
    expected = collect(data, 0), collect(data, 1)
    mixed: tuple[list[Any], list[Any]] = [], []
    for pair in zip(data.batches(0), data.batches(1), strict=True):
        for batch, into in zip(pair, mixed, strict=True):
            into.append(tuple(a.copy() if isinstance(a, np.ndarray) else a for a in batch))
    assert same(mixed[0], expected[0])
    assert same(mixed[1], expected[1])


def test_threads_may_each_read() -> None:
    data = ArrayData(*numbered(300), batch_size=7, shuffle=True)
    expected = [collect(data, epoch) for epoch in range(6)]
    got: dict[int, bool] = {}

    def read(epoch: int) -> None:
        got[epoch] = all(same(collect(data, epoch), expected[epoch]) for _ in range(10))

    threads = [threading.Thread(target=read, args=(e,)) for e in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == dict.fromkeys(range(6), True)


def test_it_travels_to_another_process_and_onto_other_arrays() -> None:
    data = ArrayData(*numbered(20), batch_size=6, shuffle=True, key=(1, 2), steps_per_epoch=2)
    next(data.batches(0))
    expected = collect(data, 1)
    assert same(collect(pickle.loads(pickle.dumps(data)), 1), expected)
    assert same(collect(data.like(*numbered(20)), 1), expected)


@pytest.mark.parametrize("start", [-1, 5])
def test_a_start_outside_the_epoch_is_refused_at_once(start: int) -> None:
    with pytest.raises(ValueError, match="epoch 0 has 4 batches"):
        ArrayData(*numbered(10), batch_size=3).batches(0, start)
