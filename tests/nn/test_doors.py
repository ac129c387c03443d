"""The public modules beside `asyncfit.nn` export what they list, and `asyncfit.nn` stays below the async half."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import asyncfit

ROOT = Path(asyncfit.__file__).parent


@pytest.mark.parametrize(
    "name",
    [
        "activations",
        "constraints",
        "initializers",
        "layers",
        "losses",
        "metrics",
        "optimizers",
        "optimizers.schedules",
        "regularizers",
    ],
)
def test_doors_list_what_they_export(name: str) -> None:
    door = importlib.import_module(f"asyncfit.{name}")
    imported = {
        alias.asname for node in ast.parse(Path(door.__file__ or "").read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__" for alias in node.names
    }  # fmt: skip
    assert imported == set(door.__all__)
    assert all(hasattr(door, exported) for exported in door.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "nn").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nn_imports_numpy_errors_and_names_only(path: Path) -> None:
    """But for `blas.py`, which asks the machine for NumPy's BLAS."""
    modules = {
        "bisect",
        "contextlib",
        "contextvars",
        "copy",
        "inspect",
        "math",
        "re",
        "time",
        "numpy",
        "numpy.typing",
        "secrets",
    }
    ours = {"asyncfit.errors", "asyncfit.names"}
    if path.name == "blas.py":
        modules, ours = modules | {"ctypes"}, {"asyncfit"}
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(a.name in modules for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("asyncfit"):
            assert node.module in ours or node.module.startswith("asyncfit.nn")
