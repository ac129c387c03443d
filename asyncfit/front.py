"""What `Sequential` and `Trainer` have in common: they hold something trainable, and let runs use it.

A run claims the model. Meanwhile whoever would change it gets `ModelBusy`, and whoever only reads gets a whole state
that nobody can undo. All reading happens in worker threads, on copies.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import numpy as np

from . import budget
from .bus import EventBus
from .callback import Callback, subscription_of
from .claims import claim, subscriptions_of
from .compute import ENDLESS, Start, Work, begin_test, end_test
from .data import AnyPass, Batch, FeedPass, FitPlan, Later
from .errors import BadFile, InvalidInput, ModelBusy
from .executors.base import Executor
from .executors.thread import ThreadExecutor
from .fit import Fit
from .formats.paths import is_path
from .history import History
from .inline_port import check_inline, for_process
from .machine import blas
from .names import unknown
from .pool import copy_state
from .protocol import State, Trainable
from .resuming import Resumed, Search
from .run import Order, Run
from .snapshot import StateReader
from .stepping import Fetch, Steps
from .subscriptions import Subscription
from .tasks import close_iterator, scope_cancelled, task_cancelled

__all__ = ["Callbacks", "Front", "as_callbacks", "keywords_checked", "reading", "resolved", "run_batches"]

P = ParamSpec("P")
T = TypeVar("T")

_logger = logging.getLogger("asyncfit")

Callbacks = Callback | Iterable[Callback]


def _own_process() -> Executor:
    from .executors.process import OwnProcess  # not every program needs it

    return OwnProcess()


EXECUTORS: dict[str, Callable[[], Executor]] = {"thread": ThreadExecutor, "process": _own_process}


def keywords_checked(function: Callable[P, T]) -> Callable[P, T]:
    """Let `function` name the nearest known keyword when it is given an unknown one."""
    parameters = inspect.signature(function).parameters
    known = [name for name in parameters if name != "self"]
    label = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in parameters:
                raise TypeError(f"{label}: {unknown('keyword', name, known)}")
        return function(*args, **kwargs)

    return checked


def as_callbacks(given: Any, what: str) -> list[Callback]:
    """One callback or several, as a list without doubles, each checked."""
    if given is None:
        given = ()
    if isinstance(given, Callback) or not isinstance(given, Iterable) or isinstance(given, str | type | Mapping):
        given = [given]
    found: list[Callback] = []
    for callback in given:
        subscription_of(callback)
        if all(callback is not other for other in found):
            found.append(callback)
    return found


async def resolved(given: AnyPass | Later[AnyPass]) -> AnyPass:
    """The plan of a pass whose data have been looked at, in a thread if that may take time."""
    return await anyio.to_thread.run_sync(given.resolved) if isinstance(given, Later) else given


@asynccontextmanager
async def reading(plan: AnyPass) -> AsyncIterator[Fetch | None]:
    """Around a pass: what fetches its batches, if they come on the loop. They are closed at its end."""
    if not isinstance(plan, FeedPass) or not plan.fetches:
        yield None
        return

    async def fetch() -> None:
        try:
            await plan.fetch()
        except anyio.get_cancelled_exc_class() as error:
            if scope_cancelled() or task_cancelled():
                raise
            raise RuntimeError(f"{plan.source.name} awaited a task that was cancelled") from error

    try:
        yield fetch
    except Exception as error:
        try:
            await close_iterator(plan.iterator)
        except Exception as other:
            error.add_note(f"when {plan.source.name} was closed for that, it raised {other!r}")
        raise
    except BaseException:
        with anyio.CancelScope(shield=True):
            await close_iterator(plan.iterator)
        raise
    await close_iterator(plan.iterator)  # in no scope of ours: it may have one open that was entered in the caller's


def _nothing() -> None:
    pass


class Front:
    """Holds a model: who uses it, what was trained.

    Attributes:
        history: the newest run's History, also after an error; None before the first.
    """

    def __init__(self) -> None:
        self.history: History | None = None
        self._user: Run | None = None
        self._free: Callable[[], None] = _nothing  # lets go of the callbacks of the run that uses it
        self._fits = 0
        self._reading = threading.Lock()

    # --- what a subclass brings --------------------------------------------------------------------------------------

    def _trainable(self) -> Trainable:
        raise NotImplementedError

    def _reader(self) -> StateReader:
        """What makes use of the states of the next run, also long after it."""
        return self  # type: ignore[return-value]

    # --- in use ------------------------------------------------------------------------------------------------------

    def _claim(self, run: Run) -> None:
        if self._user is not None:
            raise ModelBusy(
                f"run {self._user.id} is training this model; await its end (run.wait()) or stop it (run.stop()) "
                "before another run"
            )
        self._user = run
        self._fits += 1

    def _release(self, run: Run) -> None:
        if self._user is run:
            self._user = None
            free, self._free = self._free, _nothing  # else the model would keep them alive
            free()

    def _require_free(self, what: str, way: str) -> None:
        if self._user is not None:
            raise ModelBusy(f"run {self._user.id} is training this model, so {what} must wait; {way}")

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[State], T], hop: Callable[..., Any] = anyio.to_thread.run_sync) -> T:
        """Let `work` read a whole state in a worker thread: a copy of the model's, or, beside training, the run's.

        `hop` takes it to the thread.
        """

        def copied() -> tuple[bool, Any]:
            with self._reading:
                if self._user is not None:
                    return False, None
                state = copy_state(self._trainable().state())
            return True, work(state)

        while True:
            run = self._user
            if run is None:
                done, result = await hop(copied)
                if done:
                    answer: T = result
                    return answer
            else:
                snapshot = await run._whole()
                answer = await hop(work, snapshot._state)
                return answer

    async def _whole_state(self, run: Run) -> State:
        def copied() -> State | None:
            with self._reading:
                return copy_state(self._trainable().state()) if self._user in (None, run) else None

        state = await anyio.to_thread.run_sync(copied)
        return await self._read(lambda state: state) if state is None else state

    # --- a run -------------------------------------------------------------------------------------------------------

    def _fit(
        self,
        what: str,
        trainable: Trainable,
        given: FitPlan | Later[FitPlan],
        *,
        callbacks: Sequence[Callback],
        bus: EventBus | None,
        executor: str | Executor,
        lookahead: int,
        seed: int | None,
        run_id: str | None,
        drain_timeout: float,
        grace: float,
        resume: str | os.PathLike[str] | None = None,
        resume_data: str | None = None,
        prepared: Callable[[Any], None] = lambda data: None,
        before: Callable[[list[Subscription]], list[Callable[[], Any]]] = lambda subscriptions: [],
        as_stored: Callable[[float], float] = float,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Fit:
        runner = _executor(executor)
        _check_options(lookahead=lookahead, bus=bus, run_id=run_id, drain_timeout=drain_timeout, grace=grace)

        def check_inlines() -> None:
            for subscription in [*subscriptions_of(callbacks), *(bus.subscriptions if bus is not None else ())]:
                check_inline(subscription, remote=runner.remote)

        check_inlines()
        runner.check(trainable)
        _check_feed(given, resume_data, runner)
        if not given.rewindable:  # what is undone could not be done again
            lookahead = 0
        schedule = _schedule(trainable)
        path = _resume_path(resume)
        name = run_id or os.urandom(6).hex()
        restorers: list[Any] = [one for one in callbacks if hasattr(one, "find") and hasattr(one, "release")]
        search = Search(restorers, path, name)
        for callback in callbacks:
            if schedule is not None and callback.sets_learning_rate:
                raise InvalidInput(f"{callback.name or type(callback).__name__} cannot be used here: {schedule}")

        async def begin() -> Run:
            check_inlines()  # the bus may have got some more
            subscriptions = subscriptions_of(callbacks)
            savers: list[Any] = [one for one in callbacks if hasattr(one, "accept") and hasattr(one, "when")]
            if savers:
                _name_half_a_memory(callbacks)
            if runner.remote:
                subscriptions = [for_process(one) for one in subscriptions]
            claimed = claim(subscriptions, name)

            def free() -> None:
                search.release()
                claimed()

            try:
                if search:
                    await anyio.to_thread.run_sync(search.look)
                run = Run(ordered(subscriptions, savers))
            except BaseException:
                if search:
                    with anyio.CancelScope(shield=True):  # it touches files: off the loop
                        await anyio.to_thread.run_sync(search.release)
                claimed()
                raise
            self._free = free
            self.history = run.history
            return run

        def ordered(subscriptions: list[Subscription], savers: list[Any]) -> Order:
            resumed, search.resumed = search.resumed, None
            return Order(
                prepare=prepare,
                reader=self._reader(),
                usage=self,
                executor=runner,
                subscriptions=subscriptions,
                bus=bus,
                before=before(subscriptions),
                lookahead=int(lookahead),
                run_id=run_id or (name if resumed is None else resumed.run_id),
                drain_timeout=float(drain_timeout),
                grace=float(grace),
                as_stored=as_stored,
                schedule=schedule,
                savers=savers,
                resumed=resumed,
            )

        def prepare(run: Run) -> Work:
            with self._reading:  # whoever was copying the state is done with it
                pass
            resumed = run._order.resumed
            key = (self._own_seed if seed is None else seed, self._fits)
            if resumed is not None:
                key = _key_of(resumed, key[0] if seed is not None or self._seed_given else None)
            plan = given.resolved()
            data = plan.read(key)
            if runner.remote:
                data.check_portable()
            prepared(data)
            settings = {"model": self._model_settings(), "data": plan.settings | data.settings}
            if resumed is not None:
                resumed.check(settings)
                if plan.once and resume_data is None:
                    raise InvalidInput(
                        f"{resumed.path} is of step {resumed.position.step}, and what x yields can be read once only: "
                        "give resume_data='continue' if it goes on there, or another directory to begin anew"
                    )
                _check_place(resumed, data.train.steps, trainable)
                self._own_seed, self._fits = resumed.settings["model_seed"], key[1]
                rate = None if schedule is not None else float(trainable.learning_rate)
                _tell_what_is_not_used(resumed, rate, plan.epochs or ENDLESS)
            run._order.settings.update(
                settings, rate=float(trainable.learning_rate), seed=key[0], fits=key[1], model_seed=self._own_seed
            )
            state: object = trainable.state()
            if not isinstance(state, Mapping):
                raise TypeError(f"state() must return a mapping of names to arrays and numbers, not {state!r}")
            state_bytes = sum(v.nbytes for v in state.values() if isinstance(v, np.ndarray))
            first = plan.initial_epoch if resumed is None else resumed.position.epoch
            endless = ENDLESS if plan.epochs is None else plan.epochs
            if plan.epochs is not None:
                done = 0 if resumed is None else resumed.position.batch
                data.limit(max(0, (plan.epochs - first) * plan.steps - done), plan.validates.count(first, plan.epochs))
            replaceable = bool(getattr(runner, "restarts", 0))
            params = {
                "epochs": plan.epochs,
                "initial_epoch": first,
                "steps": plan.steps,
                "batch_size": plan.batch_size,
                "samples": plan.samples,
                "validation_samples": plan.validation_samples,
                "lookahead": int(lookahead),
                "seed": key[0],
                "executor": runner.name,
                **blas(),
                "state_bytes": state_bytes,
                "memory": budget.memory(
                    state,
                    lookahead=int(lookahead),
                    remote=runner.remote,
                    savers=len(run._order.savers),
                    resumed=resumed is not None,
                    replaceable=replaceable,
                ),
                "trainable": type(trainable).__name__,
                "resumed": None if resumed is None else resumed.told,
                **_metrics(trainable),
            }
            return Work(
                trainable=trainable,
                data=data.train,
                epochs=endless,
                validation=data.validation,
                validates=plan.validates,
                initial_epoch=first,
                start=None
                if resumed is None
                else Start(
                    position=resumed.position,
                    state=resumed.state,
                    change=resumed.change,
                    stopped=resumed.carried.stop is not None,
                ),
                params=params,
                lookahead=int(lookahead),
                copies=budget.copies(
                    state, lookahead=int(lookahead), savers=len(run._order.savers), replaceable=replaceable
                ),
                unpublished=budget.unpublished(state),
                key=key,
                around=around,
            )

        return Fit(what, begin)

    # --- going on with a checkpoint ----------------------------------------------------------------------------------

    def _model_settings(self) -> dict[str, Any]:
        """What the numbers of a training depend on, besides the state."""
        raise NotImplementedError

    _own_seed: int
    """What is used if `fit` is given none."""
    _seed_given: bool
    """Whether somebody chose it; one that was drawn gives way to the checkpoint's."""


def run_batches(trainable: Trainable, batches: Iterable[Batch | None]) -> Steps[dict[str, float]]:
    """Yield the rows of each batch and its figures; return the means of loss and metrics, weighted by sample, and the
    metrics that are no means.

    Where a batch has to be fetched first, None is yielded on.
    """
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    begin_test(trainable)
    for batch in batches:
        if batch is None:
            yield None
            continue
        x, y, sample_weight, size = batch
        figures = {name: float(value) for name, value in trainable.test_batch(x, y, sample_weight).items()}
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value * size
            counts[name] = counts.get(name, 0) + size
        yield size, figures
    return end_test(trainable, {name: total / counts[name] for name, total in sums.items()})


def _check_feed(plan: FitPlan | Later[FitPlan], resume_data: Any, runner: Executor) -> None:
    if resume_data not in (None, "continue"):
        raise InvalidInput(
            f"resume_data={resume_data!r}: it is 'continue' where data that can be read once goes on where the run "
            "was, else None"
        )
    once = plan.source is not None and plan.source.once
    if resume_data is not None and not once:
        raise InvalidInput(
            "resume_data='continue' is for data that can be read once only; a resumed run finds its place in this by "
            "itself: leave it out"
        )
    restarts: int = getattr(runner, "restarts", 0)
    if plan.fed and restarts:
        raise InvalidInput(
            "ProcessExecutor(restarts=…) cannot be used here: what a lost worker was given of data that yields batches "
            "cannot be given to another one; use restarts=0, or arrays, memory maps and HDF5 data sets"
        )


def _check_options(*, lookahead: Any, bus: Any, run_id: Any, drain_timeout: Any, grace: Any) -> None:
    if isinstance(lookahead, bool) or not isinstance(lookahead, int | np.integer) or lookahead < 0:
        raise InvalidInput(f"lookahead is a whole number of boundaries, 0 for lock-step, not {lookahead!r}")
    if bus is not None and not isinstance(bus, EventBus):
        raise TypeError(f"bus= takes an af.EventBus(), not {bus!r}")
    if run_id is not None and not (isinstance(run_id, str) and run_id):
        raise TypeError(f"run_id= takes text, not {run_id!r}")
    for name, seconds in (("drain_timeout", drain_timeout), ("grace", grace)):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise InvalidInput(f"{name} is a number of seconds of at least 0, not {seconds!r}")


def _executor(given: str | Executor) -> Executor:
    if isinstance(given, str):
        if given not in EXECUTORS:
            raise InvalidInput(unknown("executor", given, EXECUTORS))
        return EXECUTORS[given]()
    if isinstance(given, type) or not callable(getattr(given, "place", None)):
        raise TypeError(f"executor= takes {', '.join(map(repr, EXECUTORS))} or an executor, not {given!r}")
    return given


def _key_of(resumed: Resumed, chosen: int | None) -> tuple[int, int]:
    """Seed and number of the fit as they were, unless another seed was chosen than that."""
    seed, fits, model_seed = (resumed.settings.get(name) for name in ("seed", "fits", "model_seed"))
    for number, limit in ((seed, 2**64), (fits, 2**63), (model_seed, 2**64)):
        if type(number) is not int or not 0 <= number < limit:
            raise BadFile(f"{resumed.path} is damaged: it has no seed")
    if chosen is not None and chosen != seed:
        raise InvalidInput(
            f"{resumed.path} is of another run, so this one cannot go on with it: seed was {seed} and is {chosen}. "
            "Give the same seed again, or another directory to begin anew"
        )
    return seed, fits  # type: ignore[return-value]


def _tell_what_is_not_used(resumed: Resumed, rate: float | None, epochs: int) -> None:
    """Log what is otherwise than in the run before, and has no effect."""
    before = resumed.settings.get("rate")
    if rate is not None and isinstance(before, float) and before != rate:
        _logger.warning(
            "the learning rate %g is not used (it was %g when the run began): a resumed run goes on with its own; "
            "run.set_learning_rate(…) sets another", rate, before,
        )  # fmt: skip
    if resumed.position.epoch >= epochs and resumed.carried.stop is None:
        _logger.warning(
            "%s is of a run with %d epochs done, so none of %d is left", resumed.path, resumed.position.epoch, epochs
        )


def _check_place(resumed: Resumed, steps: Callable[[int], int], trainable: Any) -> None:
    """Refuse a checkpoint that cannot be one of this run, although it says so."""
    at = resumed.position
    if at.batch and at.batch >= steps(at.epoch):
        raise BadFile(f"{resumed.path} is damaged: epoch {at.epoch} has no batch {at.batch}")
    check_state, check_weights = (getattr(trainable, name, None) for name in ("check_state", "check_weights"))
    asked = [update.value for update in (resumed.carried.restore, resumed.carried.fallback) if update is not None]
    if resumed.change is not None and resumed.change.weights is not None:
        asked.append(resumed.change.weights)
    try:
        if check_state is not None:
            rate = None if resumed.change is None else resumed.change.rate
            check_state(resumed.state if rate is None else {**resumed.state, "learning_rate": rate})
            check_state(resumed.state)
        if check_weights is not None:
            for weights in asked:
                check_weights(weights)
    except InvalidInput as error:
        raise BadFile(f"{resumed.path} is damaged: {error}") from error


def _name_half_a_memory(callbacks: Iterable[Callback]) -> None:
    for kind in {type(callback) for callback in callbacks}:
        if kind.state_dict is not Callback.state_dict and kind.load_state_dict is Callback.load_state_dict:
            _logger.warning(
                "%s has a state_dict but no load_state_dict: checkpoints keep its state, and nothing takes it up again",
                kind.__name__,
            )


def _resume_path(resume: Any) -> str | None:
    if resume is None:
        return None
    try:
        path = os.fsdecode(os.fspath(resume))
    except TypeError:
        raise TypeError(f"resume= takes the path of a checkpoint, or of a directory of them, not {resume!r}") from None
    if not is_path(path):
        raise InvalidInput(f"resume={path!r} is no path")
    return path


def _metrics(trainable: Trainable) -> dict[str, Any]:
    """The model's metrics, for `TrainBegin.params`; only our own models tell."""
    directions: Mapping[str, str | None] | None = getattr(trainable, "metric_directions", None)
    return {} if directions is None else {"metrics": dict(directions)}


def _schedule(trainable: Trainable) -> str | None:
    """Why the learning rate cannot be set, None if it can."""
    told: object = getattr(trainable, "why_scheduled", None)  # our own models know what it follows
    if isinstance(told, str):
        return told
    rate = inspect.getattr_static(trainable, "learning_rate", None)
    if isinstance(rate, property) and rate.fset is None:
        return f"the learning rate of {type(trainable).__name__} has no setter: it follows a schedule of its own"
    return None
