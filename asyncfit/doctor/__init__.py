"""What decides the speed here, and what to set: `python -m asyncfit.doctor`.

`facts.py` looks around, `speed.py` measures for a second, `advice.py` makes of the facts what a user should do (pure
functions, so that any machine can be tried on any other), `report.py` puts it into words.
"""

from __future__ import annotations

from .advice import Advice as Advice
from .advice import advise as advise
from .facts import Facts as Facts
from .facts import collect as collect
from .report import as_dict as as_dict
from .report import as_text as as_text
from .speed import Speed as Speed
from .speed import measure as measure

__all__ = ["Advice", "Facts", "Speed", "advise", "as_dict", "as_text", "collect", "measure"]
