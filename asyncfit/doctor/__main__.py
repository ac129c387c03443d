"""`python -m asyncfit.doctor`: prints what decides the speed here, and what to set. The exit status is 0."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from . import advise, as_dict, as_text, collect, measure

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m asyncfit.doctor", description="What decides the speed of training here."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--no-speed", action="store_true", help="leave out the speed test, which takes about a second")
    chosen = parser.parse_args(arguments)
    facts = collect()
    speed = None if chosen.no_speed else measure()
    advice = advise(facts, speed)
    if chosen.json:
        print(json.dumps(as_dict(facts, speed, advice), indent=2))
        return 0
    text = as_text(facts, speed, advice)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))  # a console may know no µ
    return 0


if __name__ == "__main__":
    sys.exit(main())
