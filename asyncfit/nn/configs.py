"""Configs of sequential models: written in the one dialect that all read, read in each dialect there is.

Written (formats.md 7.5): Keras 2 style with an explicit InputLayer (`batch_input_shape`), `dtype` "float32",
initializers as `{class_name, config}`. Read: that; Keras 3 (`batch_shape`, dtype policies, `module`, a
`build_input_shape`); TF.js (no InputLayer, `batch_input_shape` on the first layer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncfit.errors import InvalidInput
from asyncfit.names import unknown

from .custom import reading_with
from .layers import KINDS, InputLayer, Layer

__all__ = ["read", "write"]


def write(name: str, layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "name": name,
        "layers": [{"class_name": type(layer).__name__, "config": layer.get_config()} for layer in layers],
    }


def read(config: Mapping[str, Any], custom: Mapping[str, type[Layer]]) -> tuple[str | None, list[Layer]]:
    """Name and layers of a Sequential config, with or without `{"class_name": "Sequential", "config": …}` around."""
    class_name = config.get("class_name")
    if class_name is not None:
        if class_name != "Sequential":
            raise InvalidInput(f"a model of class {class_name!r} cannot be read; only 'Sequential' can")
        config = config.get("config", {})
    entries = config.get("layers")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InvalidInput(f"the config of a Sequential model needs a list 'layers', not {entries!r}")
    layers: list[Layer] = []
    with reading_with(custom):
        for entry in entries:
            if not isinstance(entry, Mapping) or "class_name" not in entry:
                raise InvalidInput(f"a layer's config is {{'class_name': …, 'config': …}}, not {entry!r}")
            kind, settings = str(entry["class_name"]), entry.get("config") or {}
            cls = custom.get(kind) or KINDS.get(kind)
            if cls is None:
                raise InvalidInput(unknown("layer class", kind, [*KINDS, *custom]))
            if not layers and cls is not InputLayer:
                shape = settings.get("batch_input_shape") or settings.get("batch_shape")
                shape = shape or config.get("build_input_shape")
                if shape is not None:
                    layers.append(InputLayer(shape[1:]))
            layers.append(cls.from_config(settings))
    return config.get("name"), layers
