"""Every async test runs on asyncio, on asyncio with uvloop, and on trio: mark it with `pytest.mark.anyio`."""

from __future__ import annotations

import gc
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


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loop that the test runs on."""
    return request.param
