"""A web service that trains while it serves: start a run, watch it, stop it, and predict all the while.

pip install "asyncfit[service]"
python examples/service.py
# or: uvicorn --app-dir examples --timeout-graceful-shutdown 3 service:app

curl -X POST localhost:8000/runs                      {"id": "…"}
curl -N localhost:8000/runs/<id>/events               server-sent events, as they happen
curl -X POST localhost:8000/runs/<id>/stop            {"outcome": "stopped", "step": …}
curl -X POST localhost:8000/predict -d '{"index": 0}' {"digit": …, "label": …, "training": true}
"""

import contextlib
import json
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
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import asyncfit as af
from asyncfit import layers

DATA = Path(__file__).parent / "data" / "mnist10k.npz"


class Trainer:
    """The model, its data and its runs. One model, so one run at a time."""

    def __init__(self) -> None:
        with np.load(DATA) as digits:
            self.x, self.y = digits["images"].reshape(-1, 784) / np.float32(255), digits["labels"]
        self.model = af.Sequential(
            [layers.Input((784,)), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")], seed=1
        )
        self.model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        self.runs: dict[str, af.Run] = {}


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """The application owns the runs: leaving it ends them, with a clean `TrainEnd`."""
    app.state.trainer = Trainer()
    async with anyio.create_task_group() as group:
        app.state.group = group
        yield
        for run in app.state.trainer.runs.values():
            run.cancel("the service shuts down")


async def start(request: Request) -> Response:
    trainer: Trainer = request.app.state.trainer
    try:
        epochs = int(request.query_params.get("epochs", "1000"))
        fit = trainer.model.fit(trainer.x, trainer.y, epochs=epochs, validation_split=0.2)
        run = await fit.start(request.app.state.group)
    except af.ModelBusy as busy:
        return JSONResponse({"error": str(busy)}, status_code=409)
    except ValueError as wrong:  # af.InvalidInput is one
        return JSONResponse({"error": str(wrong)}, status_code=422)
    trainer.runs[run.id] = run
    return JSONResponse({"id": run.id}, status_code=201)


async def events(request: Request) -> Response:
    run = find(request)
    if run is None:
        return JSONResponse({"error": "no such run"}, status_code=404)
    # Subscribed here, so that nothing is missed before the first byte is sent. A slow client misses batches, no epochs.
    stream = run.events(af.EpochEnd, af.BatchEnd, af.TrainEnd, where=interesting, buffer=32)

    async def sent() -> AsyncIterator[str]:
        async with stream:
            async for event in stream:
                yield f"id: {event.id}\nevent: {event.type}\ndata: {json.dumps(event.to_dict())}\n\n"

    return StreamingResponse(sent(), media_type="text/event-stream")


async def stop(request: Request) -> Response:
    run = find(request)
    if run is None:
        return JSONResponse({"error": "no such run"}, status_code=404)
    await run.stop("asked over HTTP")
    return JSONResponse({"outcome": run.outcome, "reason": run.reason, "step": run.progress.step})


async def predict(request: Request) -> Response:
    trainer: Trainer = request.app.state.trainer
    try:
        index = int((await request.json())["index"])
        digit = trainer.x[index : index + 1]
        if len(digit) != 1:
            raise IndexError(f"there are {len(trainer.x)} digits, but no number {index}")
    except (ValueError, TypeError, KeyError, IndexError) as wrong:
        return JSONResponse({"error": f'expected {{"index": 0}}: {wrong}'}, status_code=422)
    training = any(run.outcome is None for run in trainer.runs.values())
    scores = await trainer.model.predict(digit)  # one whole state, also while a run trains
    return JSONResponse({"digit": int(scores[0].argmax()), "label": int(trainer.y[index]), "training": training})


def interesting(event: af.Event) -> bool:
    """Every epoch, and every fiftieth batch."""
    return not isinstance(event, af.BatchEnd) or (event.step + 1) % 50 == 0


def find(request: Request) -> af.Run | None:
    runs: dict[str, af.Run] = request.app.state.trainer.runs
    return runs.get(request.path_params["id"])


app = Starlette(
    routes=[
        Route("/runs", start, methods=["POST"]),
        Route("/runs/{id}/events", events),
        Route("/runs/{id}/stop", stop, methods=["POST"]),
        Route("/predict", predict, methods=["POST"]),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    # A server waits for open connections before it shuts the application down: a stream of events would keep it up.
    uvicorn.run(app, timeout_graceful_shutdown=3)
