"""`RemoteMonitor`: tells a server of each epoch, over HTTP, beside the run."""

from __future__ import annotations

import functools
import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import anyio

from .. import extras
from ..errors import InvalidInput
from ..events import EpochEnd, TrainBegin, TrainEnd
from ..front import keywords_checked
from .base import StatefulCallback, flag, logger
from .files import off_loop

__all__ = ["RemoteMonitor"]

MOST = 100
"""Epochs that wait to be sent; of more the oldest are lost."""

BACKOFF = 0.5
"""Seconds between the first two attempts; twice as long between the next two, and so on, up to `LONGEST`."""

LONGEST = 30.0

FOR_NOW = (408, 425, 429)
"""Refusals that may be others the next time."""


class RemoteMonitor(StatefulCallback):
    """Sends `epoch` (from 0) and the logs of each epoch to a server, in the request that Keras's `RemoteMonitor` sends.

    It is a POST, with the JSON text in a form, or as it is. Requests are sent one after the other in a task beside the
    run, which never waits for them: what fails is tried again, what cannot be delivered is counted in `lost`, and the
    first time logged as a warning. At most 100 epochs wait. The end of the run is put off by `at_end` seconds at most,
    for what has not been sent by then.

    In a form, numbers that are not finite are NaN and Infinity, as Keras sends them. As JSON, which has none, they are
    the texts "NaN", "Infinity" and "-Infinity"; Keras sends nothing then.

    Args:
        root: of the address, such as "http://localhost:9000".
        path: what follows it.
        field: of the form.
        headers: more HTTP headers.
        send_as_json: send the JSON itself, as `application/json`.
        retries: attempts after the first, half a second after it, a second after the next, and so on.
        timeout: seconds that one attempt may take.
        at_end: seconds that the end of the run may wait.
        name: what statistics and messages call it.

    Attributes:
        sent, lost: epochs of this run that the server has taken, and that it has not.

    Raises:
        ImportError: httpx is not installed (the extra `remote`).
    """

    gates = "none"
    sent: int
    lost: int

    @keywords_checked
    def __init__(
        self,
        root: str = "http://localhost:9000",
        path: str = "/publish/epoch/end/",
        field: str = "data",
        headers: Mapping[str, str] | None = None,
        send_as_json: bool = False,
        *,
        retries: int = 3,
        timeout: float = 5.0,
        at_end: float = 2.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        extras.require("httpx", extra="remote", what=self.label)
        for key, text in (("root", root), ("path", path), ("field", field)):
            if not isinstance(text, str):
                raise TypeError(f"{self.label}({key}=…) takes text, not {text!r}")
            if not text.isprintable():
                raise InvalidInput(f"{self.label}({key}=…) has characters that cannot be sent: {text!r}")
        if not _is_address(root):
            raise InvalidInput(f"{self.label}(root=…) begins with http:// or https:// and a host, not {root!r}")
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(f"{self.label}(headers=…) takes a dict of names and text, not {headers!r}")
        given: list[tuple[object, object]] = list((headers or {}).items())
        for title, value in given:
            if not all(isinstance(part, str) and part.isascii() and part.isprintable() for part in (title, value)):
                raise InvalidInput(f"{self.label}(headers=…) takes names and text in ASCII, not {title!r}: {value!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:  # type: ignore[redundant-expr]
            raise InvalidInput(f"{self.label}(retries=…) is a whole number of at least 0, not {retries!r}")
        for key, seconds in (("timeout", timeout), ("at_end", at_end)):
            number = not isinstance(seconds, bool) and isinstance(seconds, int | float)
            if not number or not 0 <= seconds < math.inf:
                raise InvalidInput(f"{self.label}({key}=…) is a number of seconds, at least 0, not {seconds!r}")
        if not timeout:
            raise InvalidInput(f"{self.label}(timeout=0) leaves a server no time to answer; give seconds")
        self.root, self.path, self.field = root, path, field
        self.headers = dict(headers or {})
        self.send_as_json = flag(f"{self.label}(send_as_json=…)", send_as_json)
        self.retries, self.at_end = retries, at_end
        self._patience = timeout  # `self.timeout` is that of the hooks

    def reset(self) -> None:
        self.sent = self.lost = 0
        self._waiting: deque[dict[str, Any]] = deque()
        self._busy = self._told = False
        self._changed = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    def on_train_begin(self, event: TrainBegin) -> None:
        super().on_train_begin(event)
        self._changed = anyio.Event()  # of this loop
        event.start_soon(self._send_all, wait=False)

    def on_epoch_end(self, event: EpochEnd) -> None:
        if len(self._waiting) == MOST:
            self._waiting.popleft()
            self._lose(f"{MOST} epochs wait already")
        self._waiting.append({"epoch": event.epoch, **event.logs})
        self._wake()

    async def on_train_end(self, event: TrainEnd) -> None:
        with anyio.move_on_after(self.at_end):
            while self._waiting or self._busy:
                await self._changed.wait()
        for _ in range(len(self._waiting) + self._busy):
            self._lose(f"it took longer than at_end={self.at_end:g} seconds")
        self._waiting.clear()
        if self._scope is not None:
            self._scope.cancel()
        if self.lost:
            logger.info("%s: %d of %d epochs did not reach %s", self.label, self.lost, self.lost + self.sent, self.root)

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _lose(self, reason: str) -> None:
        self.lost += 1
        if not self._told:
            self._told = True
            logger.warning(
                "%s: an epoch's figures did not reach %s: %s; the run goes on, and more of them are only counted",
                self.label, self.root + self.path, reason,
            )  # fmt: skip

    # --- beside the run ----------------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        with anyio.CancelScope() as self._scope:
            httpx = await off_loop(self._load)
            make = functools.partial(httpx.AsyncClient, timeout=self._patience, follow_redirects=True)
            async with await off_loop(make) as client:  # in a thread, too: it reads all certificates
                while True:
                    while self._waiting:
                        self._busy = True
                        failure = await self._send(httpx, client, self._waiting.popleft())
                        self._busy = False
                        if failure is None:
                            self.sent += 1
                        else:
                            self._lose(failure)
                        self._wake()
                    await self._changed.wait()

    def _load(self) -> Any:
        return extras.load("httpx", extra="remote", what=self.label)

    async def _send(self, httpx: Any, client: Any, figures: dict[str, Any]) -> str | None:
        """Send the figures of one epoch; None, or why they could not be delivered."""
        headers, content = self._request(figures)
        failure = ""
        for attempt in range(self.retries + 1):
            if attempt:
                await anyio.sleep(min(BACKOFF * 2 ** (attempt - 1), LONGEST))
            try:
                with anyio.fail_after(self._patience):
                    response = await client.post(self.root + self.path, content=content, headers=headers)
            except TimeoutError:
                failure = f"no answer within {self._patience:g} seconds"
            except httpx.HTTPError as error:
                failure = str(error) or type(error).__name__
            except Exception as error:  # an address or a header that nobody can send
                return repr(error)
            else:
                if response.status_code < 400:
                    return None
                failure = f"it answered {response.status_code} {response.reason_phrase}".rstrip()
                if response.status_code < 500 and response.status_code not in FOR_NOW:
                    break
        return failure

    def _request(self, figures: dict[str, Any]) -> tuple[dict[str, str], bytes]:
        if self.send_as_json:
            kind, text = "application/json", json.dumps({key: _finite(value) for key, value in figures.items()})
        else:
            kind, text = "application/x-www-form-urlencoded", urlencode({self.field: json.dumps(figures)})
        own = any(name.lower() == "content-type" for name in self.headers)
        return self.headers if own else {"Content-Type": kind, **self.headers}, text.encode()


def _is_address(root: str) -> bool:
    try:
        parts = urlsplit(root)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, or a port that is none
        return False


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value
