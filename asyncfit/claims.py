"""The callbacks of a run together: what each is called, and that none serves two live runs at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from .callback import Callback, subscription_of
from .errors import CallbackBusy, InvalidInput
from .subscriptions import Subscription

__all__ = ["claim", "subscriptions_of"]

_lock = threading.Lock()
_claimed: dict[int, tuple[Callback, str]] = {}
"""By `id`: a callback in a live run, and that run's id. It is kept here, so the number is its own."""


def subscriptions_of(callbacks: Iterable[Callback]) -> list[Subscription]:
    """A subscription for each, by names that differ and are the same each time.

    The name that an object was given is its name. Others are called by their class (or by the `name` that it gives
    them); if several have the same, they are `EarlyStopping[0]`, `EarlyStopping[1]` and so on, in the order given.

    Raises:
        InvalidInput: two have the same name.
    """
    given = list(callbacks)
    shared = [None if _own_name(callback) else callback.name or type(callback).__name__ for callback in given]
    times, seen = Counter(shared), Counter[str]()
    found: dict[str, Subscription] = {}
    for callback, common in zip(given, shared, strict=True):
        if common is None:
            name = str(callback.name)
        else:
            name = common if times[common] == 1 else f"{common}[{seen[common]}]"
            seen[common] += 1
        if name in found:
            kinds = {type(found[name].source).__name__: None, type(callback).__name__: None}
            raise InvalidInput(
                f"two callbacks ({', '.join(kinds)}) are called {name!r}; statistics and checkpoints know them by "
                "name: give one of them another"
            )
        found[name] = subscription_of(callback, name)
    return list(found.values())


def _own_name(callback: Callback) -> bool:
    """Whether this very object was given a name, as against its class."""
    return callback.name is not None and callback.name is not type(callback).name


def claim(subscriptions: Sequence[Subscription], run_id: str) -> Callable[[], None]:
    """Reserve the callbacks for a run that begins; all of them, or none.

    Returns:
        what frees them; it may be called twice.

    Raises:
        CallbackBusy: another run has one of them.
    """
    mine: dict[int, tuple[Callback, str]] = {}
    with _lock:
        for subscription in subscriptions:
            callback = subscription.source
            assert isinstance(callback, Callback)
            holder = _claimed.get(id(callback))
            if holder is not None:
                raise CallbackBusy(
                    f"{subscription.name} cannot take part in run {run_id}: the same object takes part in run "
                    f"{holder[1]}, which has not ended; await its end, or give each run an object of its own"
                )
            mine[id(callback)] = callback, run_id
        _claimed.update(mine)

    def free() -> None:
        with _lock:
            for key, entry in mine.items():
                if _claimed.get(key) is entry:
                    del _claimed[key]

    return free
