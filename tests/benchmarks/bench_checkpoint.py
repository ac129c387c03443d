"""What checkpoints cost a run: 75 MB of state after every 8 batches, or after each epoch of a second and more.

    python tests/benchmarks/bench_checkpoint.py [rounds] [batches between checkpoints] [folder]

Prints how long runs take against the same run without checkpoints: with `BackupAndRestore`; with the same model file
written inline, by compute itself, in the same way; and inline as a callback would do it with h5py and fsync. They take
turns in one process; of each the median of the rounds counts. Beside each run a task of the same loop wakes up every
millisecond: how late it is, is the loop's lag. Needs a folder on a disk.

A run's first two copies of the state touch new memory, which the system has to find: up to 170 ms each, and 7 ms from
then on. So the runs that are compared have 256 batches.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if "OPENBLAS_CORETYPE" in os.environ:  # it forces slow kernels
    del os.environ["OPENBLAS_CORETYPE"]
    os.execv(sys.executable, [sys.executable, *sys.argv])

import h5py
import numpy as np

import asyncfit as af
from asyncfit import callbacks, layers

BATCH = 256


def model() -> af.Sequential:
    made = af.Sequential(
        [layers.Input((1024,)), layers.Dense(2048, "relu"), layers.Dense(2048, "relu"), layers.Dense(10, "softmax")],
        seed=1,
    )
    made.compile("adam", "sparse_categorical_crossentropy")
    return made


class SavesInline(af.Callback):
    """Writes the model where it is trained."""

    gates = "none"

    def __init__(self, folder: Path, every: int) -> None:
        self.path, self.every_nth = str(folder / "inline.h5"), every

    @af.inline
    def on_batch_end(self, event: af.BatchEnd) -> None:
        if (event.step + 1) % self.every_nth == 0:
            live: Any = event.model
            self.save(live)

    def save(self, live: Any) -> None:
        from asyncfit import modelfile

        modelfile.write(modelfile.saved(live.network, live, modelfile.training_config(live), live.state()), self.path)


class SavesWithH5py(SavesInline):
    """As a callback would do it: h5py, to a name beside, sync, rename."""

    def save(self, live: Any) -> None:
        with h5py.File(self.path + ".tmp", "w") as file:
            for name, value in live.state().items():
                file[name] = value
        with open(self.path + ".tmp", "rb") as written:
            os.fsync(written.fileno())
        os.replace(self.path + ".tmp", self.path)


async def ticks(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - due)


async def run(x: Any, y: Any, batches: int, epochs: int, *more: af.Callback) -> tuple[float, list[float], int]:
    """Seconds from the first batch's beginning to the last one's end, the loop's lags, and files saved."""
    bus, marks, saved, lags = af.EventBus(), [], [], []  # type: ignore[var-annotated]
    bus.subscribe(af.TrainBegin, af.EpochEnd, lambda event: marks.append(event.time))
    bus.subscribe(af.CheckpointSaved, saved.append)
    trained = model()
    ticker = asyncio.create_task(ticks(lags))
    rows = batches * BATCH
    await trained.fit(x[:rows], y[:rows], batch_size=BATCH, epochs=epochs, bus=bus, callbacks=more)
    ticker.cancel()
    return marks[-1] - marks[0], lags, len(saved)


async def main(rounds: int, every: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH * 64, 1024)).astype("float32"), rng.integers(0, 10, BATCH * 64)

    def plain() -> list[af.Callback]:
        return []

    def often() -> list[af.Callback]:
        return [callbacks.BackupAndRestore(folder / "backup", save_freq=every)]

    def inline() -> list[af.Callback]:
        return [SavesInline(folder, every)]

    def with_h5py() -> list[af.Callback]:
        return [SavesWithH5py(folder, every)]

    def each_epoch() -> list[af.Callback]:
        return [callbacks.BackupAndRestore(folder / "backup")]

    await run(x, y, 8, 1)
    times: dict[str, list[float]] = {}
    lags: dict[str, list[float]] = {}
    files: dict[str, int] = {}
    for _ in range(rounds):
        for name, made, batches, epochs in (
            ("plain", plain, 64, 4), (f"every {every} batches", often, 64, 4), ("inline", inline, 64, 4),
            ("inline, h5py", with_h5py, 64, 4), ("plain, epochs", plain, 40, 3), ("each epoch", each_epoch, 40, 3),
        ):  # fmt: skip
            seconds, late, files[name] = await run(x, y, batches, epochs, *made())
            times.setdefault(name, []).append(seconds)
            lags.setdefault(name, []).extend(late)
    plain_median = statistics.median(times["plain"])
    for name, values in times.items():
        base = times["plain, epochs" if "epoch" in name else "plain"]
        ratios = [one / other for one, other in zip(values, base, strict=True)]
        p99 = float(np.percentile(lags[name], 99)) * 1000
        batch = min(values) / (120 if "epoch" in name else 256)
        print(
            f"{name:16} {statistics.median(values):6.2f} s   x {statistics.median(ratios):.3f} (least against least "
            f"{min(values) / min(base):.3f})   {batch:.3f} s a batch   lag p99 {p99:5.2f} ms   {files[name]} files"
        )
    extra = {name: statistics.median(values) - plain_median for name, values in times.items()}
    part = extra[f"every {every} batches"]
    print(
        f"extra against inline: {part / extra['inline']:.2f}, against inline h5py: {part / extra['inline, h5py']:.2f}"
    )
    print(f"state: {sum(v.nbytes for v in model().state().values() if isinstance(v, np.ndarray)) / 1e6:.0f} MB")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    place = Path(tempfile.mkdtemp(dir=sys.argv[3] if len(sys.argv) > 3 else None))
    try:
        asyncio.run(main(count, int(sys.argv[2]) if len(sys.argv) > 2 else 8, place))
    finally:
        shutil.rmtree(place, ignore_errors=True)
