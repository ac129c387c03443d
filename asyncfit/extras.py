"""Libraries that are not part of the core: imported when they are used, named with their install command if missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__all__ = ["load", "require"]


def require(module: str, *, extra: str, what: str) -> None:
    """Raise now if `module` is not installed, without importing it: for constructors.

    Raises:
        ImportError: it is not; the message gives the command that installs it.
    """
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        found = False
    if not found:
        raise ImportError(_missing(module, extra, what), name=module)


def load(module: str, *, extra: str, what: str) -> Any:
    """The module, imported.

    Raises:
        ImportError: it is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(_missing(module, extra, what), name=error.name) from error


def _missing(module: str, extra: str, what: str) -> str:
    return f"{what} needs {module.partition('.')[0]}, which is not installed: pip install 'asyncfit[{extra}]'"
