"""`kill -9` at any moment of a run that saves itself: started again it ends with the bits it would have had.

`ASYNCFIT_KILLS=200` kills two hundred times with each executor; the suite itself a few times.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asyncfit.formats import checkpoint_h5

KILLS = int(os.environ.get("ASYNCFIT_KILLS", "4"))
STORIES = max(1, KILLS // 4)
ROOT = Path(__file__).parent.parent.parent
SPAN = 0.6
"""Seconds that the training takes, more or less."""

pytestmark = pytest.mark.timeout(120 + 15 * KILLS)


def start(folder: Path, executor: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.run.survivor", str(folder), executor]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(program: subprocess.Popen[bytes], folder: Path) -> dict[str, Any]:
    _, said = program.communicate(timeout=60)
    assert program.returncode == 0, said.decode()
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.fixture(scope="module", params=["thread", "process"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return request.param, ended(start(folder, request.param), folder)


@pytest.mark.parametrize("story", range(STORIES))
def test_killed_at_any_moment(story: int, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    executor, expected = undisturbed
    rng, backup = random.Random(f"{executor} {story}"), tmp_path / "backup"
    kills = 0
    while kills < min(4, KILLS):
        program = start(tmp_path, executor)
        assert program.stdout is not None
        if rng.random() < 0.8:  # else it may not even have begun
            program.stdout.read(1)
        time.sleep(rng.random() * SPAN)
        program.kill()
        program.communicate()
        for path in backup.glob("checkpoint-*"):
            checkpoint_h5.read(str(path))
        if (tmp_path / "result.json").exists():  # it was done before the kill came, and begins anew
            (tmp_path / "result.json").unlink()
        else:
            kills += 1
    found = ended(start(tmp_path, executor), tmp_path)
    assert found == expected
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["result.json"], "nothing is left behind"
