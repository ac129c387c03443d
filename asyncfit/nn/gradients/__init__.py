"""Gradients of functions written in NumPy: they are run on arrays that note what is done with them.

`traced(function, x, …)` gives the function's value and a call that leads a gradient by the value back to one by each
array. It serves losses, activations and layers of users' own; those of this library bind their gradients by hand.
"""

from __future__ import annotations

from . import elementwise as _elementwise
from . import functions as _functions
from . import joining as _joining
from .tape import Unknown as Unknown
from .tape import Value as Value
from .tape import traced as traced

__all__ = ["Unknown", "Value", "traced"]

_RULES = _elementwise, _functions, _joining  # imported for the rules that they enter
