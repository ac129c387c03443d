"""What a snapshot of 75 MB costs compute: in pooled memory, as fresh copies, and as one bare `np.copyto`.

The state is that of a 1024-2048-2048-10 network with Adam: three flat arrays. The ways take turns in one process; each
snapshot is held while the next is taken, as the newest confirmed boundary is. Promise: at most one copy of the state
into touched memory, so a ratio of 1.10 at most for the pooled way. The same for a small state, in microseconds.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from asyncfit.pool import Pool, copy_state

PARAMETERS = 1024 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10


def of(parameters: int) -> dict[str, Any]:
    names = ("params", "optimizer/momentum", "optimizer/velocity")
    return {name: np.ones(parameters, np.float32) for name in names} | {"learning_rate": 0.001, "fits": 1}


def ways(state: dict[str, Any]) -> dict[str, Callable[[], object]]:
    pools = {"pooled": Pool(), "pooled, for a process": Pool(portable=True)}
    touched = [{name: np.array(value) for name, value in state.items()} for _ in range(2)]
    arrays = [name for name, value in state.items() if isinstance(value, np.ndarray)]

    def bare() -> object:
        touched.reverse()
        for name in arrays:
            np.copyto(touched[0][name], state[name])
        return touched[0]

    def held(copy: Callable[[dict[str, Any]], object]) -> Callable[[], object]:
        newest: deque[object] = deque(maxlen=1)
        return lambda: newest.append(copy(state))

    found = {"bare copyto": bare, "fresh copies": held(copy_state)}
    return found | {name: held(pool.share) for name, pool in pools.items()}


def measure(parameters: int, repeats: int) -> None:
    state = of(parameters)
    size = sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))
    found = ways(state)
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(repeats + 3):
        for name, copy in found.items():
            began = time.perf_counter()
            copy()
            if turn >= 3:
                times[name].append(time.perf_counter() - began)
    base = median(times["bare copyto"])
    print(f"a state of {size / 1e6:.3g} MB")
    for name, taken in times.items():
        print(f"  {name:24s}{median(taken) * 1e6:10.1f} µs  {median(taken) / base:6.2f}×")


def main(repeats: int) -> None:
    measure(PARAMETERS, repeats)
    measure(50_000, repeats * 10)
    measure(5_000, repeats * 50)
    measure(1_000, repeats * 50)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 41)
