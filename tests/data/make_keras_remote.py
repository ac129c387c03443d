"""Makes `keras_remote.json`: the requests that Keras's `RemoteMonitor` sends. Keras 3.15.1 made it, with requests.

::

    python tests/data/make_keras_remote.py

The file holds `keras` (the version) and `cases`: `settings` of the callback, `epoch`, `logs`, and what the server got:
`method`, `path`, `type` (the content type) and `body`.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

__all__ = ["main"]

HERE = Path(__file__).parent

SETTINGS: list[dict[str, Any]] = [
    {},
    {"send_as_json": True},
    {"path": "/other?run=1", "field": "figures"},
    {"path": "/api", "send_as_json": True, "headers": {"X-Token": "abc"}},
    {"headers": {"Content-Type": "text/plain"}},
]
LOGS = [
    {"loss": 0.5},
    {"loss": 1e-9, "accuracy": 1.0, "val_loss": 123456.789, "learning_rate": 0.01},
    {"loss": float("nan"), "Größe & more": float("inf")},
]


def main() -> None:
    import keras  # type: ignore[import-not-found,unused-ignore]

    cases: list[dict[str, Any]] = []
    got: list[dict[str, Any]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            kind = self.headers["Content-Type"]
            got.append({"method": self.command, "path": self.path, "type": kind, "body": body})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    for settings in SETTINGS:
        for epoch, logs in enumerate(LOGS):
            if settings.get("send_as_json") and epoch == 2:
                continue  # numbers that are not finite are not sent as JSON
            got.clear()
            keras.callbacks.RemoteMonitor(root, **settings).on_epoch_end(epoch, logs)
            cases.append({"settings": settings, "epoch": epoch, "logs": logs, **got[0]})
    server.shutdown()
    (HERE / "keras_remote.json").write_text(json.dumps({"keras": keras.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
