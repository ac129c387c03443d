"""The tests of the ledger are tests: each of these mistakes, made on purpose, is caught by them."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import asyncfit.compute
import asyncfit.executors.loopback
import asyncfit.ledger

from .driver import Driver
from .lockstep import Lockstep, Setup, Trace
from .test_ledger import EVERY, check_brackets

LEDGER, COMPUTE = asyncfit.ledger, asyncfit.compute

MUTATIONS = [
    pytest.param(
        LEDGER, [("elif report.era == self._era and not self._deaf", "elif not self._deaf")], id="no-era-check"
    ),
    pytest.param(
        LEDGER,
        [("            self._era += 1\n            self._held.clear()\n", "            self._era += 1\n")],
        id="held-reports-kept-at-rollback",
    ),
    pytest.param(COMPUTE, [("            self.progress.step = hold.step\n", "")], id="step-not-put-back"),
    pytest.param(
        COMPUTE,
        [("self._ahead = 0 if held else self.work.lookahead", "self._ahead = self.work.lookahead")],
        id="train-begin-not-lock-step",
    ),
    pytest.param(
        LEDGER,
        [
            (
                "                self._todo.append(EpochBegin)\n        elif kind is EpochBegin:",
                "                self._todo.append(EpochBegin)\n                if report.held:\n"
                "                    self._confirm()\n        elif kind is EpochBegin:",
            ),
            ("            elif report.held:\n                self._confirm()\n", ""),
        ],
        id="confirmed-before-epoch-begin",
    ),
    pytest.param(
        LEDGER,
        [("self._bound.merge(decision)", "decision.merge(self._bound)\n            self._bound = decision")],
        id="first-decision-wins",
    ),
    pytest.param(
        LEDGER,
        [
            ("        self._bound = Decision()\n        self._is_open = False\n", "        self._is_open = False\n"),
            ("        self._send(End(validating=self._validating))", "        self._send(End(self._change()))"),
        ],
        id="decisions-applied-on-failure",
    ),
    pytest.param(
        COMPUTE,
        [("                self._go_back(hold)\n            if end", "            if end")],
        id="end-does-not-put-back",
    ),
    pytest.param(
        LEDGER,
        [
            ("        self._restore = None\n        self._bound = Decision()", "        self._bound = Decision()"),
            (
                "        self._send(End(validating=self._validating))",
                "        self._send(End(None, self._restore and self._restore.value))",
            ),
        ],
        id="restore-on-cancel",
    ),
    pytest.param(
        LEDGER, [("if asked is None or asked.seq != event.seq:", "if asked is None:")], id="late-answer-counts"
    ),
    pytest.param(
        LEDGER,
        [
            (
                "                self._todo.append(EpochBegin)\n            return",
                "                pass\n            return",
            )
        ],
        id="hole-after-cancel",
    ),
    pytest.param(
        LEDGER, [("        if logs or report.complete:\n", "        if True:\n")], id="logs-of-an-epoch-of-no-batches"
    ),
    pytest.param(LEDGER, [("            self._ahead = 0\n", "")], id="no-lock-step-after-a-change"),
    pytest.param(
        LEDGER,
        [("elif kind is BatchEnd and report.snapshot is not None:", "elif False:")],
        id="copies-of-batches-never-published",
    ),
    pytest.param(
        LEDGER,
        [("        if unheld:\n            self._send(Published(again))\n", "")],
        id="copies-of-boundaries-never-published",
    ),
    pytest.param(
        COMPUTE,
        [("        self._batch_held = self._unpublished = 0\n", "        self._batch_held = 0\n")],
        id="copies-undone-never-published",
    ),
    pytest.param(COMPUTE, [("        self._unpublished += 1\n", "")], id="copies-not-counted"),
]  # fmt: skip


def mutant(module: types.ModuleType, changes: list[tuple[str, str]]) -> types.ModuleType:
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
        source = source.replace(old, new)
    made = types.ModuleType(module.__name__)
    made.__file__, made.__package__ = module.__file__, "asyncfit"
    before = sys.modules[module.__name__]
    sys.modules[module.__name__] = made  # dataclasses look their module up
    try:
        exec(compile(source, module.__file__, "exec"), made.__dict__)
    finally:
        sys.modules[module.__name__] = before
    return made


def random_setup(rng: random.Random) -> Setup:
    kinds = frozenset(rng.sample(EVERY, rng.randrange(len(EVERY) + 1)))
    return Setup(
        seed=rng.randrange(2**32), epochs=rng.randrange(1, 5), per_epoch=rng.randrange(1, 4),
        val_batches=rng.randrange(3), fail_mod=rng.choice([0, 0, 7, 23]), kinds=kinds, batch_events=True,
        busy=rng.choice([1, 2, 4]), errors=rng.random() < 0.3,
    )  # fmt: skip


def disagreement(ledger: Callable[..., asyncfit.ledger.Ledger], seed: int) -> bool:
    """Whether one random run, with or without a cancel from outside, shows the mistake."""
    rng = random.Random(seed)
    setup, cancel = random_setup(rng), seed % 3 == 0
    outside = {"outside": "cancel", "outside_after": rng.randrange(30), "outside_open": seed % 2 == 0} if cancel else {}
    run = Driver(setup, rng, rng.randrange(4), rng.choice([1, 3, 100]), ledger_class=ledger, **outside)  # type: ignore[arg-type]
    try:
        trace = run.run()
        check_brackets(run)
    except Exception:
        return True
    oracle = Lockstep(setup)
    expected = [oracle.run()]
    if cancel and run.requests:
        expected += [Lockstep(setup, ("cancel", place)).run() for place, _, _ in oracle.positions]
    mine = Trace(trace.events, trace.final)
    late = bool(run.ledger.errors)
    return not any(mine.events == other.events and (late or mine.final == other.final) for other in expected)


def test_the_ledger_as_it_is_agrees() -> None:
    assert not any(disagreement(asyncfit.ledger.Ledger, seed) for seed in range(300))


@pytest.mark.parametrize(("module", "changes"), MUTATIONS)
def test_a_mistake_is_caught(
    module: types.ModuleType, changes: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = mutant(module, changes)
    ledger = asyncfit.ledger.Ledger
    if module is COMPUTE:
        monkeypatch.setattr(asyncfit.executors.loopback, "Compute", changed.Compute)
    else:
        ledger = changed.Ledger
    assert any(disagreement(ledger, seed) for seed in range(3000))
