"""Checkpoint files: an `.h5` that Keras opens as a model, with all that a run goes on with in a group of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncfit.checkpoints import write_whole
from asyncfit.errors import BadFile

from . import keras_h5
from .saved_model import Array, SavedModel

__all__ = ["Saved", "Writer", "read", "read_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        model: what Keras reads; None for a model of one's own.
        arrays: by free names.
        run: all else, as JSON types.
    """

    model: SavedModel | None
    arrays: Mapping[str, Array]
    run: Mapping[str, Any]


class Writer:
    """Writes one checkpoint after the other."""

    def write(self, path: str, saved: Saved) -> int:
        """Whole or not there, durable when it returns; how many bytes."""
        import h5py

        buffer = io.BytesIO(b"" if saved.model is None else keras_h5.to_bytes(saved.model))
        with h5py.File(buffer, "a" if saved.model is not None else "w") as file:
            group = file.create_group("asyncfit_run")
            group["run"] = np.frombuffer(json.dumps(saved.run).encode(), np.uint8)
            for name, array in saved.arrays.items():
                group.create_dataset(f"arrays/{name}", data=array)
        data = buffer.getvalue()
        write_whole(path, data)
        return len(data)


def read(path: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """What is in it. Raises FileNotFoundError and BadFile."""
    import h5py

    data = keras_h5.read_bytes(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            group = file["asyncfit_run"]
            run = json.loads(bytes(group["run"][()]))
            arrays: dict[str, Array] = {}
            if "arrays" in group:
                group["arrays"].visititems(
                    lambda name, item: arrays.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
                )
    except Exception as error:
        raise BadFile(f"{path}: no whole checkpoint ({error})") from error
    return run, arrays


def read_run(path: str) -> dict[str, Any]:
    """The same without the arrays."""
    return read(path)[0]
