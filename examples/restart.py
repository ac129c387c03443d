"""A web service that trains, is stopped, and trains on when it starts again: as if nothing had happened, to the bit.

pip install "asyncfit[service]"
python examples/restart.py            # or: uvicorn --app-dir examples restart:app
curl localhost:8000                   {"epoch": 3, "step": 912, "resumed": null, "outcome": null}

Stop it with Ctrl-C, or with the SIGTERM that a deployment sends, and start it again: "resumed" says from which step it
goes on. After kill -9 it goes on from the last checkpoint, which is five seconds old at most.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

# BLAS threads wait by spinning: a small network in a busy program is better off with one. NumPy reads it when imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import anyio
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import asyncfit as af
from asyncfit import callbacks, layers

DATA = Path(__file__).parent / "data" / "mnist10k.npz"
BACKUPS = Path(os.environ.get("BACKUPS", "backups"))


def training() -> af.Fit:
    """The whole training: the same each time the service starts."""
    with np.load(DATA) as digits:
        x, y = digits["images"].reshape(-1, 784) / np.float32(255), digits["labels"]
    model = af.Sequential([layers.Input((784,)), layers.Dense(64, "relu"), layers.Dense(10, "softmax")])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    backup = callbacks.BackupAndRestore(BACKUPS, every_s=5.0)
    return model.fit(x, y, epochs=1000, validation_split=0.2, callbacks=backup)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        app.state.run = await training().start(group)
        yield
        app.state.run.stop("the service shuts down", resumable=True)
        await app.state.run.wait()  # until the checkpoint is on the disk; an error if it could not be written


async def progress(request: Request) -> Response:
    run: af.Run = request.app.state.run
    at, resumed = run.progress, run.history.params.get("resumed")
    return JSONResponse(
        {"epoch": at.epoch, "step": at.step, "resumed": resumed and resumed["step"], "outcome": run.outcome}
    )


app = Starlette(routes=[Route("/", progress)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app)
