"""Names as people type them: the nearest known one, camel case, and the sentence that tells."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["nearest", "snake", "unknown"]


def snake(name: str) -> str:
    """As Keras names layers: `Conv2D` → `conv2d`, `PReLU` → `p_re_lu`, `onEpochEnd` → `on_epoch_end`."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely means, camel case included; None if nothing is near."""
    import difflib  # only mistakes need it

    candidates = {k.lower().replace("_", ""): k for k in known}
    found = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), candidates, 1, 0.6)
    return candidates[found[0]] if found else None


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """The sentence for an unknown name: `unknown loss 'mze'; did you mean 'mse'? Known: …`"""
    known = sorted(known)
    guess = nearest(name, known) if isinstance(name, str) else None
    hint = f"did you mean {guess!r}? " if guess else ""
    return f"unknown {what} {name!r}; {hint}known: {', '.join(known)}"
