"""Where a model can be saved: looked at before anything starts, so this imports nothing that a file needs."""

from __future__ import annotations

import os
from pathlib import Path

from asyncfit.errors import InvalidInput

__all__ = ["SUFFIXES", "WEIGHTS", "check_name", "check_path", "is_path"]

SUFFIXES = (".h5", ".hdf5")
WEIGHTS = ".weights.h5"
"""What Keras takes for a file of weights alone."""


def check_path(path: str | os.PathLike[str], *, weights: bool | None = False) -> Path:
    """`path` as a place where a model can be saved; what cannot work is refused before anything starts.

    Args:
        weights: for weights alone (True), a whole model (False), or either, as the suffix says (None).
    """
    name = check_name(path, weights=weights)
    parent = os.path.dirname(name) or "."
    if os.path.isdir(name):
        raise InvalidInput(f"{name} is a directory; a model is saved to a file")
    if os.path.lexists(name) and os.path.exists(name) and not os.path.isfile(name):
        raise InvalidInput(f"{name} is not a regular file")
    if not os.path.exists(parent):
        tilde = "; '~' is not expanded here, say Path(…).expanduser()" if name.startswith("~") else ""
        raise InvalidInput(f"{name}: its directory {parent} does not exist; create it first{tilde}")
    if not os.path.isdir(parent):
        raise InvalidInput(f"{name}: {parent} is not a directory")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InvalidInput(f"{name}: no permission to create files in {parent}")
    return Path(name)


def is_path(name: str) -> bool:
    """Whether the system takes this text for a path at all."""
    try:
        return b"\0" not in os.fsencode(name) and name != ""
    except UnicodeError:  # half a surrogate pair
        return False


def check_name(path: str | os.PathLike[str], *, weights: bool | None = False) -> str:
    """`path` as text, if its suffix is right: Keras chooses the format by it, `.weights.h5` for weights alone."""
    try:
        name = os.fspath(path)
    except TypeError:
        raise InvalidInput(f"a model is saved to a path (str or os.PathLike), not to {path!r}") from None
    if not isinstance(name, str):
        raise InvalidInput(f"a model is saved to a path of text, not of bytes: {name!r}")
    if not is_path(name):
        raise InvalidInput(f"{name!r} is no path")
    if weights is not False and name.endswith(WEIGHTS):
        return name
    if weights:
        stem = os.path.splitext(name)[0] or name
        raise InvalidInput(f"{name}: the name of a file of weights alone must end in .weights.h5: {stem}{WEIGHTS}")
    if name.endswith(WEIGHTS):
        raise InvalidInput(
            f"{name}: Keras takes .weights.h5 for a file of weights alone (save_weights); for the whole model say "
            f"{name.removesuffix(WEIGHTS)}.h5"
        )
    if not name.endswith(SUFFIXES):
        stem, suffix = os.path.splitext(name)
        keras = suffix.lower() == ".keras"
        what = "the .keras format is not supported" if keras else "the name must end in .h5"
        raise InvalidInput(f"{name}: {what}; save to {stem if stem != name else name}.h5")
    return name
