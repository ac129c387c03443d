"""What a model file holds, in one neutral form that every format reads into and writes from.

Plain values and arrays only: nothing here knows of layers that compute, of HDF5 or of files. Configurations
are in one dialect, the style of Keras 2, which Keras 2, Keras 3 and TF.js all read; `keras2_style` brings the
other ones to it, so that whoever builds a network from a file meets one spelling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "LayerWeights", "SavedModel", "keras2_style"]

Array = npt.NDArray[Any]

# What Keras 3 adds around a serialized object, and Keras 2 and TF.js do not know.
_KERAS3_ONLY = {"module", "registered_name", "build_config", "compile_config", "shared_object_id"}


class LayerWeights(NamedTuple):
    """The weights of one layer, trainable ones first; names are relative to it: `kernel`, `bias`."""

    layer: str
    weights: list[tuple[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model as a file holds it.

    Attributes:
        config: `{"class_name": "Sequential", "config": {"name": …, "layers": [{"class_name", "config"},
            …]}}`.
        weights: one entry a layer in model order, also for layers without weights, not for the InputLayer.
        training_config: `loss`, `loss_weights`, `metrics`, `weighted_metrics`, `optimizer_config`; None if
            the model
            was never compiled.
        optimizer_weights: `iteration`, `learning_rate`, then the slots in Keras's order; empty if there are
            none.
        notes: what only this library knows of, under `asyncfit`; others pass over it.
    """

    config: dict[str, Any]
    weights: list[LayerWeights]
    training_config: dict[str, Any] | None = None
    optimizer_weights: list[tuple[str, Array]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


def keras2_style(value: Any) -> Any:
    """A copy of a configuration, or of a part of one, in the dialect that `SavedModel` promises.

    `DTypePolicy` dicts become their name, `module` and its like go, an `InputLayer` says `batch_input_shape`,
    a Sequential has a dict with an explicit `InputLayer` first; NumPy scalars and tuples become plain JSON
    values.
    """
    if isinstance(value, dict):
        if "class_name" not in value or "config" not in value:
            return {
                key: _found_by_module(item) if key in ("activation", "fn", "learning_rate") else keras2_style(item)
                for key, item in value.items()
            }
        kind, config = value["class_name"], keras2_style(value["config"])
        if kind == "DTypePolicy" and isinstance(config, dict) and "name" in config:
            return config["name"]
        if kind == "InputLayer" and isinstance(config, dict) and "batch_shape" in config:
            config["batch_input_shape"] = config.pop("batch_shape")
        if kind == "Sequential":
            config = _explicit_input(config)
        kept = {key: item for key, item in value.items() if key not in _KERAS3_ONLY}
        return {key: config if key == "config" else keras2_style(item) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [keras2_style(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _found_by_module(value: Any) -> Any:
    """A layer in place of an activation, a metric's function or a schedule: Keras finds them by their module only."""
    found = keras2_style(value)
    if isinstance(value, dict) and isinstance(found, dict) and "module" in value:
        return {"module": value["module"], **found}
    return found


def _explicit_input(config: Any) -> Any:
    """A Sequential's config as a dict; a first layer's `batch_input_shape` becomes an InputLayer."""
    if isinstance(config, list):  # as the first Keras 2 versions wrote it
        config = {"name": "sequential", "layers": config}
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], dict):
        return config
    first = layers[0].get("config")
    if layers[0].get("class_name") == "InputLayer" or not isinstance(first, dict):
        return config
    if "batch_input_shape" not in first:
        return config
    first = dict(first)
    shape = first.pop("batch_input_shape")
    name = f"{first.get('name', layers[0].get('class_name'))}_input"
    dtype = first.get("dtype", "float32")
    source = {
        "class_name": "InputLayer",
        "config": {"name": name, "batch_input_shape": shape, "dtype": dtype},
    }
    return {**config, "layers": [source, {**layers[0], "config": first}, *layers[1:]]}
