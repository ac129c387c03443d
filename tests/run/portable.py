"""What worker processes import in the tests: models whose every batch does as the test says through a directory."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import asyncfit as af
from asyncfit import metrics

from .helpers import Linear


class Watched(Linear):
    """Says in `folder` where it is, and does there what it is told: files named after what to do and at which batch."""

    def __init__(self, folder: str | Path, *, floats: int = 2) -> None:
        super().__init__()
        self.folder = str(folder)
        self.ballast = np.zeros(floats)
        self.tests = 0

    def _do(self, stage: str, number: int) -> None:
        here = Path(self.folder)
        (here / f"{stage}-{number}").write_text(str(os.getpid()))
        while (here / f"wait-{stage}-{number}").exists():
            time.sleep(0.002)
        if (here / f"raise-{stage}-{number}").exists():
            raise ArithmeticError(f"at {stage} {number}")
        if (here / f"exit-{stage}-{number}").exists():
            os._exit(7)
        if (here / f"crash-{stage}-{number}").exists():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (here / f"spin-{stage}-{number}").exists():
            while True:
                pass

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self._do("batch", self.batches)
        self.ballast += 1
        return super().train_batch(x, y, sample_weight)

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self._do("test", self.tests)
        self.tests += 1
        return super().test_batch(x, y, sample_weight)

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "ballast": self.ballast}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.ballast = state["ballast"].copy()


class Unusual(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"unusual: {one}, {two}")


class RaisesUnusual(Linear):
    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        if self.batches == 4:
            raise Unusual(1, 2)
        return super().train_batch(x, y, sample_weight)


class Halve(af.Callback):
    """Inline, and may run on a copy elsewhere."""

    portable = True

    def __init__(self, at: int = 2) -> None:
        self.at = at

    @af.inline(replayable=True)
    def on_epoch_begin(self, event: Any) -> None:
        if event.epoch == self.at:
            event.set_learning_rate(0.005)


class Stumbles(af.Callback):
    portable = True
    on_error = "log"

    @af.inline(replayable=True)
    def on_batch_end(self, event: Any) -> None:
        if event.step % 5 == 3:
            raise LookupError(f"at {event.step}")


def linear() -> Linear:
    """A factory."""
    return Linear()


def broken() -> Linear:
    raise OSError("the factory has no material")


def path_of_main() -> str:
    return str(getattr(sys.modules["__main__"], "__file__", None))


class Names(Linear):
    """Gives one more figure, under a name of its own."""

    def __init__(self, name: Any) -> None:
        super().__init__()
        self.name = name

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return {**super().train_batch(x, y, sample_weight), self.name: 1.5}


class CannotGoBack(Watched):
    """Its state can be loaded where it was made alone."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.home = os.getpid()

    def load_state(self, state: Mapping[str, Any]) -> None:
        if os.getpid() != self.home:
            raise OSError("cannot go back")
        super().load_state(state)


class PickledOnce(Linear):
    """Its pickling raises from the second time on."""

    def __init__(self) -> None:
        super().__init__()
        self.pickled = 0

    def __reduce__(self) -> Any:
        self.pickled += 1
        if self.pickled > 1:
            raise RuntimeError("not this time")
        return Linear, ()


def forked(seconds: float) -> int:
    """A copy of this process, which lives for so long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
        child = os.fork()
    if not child:
        time.sleep(seconds)
        os._exit(0)
    return child


class Forks(Linear):
    """Dies while a process that it started still lives."""

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        if self.batches == 4:
            forked(15)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_batch(x, y, sample_weight)


class Asks(af.Callback):
    """Asks for something that only the run's own side can do: at once for a cancellation, too late for a stop."""

    portable = True

    def __init__(self, what: str) -> None:
        self.what = what
        self.kept: Any = None

    @af.inline(replayable=True)
    def on_batch_end(self, event: Any) -> None:
        if event.step == 4 and self.what == "cancel":
            event.cancel("asked there")
        if event.step == 4 and self.what == "stop":
            self.kept.stop("asked there")
        self.kept = event


class Dies(Watched):
    """Ends its process at each of these batches, once: `folder` remembers."""

    def __init__(self, folder: str | Path, *moments: str) -> None:
        super().__init__(folder)
        self.moments = moments

    def _do(self, stage: str, number: int) -> None:
        mark = Path(self.folder) / f"died-{stage}-{number}"
        if f"{stage}-{number}" in self.moments and not mark.exists():
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
            os._exit(7)


class Counts(af.Callback):
    """Inline, with a memory: it changes the rate by what it has counted."""

    portable = True

    def __init__(self) -> None:
        self.calls = 0

    @af.inline(replayable=True)
    def on_batch_end(self, event: Any) -> None:
        self.calls += 1
        if self.calls % 7 == 0:
            event.model.learning_rate *= 0.95

    @af.inline(replayable=True)
    def on_epoch_begin(self, event: Any) -> None:
        self.calls += 1
        if self.calls % 5 == 0:
            event.set_learning_rate(event.learning_rate * 0.99)

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told(af.Event):
    """An event of the tests' own."""

    step: int
    number: int

    lossy: ClassVar[bool] = False


class Publishes(af.Callback):
    """Two events at each batch."""

    portable = True

    @af.inline(replayable=True)
    def on_batch_end(self, event: Any) -> None:
        for number in range(2):
            event.publish(Told(step=event.step, number=number))


class Fails(af.Callback):
    portable = True

    def __init__(self, on_error: str) -> None:
        self.on_error = on_error  # type: ignore[assignment]

    @af.inline(replayable=True)
    def on_batch_end(self, event: Any) -> None:
        if event.step % 4 == 2:
            raise LookupError(f"at {event.step}")


class Gone(af.Callback):
    """Fails once, and is called no more: what it would do then, nobody sees."""

    portable = True
    on_error = "detach"

    @af.inline(replayable=True)
    def on_batch_end(self, event: Any) -> None:
        if event.step == 4:
            raise LookupError("enough")
        event.publish(Told(step=event.step, number=100))


class Deadly(metrics.AccumulatedMetric):
    """A metric of one's own that ends its process at an update, once: where `mark` is, it does not."""

    def __init__(self, mark: str, at: int) -> None:
        super().__init__()
        self.mark, self.at = mark, at

    def accumulators(self, output_shape: Any) -> Any:
        return {"updates": (), "total": ()}

    def update(self, totals: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        if totals.updates == self.at and not Path(self.mark).exists():
            Path(self.mark).touch()
            os._exit(7)
        totals.updates += 1
        totals.total += np.sum(y_pred) * totals.updates

    def result(self, totals: Any) -> Any:
        return totals.total
