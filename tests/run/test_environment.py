"""The environment of workers: there before NumPy is imported, the same for their replacements, and for the bits."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.machine import blas

from .test_process import children, no_process_left

KERNELS = "Nehalem"  # what every x86 processor of the last decade has, and OpenBLAS chooses on none of them
ENVIRONMENT = {"OPENBLAS_CORETYPE": KERNELS, "OPENBLAS_NUM_THREADS": "1"}
ROOT = Path(af.__file__).parents[1]

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn, pytest.mark.timeout(120)]
needs_kernels = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or blas()["kernels"] in ("unknown", KERNELS),
    reason="needs an OpenBLAS with several kernels",
)


def model() -> af.Sequential:
    found = af.Sequential([layers.Input(40), layers.Dense(70, "tanh"), layers.Dense(3)], seed=1)
    found.compile("adam", "mse")
    return found


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((96, 40), np.float32), rng.random((96, 3), np.float32)


def digest(trained: af.Sequential) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in trained.get_weights())).hexdigest()


def digest_in_a_thread(environment: dict[str, str]) -> str:
    code = (
        "from tests.run.test_environment import *\n"
        "m = model(); m.fit(*data(), epochs=4, batch_size=32, executor='thread').blocking(); print(digest(m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


async def trained(executor: Any, **how: Any) -> tuple[str, dict[str, Any]]:
    begun: list[Any] = []
    bus = af.EventBus()
    bus.subscribe(af.TrainBegin, begun.append)
    one = model()
    await one.fit(*data(), epochs=4, batch_size=32, executor=executor, bus=bus, **how)
    return digest(one), dict(begun[0].params)


@needs_kernels
async def test_workers_compute_with_what_their_environment_says() -> None:
    with no_process_left():
        async with af.ProcessExecutor(env=ENVIRONMENT) as executor:
            bits, params = await trained(executor)
    assert (params["kernels"], params["threads"]) == (KERNELS, 1)
    assert bits == digest_in_a_thread(ENVIRONMENT)
    here, own = await trained("thread")
    assert own["kernels"] == blas()["kernels"] != KERNELS
    assert bits != here


@needs_kernels
async def test_a_replaced_worker_gets_the_same() -> None:
    killed: list[int] = []

    class Kills(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 1 and not killed:
                (pid,) = children()
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    restarted: list[af.WorkerRestarted] = []
    with no_process_left():
        async with af.ProcessExecutor(env=ENVIRONMENT, restarts=1) as executor:
            plain, _ = await trained(executor)
            one, bus = model(), af.EventBus()
            bus.subscribe(af.WorkerRestarted, restarted.append)
            await one.fit(*data(), epochs=4, batch_size=32, executor=executor, bus=bus, callbacks=[Kills()])
    assert len(restarted) == len(killed) == 1
    assert digest(one) == plain


@needs_kernels
async def test_a_variable_of_ours_can_be_kept_from_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", KERNELS)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    async with af.ProcessExecutor() as executor:
        assert (await trained(executor))[1]["kernels"] == KERNELS
    async with af.ProcessExecutor(env={"OPENBLAS_CORETYPE": None}) as executor:
        assert (await trained(executor))[1]["kernels"] != KERNELS


@pytest.mark.parametrize(
    "env", [3, {"A": 1}, {1: "a"}, {"": "a"}, {"A=B": "a"}, {"A\0": "a"}, {"A": "\0"}, ["A"]], ids=repr
)
async def test_what_is_no_environment_is_refused(env: Any) -> None:
    with pytest.raises(af.InvalidInput, match=r"env=…\) takes a mapping of text to text, or to None"):
        af.ProcessExecutor(env=env)
