"""Memory for copies of a state: read-only, page-aligned, filled anew only when nobody reads it any longer."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest

from asyncfit.executors.memory import dumps, loads
from asyncfit.pool import Pool, SharedState

BIG = np.random.default_rng(0).normal(size=(300, 40))
PORTABLE = pytest.mark.parametrize("portable", [False, True], ids=["plain", "portable"])


def address(array: Any) -> int:
    where: int = array.__array_interface__["data"][0]
    return where


def tail(array: Any) -> bytes:
    """What follows an array in its last page."""
    assert isinstance(array.base, np.ndarray)
    whole = array.base
    end = address(array) - address(whole) + array.nbytes
    return whole[end : -(-end // mmap.PAGESIZE) * mmap.PAGESIZE].tobytes()


ODD: dict[str, Any] = {
    "first": np.arange(7.0),
    "params": BIG,
    "flag": np.array(True),
    "big-endian": BIG.astype(">f4"),
    "turned": BIG.T,
    "gaps": BIG[::2, ::3],
    "empty": np.zeros((0, 3)),
    "single": np.array(1.5),
    "times": np.arange(4000, dtype="m8[ms]"),
    "texts": np.array(["é" * 20] * 1000),
    "records": np.zeros(2000, [("a", "f8"), ("b", "i4", (3,))]),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "masked": np.ma.masked_array(np.arange(9000.0), np.arange(9000) % 2 == 1),
    "scalar": np.float32(3),
    "step": 7,
    "name": "adam",
    "none": None,
    "bytes": np.arange(4095, dtype=np.uint8),
    "page": np.arange(4096, dtype=np.uint16).view(np.uint8)[:4096],
}


@PORTABLE
def test_whatever_a_state_holds_is_copied_and_read_only(portable: bool) -> None:
    live = copy.deepcopy(ODD)
    shared = Pool(portable=portable).share(live)
    assert isinstance(shared, SharedState)
    assert list(shared) == list(ODD), "in the order of the state"
    for name, value in ODD.items():
        if isinstance(value, np.ndarray):
            if value.dtype != object:
                live[name][...] = np.zeros((), value.dtype)
            assert type(shared[name]) is type(value)
            assert (shared[name].dtype, shared[name].shape) == (value.dtype, value.shape)
            assert np.array_equal(shared[name], value), name
            assert not shared[name].flags.writeable, name
        else:
            assert shared[name] is value
    live["objects"][0] = "another"
    assert shared["objects"][0] == {"a": 1}


@PORTABLE
def test_large_arrays_start_at_pages_with_nothing_but_zeros_behind_them(portable: bool) -> None:
    pool = Pool(portable=portable)
    for _ in range(2):
        shared: Any = pool.share(ODD)
        assert address(shared["params"].base) % mmap.PAGESIZE == 0
        assert shared.block.size % mmap.PAGESIZE == 0
        for name, array in shared.items():
            if type(array) is np.ndarray and array.nbytes >= 4096 and array.base is not None:
                assert address(array) % mmap.PAGESIZE == 0, name
                assert not any(tail(array)), name
        del shared, array
    assert pool.in_use == 0
    assert pool.idle == 1


@PORTABLE
def test_zeros_stay_behind_arrays_when_a_state_of_the_same_size_is_laid_out_otherwise(portable: bool) -> None:
    pool = Pool(portable=portable)
    full = pool.share({"a": np.ones(4096 * 5, np.uint8), "b": np.ones(4096 * 3, np.uint8)})
    del full
    other: Any = pool.share({"a": np.ones(4096 * 3 + 1, np.uint8), "b": np.ones(4096 * 3 + 1, np.uint8)})
    assert not any(tail(other["a"]))
    assert not any(tail(other["b"]))
    assert pool.idle == 0, "the block of the layout before is of no use any more"


def test_small_states_are_plain_copies() -> None:
    pool = Pool()
    small = pool.share({"w": np.ones(1000), "step": 7})
    assert type(small) is dict
    assert not small["w"].flags.writeable
    assert pool.in_use == pool.idle == 0


def test_plain_blocks_take_no_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pool = Pool()
    held = [pool.share({"w": BIG}) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len({address(state["w"]) for state in held}) == pool.in_use == 5


@PORTABLE
@pytest.mark.parametrize(
    "look",
    [
        lambda state: state["w"],
        lambda state: dict(state),
        lambda state: state["w"][5:].T[::3],
        lambda state: memoryview(state["w"]),
        lambda state: np.frombuffer(state["w"])[7:].reshape(-1, 1),
        lambda state: np.asarray(state["w"]).view(np.matrix),
        lambda state: state["w"].flat,
    ],
)
def test_a_block_is_filled_anew_only_when_its_last_view_is_gone(portable: bool, look: Any) -> None:
    pool = Pool(portable=portable)
    state: Any = pool.share({"w": BIG, "b": BIG})
    number = state.block.number
    view = look(state)
    del state
    gc.collect()
    assert pool.in_use == 1
    other: Any = pool.share({"w": BIG + 1, "b": BIG + 1})
    assert other.block.number != number
    del view
    assert pool.in_use == 1
    again: Any = pool.share({"w": BIG, "b": BIG})
    assert again.block.number == number
    assert np.array_equal(other["w"], BIG + 1)


@PORTABLE
def test_a_closed_pool_keeps_nothing_and_takes_nothing_from_those_who_still_read(portable: bool) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    pool = Pool(portable=portable)
    kept, other = pool.share({"w": BIG}), pool.share({"w": BIG + 1})
    del other
    pool.close()
    assert (pool.in_use, pool.idle) == (0, 0)
    assert np.array_equal(kept["w"], BIG)
    late = pool.share({"w": BIG})
    assert type(late) is dict
    del kept, late
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_state_that_cannot_be_copied_takes_no_block() -> None:
    class Torn(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise MemoryError(name)

    pool = Pool()
    with pytest.raises(MemoryError):
        pool.share(Torn(w=BIG))
    assert (pool.in_use, pool.idle) == (0, 1)


def test_a_state_in_plain_memory_goes_anywhere_as_a_plain_one() -> None:
    """From a run in a thread to another one in a process, or into somebody's file."""
    state = Pool().share(ODD | {"masked": 0})
    for got in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state), loads(*dumps(state))):
        assert type(got) is dict
        assert list(got) == list(ODD)
        assert np.array_equal(got["params"], BIG)
        assert np.array_equal(got["turned"], BIG.T)
        got["params"][0] = 0  # no longer shared with anybody
    assert np.array_equal(state["params"], BIG)


def test_a_state_of_a_closed_pool_is_handed_over_as_a_copy() -> None:
    pool = Pool(portable=True)
    state = pool.share({"w": BIG})
    pool.close()
    with open(os.devnull):  # takes the number of the descriptor that was closed
        assert np.array_equal(loads(*dumps(state))["w"], BIG)


@PORTABLE
def test_a_collection_amid_the_taking_of_a_block_does_not_wait_for_itself(
    portable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(portable=portable)
    held = [pool.share({"w": BIG})]
    made = pool._made

    def collected(*what: Any) -> Any:
        held.clear()  # calls the finalizer, in the very thread that has the lock
        return made(*what)

    monkeypatch.setattr(pool, "_made", collected)
    done = threading.Event()

    def share() -> None:
        held.append(pool.share({"w": BIG + 1}))
        done.set()

    threading.Thread(target=share, daemon=True).start()
    assert done.wait(20)
    assert (pool.in_use, pool.idle) == (1, 1)


@PORTABLE
def test_many_threads_that_let_go_at_once_lose_no_block(portable: bool) -> None:
    pool = Pool(portable=portable)
    wrong: list[object] = []

    def churn(number: int) -> None:
        for step in range(200):
            state = pool.share({"w": np.full(3000, number * 1000 + step)})
            kept = state["w"][5:]
            del state
            if not (kept == number * 1000 + step).all():
                wrong.append(kept)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.in_use == 0
    assert 1 <= pool.idle <= 16  # each has two at a time


def run(code: str) -> None:
    """A program of its own must end well and say nothing."""
    code = "import gc, os, signal, sys\nimport numpy as np\nfrom asyncfit.pool import Pool\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@PORTABLE
def test_a_forked_process_lets_go_of_states_while_the_lock_is_held_here(portable: bool) -> None:
    run(f"""
        pool = Pool(portable={portable})
        kept, other = pool.share({{"w": np.ones(9000)}}), pool.share({{"w": np.zeros(9000)}})
        with pool._lock:  # by a thread that the child does not have
            child = os.fork()
            if not child:
                signal.alarm(10)
                assert (kept["w"] == 1).all()
                del other, kept
                gc.collect()
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (kept["w"] == 1).all()
        assert pool.in_use == 2
    """)


def test_a_forked_process_keeps_what_it_holds_when_the_block_is_filled_anew_here() -> None:
    run("""
        pool = Pool()
        kept = pool.share({"w": np.ones(9000)})
        begin, go = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(10)
            os.read(begin, 1)
            os._exit(not (kept["w"] == 1).all())
        where = kept["w"].ctypes.data
        del kept
        kept = pool.share({"w": np.zeros(9000)})
        assert kept["w"].ctypes.data == where
        os.write(go, b".")
        assert os.waitpid(child, 0)[1] == 0
    """)


@PORTABLE
def test_states_that_are_still_held_when_the_interpreter_ends_do_no_harm(portable: bool) -> None:
    run(f"""
        class Late:
            def __init__(self, state):
                self.me, self.state = self, state  # only a collection, or nobody, lets go of it

            def __del__(self):
                assert self.state["w"][0] == 1

        pool = Pool(portable={portable})
        state = {{"w": np.ones(9000)}}
        kept = [pool.share(state), Late(pool.share(state)), memoryview(pool.share(state)["w"])]
        sys.modules["kept"] = kept
    """)
