"""What a checkpoint has of a run, and back: to the bit, and nothing that cannot be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import BadFile
from asyncfit.resuming import _history, packed_history


def kept(epochs: int) -> dict[str, Any]:
    numbers = list(range(epochs))
    return {
        "epoch": numbers,
        "history": {"loss": [math.pi * n for n in numbers], "late": [math.nan, -0.0, math.inf][: epochs // 2]},
        "epochs": {"loss": numbers, "late": numbers[:3][: epochs // 2]},
    }


@pytest.mark.parametrize("epochs", [0, 1, 63, 64, 65, 5000])
def test_a_history_comes_back(epochs: int) -> None:
    told, arrays = packed_history(kept(epochs))
    assert repr(_history(told, arrays)) == repr(kept(epochs))


def test_the_next_epoch_has_the_same_layout() -> None:
    one, other = (packed_history(kept(epochs))[1] for epochs in (20, 21))
    assert [array.shape for array in one.values()] == [array.shape for array in other.values()]


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1}, {"epoch": 10**6}, {"epoch": True}, {"series": None}, {"series": [["loss", 10**9, 1]]},
        {"series": [["loss", 1, -1]]}, {"series": [["loss", 1]]}, {"series": [[1, 1, 1]]},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    told, arrays = packed_history(kept(10))
    with pytest.raises(BadFile, match="is damaged"):
        _history(told | change, arrays)


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros(64, np.float32), np.zeros(0), None], ids=repr)
def test_arrays_of_another_kind_are_refused(array: Any) -> None:
    told, arrays = packed_history(kept(10))
    for name in arrays:
        broken = {other: value for other, value in (arrays | {name: array}).items() if value is not None}
        with pytest.raises(BadFile, match="is damaged"):
            _history(told, broken)
