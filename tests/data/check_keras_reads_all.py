"""`check_keras_reads.py` for each `.h5` in a folder, in one process. Needs Keras.

::

    KERAS_BACKEND=torch python tests/data/check_keras_reads_all.py folder [tolerance]
"""

from __future__ import annotations

import sys
from pathlib import Path

from check_keras_reads import main as check  # type: ignore[import-not-found,unused-ignore]

__all__ = ["main"]


def main(folder: str, tolerance: str = "2e-5") -> int:
    failed = 0
    for path in sorted(Path(folder).glob("*.h5")):
        print(f"{path}:")
        failed += check(str(path), None, tolerance)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
