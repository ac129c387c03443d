"""mypy sees what users write as they would: `tests/typing_/` is checked with the settings of the project."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(path for path in (Path(__file__).parent / "typing_").glob("use_*.py"))


@pytest.mark.slow
def test_mypy_accepts_what_users_write() -> None:
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, FILES)], cwd=root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_mypy_reads_runs_as_well(path: Path) -> None:
    try:
        importlib.import_module(f"tests.typing_.{path.stem}")
    except TypeError:  # pragma: no cover
        pytest.fail("refused at run time")
