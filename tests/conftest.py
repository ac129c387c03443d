"""Every async test runs on asyncio, on asyncio with uvloop, and on trio: mark it with `pytest.mark.anyio`."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("asyncfit", deadline=None)
settings.load_profile("asyncfit")

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


def pytest_collection_finish() -> None:
    """Many tests collect garbage: let them not walk through thousands of collected tests each time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `in_turn` are slow, and the loop matters little to them: each runs on one loop, the next on another.

    `ASYNCFIT_LOOPS=all` runs them all on all loops.
    """
    if os.environ.get("ASYNCFIT_LOOPS") == "all":
        return
    names = [str(param.id) for param in BACKENDS]
    places, kept, left_out = dict[str, int](), list[pytest.Item](), list[pytest.Item]()
    seen = Counter[str]()
    for item in items:
        callspec: Any = getattr(item, "callspec", None)
        loop = callspec.params.get("anyio_backend") if callspec is not None else None
        if loop is None or item.get_closest_marker("in_turn") is None:
            kept.append(item)
            continue
        ids = [part for part in callspec.id.split("-") if part not in names]
        case = "-".join([item.nodeid.partition("[")[0], *ids])
        place = places.setdefault(case, len(places))
        mine = place % len(BACKENDS) == seen[case] % len(BACKENDS)
        seen[case] += 1
        (kept if mine else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loop that the test runs on."""
    return request.param
