"""TensorBoard's event files, as TensorFlow's summary writer writes them, by the package `tensorboard` alone.

Plain functions, to be called in threads.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import extras
from .files import add

__all__ = ["EventFile", "Figure"]

Figure = tuple[float, int, str, Any]
"""When it was, in seconds since the epoch; the step; the tag; a number, or an array of which to draw a histogram."""

_numbers = itertools.count()


class EventFile:
    """A file of events in `folder`, which is made when the first are added. It is opened for each addition only."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._name: str | None = None

    def add(self, figures: Iterable[Figure]) -> None:
        """Add to the file, all or nothing.

        Raises:
            ImportError: tensorboard is not installed.
            OSError: the file cannot be written.
        """
        data = io.BytesIO()
        record = _part("summary.writer.record_writer").RecordWriter(data)
        event = _part("compat.proto.event_pb2").Event
        with self._lock:
            if self._name is None:
                os.makedirs(self._folder, exist_ok=True)
                now = time.time()
                unique = f"{int(now)}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
                self._name = os.path.join(self._folder, f"events.out.tfevents.{unique}.v2")
                record.write(event(wall_time=now, file_version="brain.Event:2").SerializeToString())
                name, self._name = self._name, None
            else:
                name = self._name
            for when, step, tag, value in figures:
                summary = _histogram(tag, value) if isinstance(value, np.ndarray) else _scalar(tag, value)
                record.write(event(wall_time=when, step=step, summary=summary).SerializeToString())
            add(name, data.getvalue())
            self._name = name


def _part(name: str) -> Any:
    return extras.load(f"tensorboard.{name}", extra="tensorboard", what="TensorBoard")


def _scalar(tag: str, value: float) -> Any:
    return _part("plugins.scalar.summary_v2").scalar_pb(tag, value)


def _histogram(tag: str, values: np.ndarray[Any, Any]) -> Any:
    flat = values.ravel()
    return _part("plugins.histogram.summary_v2").histogram_pb(tag, flat[np.isfinite(flat)])
