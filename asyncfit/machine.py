"""What the numbers were computed with: bits are the same only for the same BLAS, kernels and threads."""

from __future__ import annotations

import ctypes
import functools
import glob
import os
from typing import Any

import numpy as np

__all__ = ["THREAD_VARIABLES", "blas", "function"]

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


def function(name: str) -> tuple[Any, Any] | None:
    """A function of OpenBLAS as ctypes has it, and the type of its whole numbers; None if there is none such.

    `name` as in its header, `openblas_get_corename` or `cblas_saxpy`; builds put parts of their own around it.
    """
    library = _library()
    for begin in ("scipy_", ""):
        for end, whole in (("64_", ctypes.c_int64), ("", ctypes.c_int32)):
            found = getattr(library, f"{begin}{name}{end}", None)
            if found is not None:
                return found, whole
    return None


def _ask(what: str, kind: Any) -> Any:
    found = function(f"openblas_{what}")
    if found is None:
        return None
    found[0].restype = kind
    return found[0]()


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
