"""Damaged and hostile files by the thousand: `BadFile` or something whole, in bounded memory and time.

The readers run in a process of their own, which may not crash, hang, or ask for more memory than it should; `fuzz.py`
does the damage. ASYNCFIT_FUZZ=20000 tries that many files of each kind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from asyncfit import modelfile
from asyncfit.formats.checkpoint_h5 import Writer

from .kept import kept, trained

ROOT = Path(__file__).parent.parent.parent
DATA = Path(__file__).parent.parent / "data"
NUMBER = int(os.environ.get("ASYNCFIT_FUZZ", "100"))
SEED = os.environ.get("ASYNCFIT_FUZZ_SEED", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    best = np.arange(600.0)
    saved = kept(trained(), {"history": {"loss": [0.5, 0.25]}, "position": {"epoch": 1}}, **{"callbacks/0/best": best})
    assert saved.model is not None
    Writer().write(folder / "checkpoint.h5", saved)
    modelfile.write(saved.model, folder / "model.h5")
    modelfile.write(saved.model, folder / "model.weights.h5")
    (folder / "keras.h5").write_bytes((DATA / "keras_adam.h5").read_bytes())
    with h5py.File(folder / "model.h5", "r") as old, h5py.File(folder / "newest.h5", "w", libver="latest") as new:
        _repacked(old, new)
    with h5py.File(folder / "model.h5", "r") as old, h5py.File(folder / "packed.h5", "w") as new:
        _repacked(old, new, compression="gzip", shuffle=True)
    return folder


def _repacked(old: h5py.Group, new: h5py.Group, **how: object) -> None:
    """The same anew, so that groups are kept in the way of the new file."""
    for name, value in old.attrs.items():
        new.attrs[name] = value
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _repacked(item, new.create_group(name), **how)
        elif item.size < 2:
            new[name] = item[()]
        else:
            new.create_dataset(name, data=item[()], **how)


CASES = [
    ("checkpoint.h5", "checkpoint"),
    ("checkpoint.h5", "model"),
    ("model.h5", "model"),
    ("keras.h5", "model"),
    ("newest.h5", "model"),
    ("packed.h5", "model"),
    ("model.weights.h5", "weights"),
    ("keras.h5", "weights"),
]


@pytest.mark.timeout(120 + NUMBER)
def test_every_file_gives_an_error_or_is_read(whole: Path) -> None:
    files = [word for name, kind in CASES for word in (kind, str(whole / name))]
    command = [sys.executable, "-W", "error", "-m", "tests.formats.fuzz", SEED, str(NUMBER), *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode} at {done.stdout[-2500:]}\n{done.stderr[-2500:]}"
    taken = [int(line.split()[0]) for line in done.stdout.splitlines() if "were taken" in line]
    assert len(taken) == len(CASES)
    assert all(0 < number < NUMBER for number in taken), "some changes do no harm, and some do"
