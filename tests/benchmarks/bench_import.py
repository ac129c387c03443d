"""What `import asyncfit` costs beyond `import numpy` and `import anyio`, which it needs anyway.

Fresh interpreters, alternating; printed are milliseconds of the import statements and their ratio.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

USED = "import numpy, numpy.random, anyio, asyncio, anyio.abc, anyio.lowlevel, anyio.to_thread"
WHAT = {
    "numpy and anyio": "import numpy, anyio",
    "the same, used": USED,  # anyio imports most of itself, and asyncio, when it is first used
    "asyncfit": "import asyncfit",
    "h5py": "import h5py",
}


def once(statement: str) -> float:
    code = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout) * 1000


def main(repeats: int) -> None:
    took: dict[str, list[float]] = {name: [] for name in WHAT}
    for _ in range(repeats + 1):
        for name, statement in WHAT.items():
            took[name].append(once(statement))
    for name, all_of_them in took.items():
        print(f"{name:<16} {min(all_of_them[1:]):6.1f} ms (median {median(all_of_them[1:]):6.1f})")
    for name in ("numpy and anyio", "the same, used"):
        print(f"ratio asyncfit / {name}: {min(took['asyncfit'][1:]) / min(took[name][1:]):.2f}")
    print("h5py is imported when a file is first touched")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
