"""What the numbers were computed with: bits are the same only for the same BLAS, kernels and threads."""

from __future__ import annotations

import ctypes
import functools
import glob
import os
from typing import Any

import numpy as np

__all__ = ["THREAD_VARIABLES", "blas"]

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What says, before a process starts, how many threads its BLAS uses."""


@functools.cache
def _library() -> Any:
    """The OpenBLAS that NumPy brought along, None if it is another one."""
    folder = os.path.dirname(np.__file__)
    for place in (f"{folder}.libs", f"{folder}/.dylibs", f"{folder}/.libs"):
        for file in sorted(glob.glob(f"{glob.escape(place)}/*openblas*")):
            try:
                return ctypes.CDLL(file)
            except OSError:
                continue
    return None


def _ask(what: str, kind: Any) -> Any:
    library = _library()
    for name in (f"scipy_openblas_{what}64_", f"scipy_openblas_{what}", f"openblas_{what}64_", f"openblas_{what}"):
        function = getattr(library, name, None)
        if function is not None:
            function.restype = kind
            return function()
    return None


def blas() -> dict[str, Any]:
    """`blas` (name and version), `kernels` (the family chosen for this CPU) and `threads`; "unknown" where not told."""
    shown: Any = np.show_config(mode="dicts")
    found = shown.get("Build Dependencies", {}).get("blas", {})
    kernels = _ask("get_corename", ctypes.c_char_p)
    threads = _ask("get_num_threads", ctypes.c_int)
    return {
        "blas": f"{found.get('name', 'unknown')} {found.get('version', '')}".strip(),
        "kernels": kernels.decode() if kernels else "unknown",
        "threads": threads or os.environ.get("OMP_NUM_THREADS", "unknown"),
    }
