"""Runs the README's Python code as a reader would, each block in a process of its own: `python tests/readme.py`.

A block that is followed by a plain block, "prints", must print that. Numbers may differ in their last digits: they
depend on the kernels that the machine's BLAS chooses.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
NUMBER = re.compile(r"-?\d+\.\d+")


def blocks(text: str) -> Iterator[tuple[str, str | None]]:
    """Each Python block with the output that the README shows for it."""
    pattern = r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?"
    for found in re.finditer(pattern, text, re.DOTALL):
        yield found[1], found[2]


def differs(shown: str, printed: str) -> str | None:
    """How the output differs from what is shown, None if it does not."""
    one, two = shown.strip().splitlines(), printed.strip().splitlines()
    if len(one) != len(two):
        return f"{len(two)} lines instead of {len(one)}"
    for a, b in zip(one, two, strict=True):
        if NUMBER.sub("#", a) != NUMBER.sub("#", b):
            return f"{b!r} instead of {a!r}"
        for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=True):
            if abs(float(x) - float(y)) > 0.02 * max(1.0, abs(float(x))):
                return f"{b!r} instead of {a!r}"
    return None


def main() -> int:
    failures = 0
    found = list(blocks(README.read_text()))
    for number, (code, shown) in enumerate(found):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
            )
        wrong = done.stderr if done.returncode else differs(shown, done.stdout) if shown is not None else None
        print(f"   block {number + 1}: {'ok' if wrong is None else wrong}")
        failures += wrong is not None
    return 1 if failures or not found else 0


if __name__ == "__main__":
    sys.exit(main())
