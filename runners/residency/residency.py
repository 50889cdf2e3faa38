"""Which models of a runner process are in memory: preload, on demand, budget, idle time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from engines.engine import Engine
from engines.errors import DeviceLost, OutOfMemory
from models.catalogue import ModelName
from models.store import StoredModel
from runners.residency.budget import Budget, Policy
from runners.residency.graphs import Graphs
from runners.residency.load_failure import DoesNotFit, LoadFailure, failure_of
from runners.residency.memory import Memory, held_mb
from runners.residency.resident import Loaded, ModelUnavailable, Resident

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_TICK_S: Final = 0.5  # how often idle times are looked at
_STOP_S: Final = 10.0  # how long a stop waits for a load under way


@dataclass(frozen=True)
class Exchange:
    """Another engine for a loaded model.

    wanted: whether what is loaded is still to be exchanged. load: makes the engine. on_done: told None where it went
    well or was not wanted, or the model has left meanwhile; else why it failed, and the present engine goes on.
    """

    wanted: Callable[[Loaded], bool]
    load: Callable[[], Engine]
    on_done: Callable[[Exception | None], None]


class Loader(Protocol):
    """How the models of a process are found and loaded. All but `find` is called on the residency's thread."""

    def find(self, name: ModelName) -> StoredModel | None:
        """What the model store has of a model. Raises StoreError where that can't be used."""
        ...

    def start(self) -> None:
        """Make what all models share and none is to be charged for. Called before each load."""
        ...

    def load(self, stored: StoredModel) -> Engine:
        """Raises EngineError, OutOfMemory or DeviceLost."""
        ...

    def warm_up(self, stored: StoredModel, engine: Engine) -> None:
        """Run what would be slow the first time. Raises as the engine does."""
        ...

    def on_ready(self, resident: Resident, exchange: Callable[[Resident, Exchange], None]) -> None:
        """A model can answer. exchange: Residency.exchange, for another engine that is to take its place."""
        ...

    def on_device_lost(self, error: DeviceLost) -> None:
        """The process can compute nothing any more."""
        ...


class Residency:
    """The models of one process. Everything that loads or unloads happens on its one thread, in the order asked for.

    What a model takes is known after its first load, so only that one can go beyond the budget, by its own size and
    until it is measured; after that room is made first.
    """

    def __init__(
        self,
        names: Sequence[ModelName],
        loader: Loader,
        memory: Memory,
        policy: Policy,
    ) -> None:
        self._loader = loader
        self._memory = memory
        self._policy = policy
        self._change = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._released: set[ModelName] = set()  # unloaded by an operator: a preloaded one must not come back by itself
        self.models: dict[ModelName, Resident] = {
            name: Resident(name, partial(loader.find, name), self._change, self._request_load) for name in names
        }
        self._budget = Budget(self.models, memory, policy, self._change, lambda: self._stopping)
        self._graphs = Graphs(self.models, memory, lambda: self._budget.limit_mb)
        self._thread = threading.Thread(target=self._work, name="loader", daemon=True)
        self._thread.start()

    @property
    def budget_mb(self) -> float:
        """What the process may take, as far as is known now; 0 = no limit."""
        return self._budget.limit_mb

    def refresh(self) -> None:
        """Notice what was imported meanwhile, and begin to load what is to be preloaded. Returns at once.

        That is also what failed for memory, a while ago: readiness may keep away the requests that would try it again.
        """
        for name, resident in self.models.items():
            resident.look_again()
            if name in self._policy.pinned and name not in self._released:
                resident.forget_failure()
                resident.start_loading()

    def load(self, name: ModelName, timeout: float) -> None:
        """Have a model loaded, and wait. Raises ModelUnavailable if that fails or takes over `timeout` s."""
        self._released.discard(name)
        with self.models[name].lease(timeout):
            pass

    def unload(self, name: ModelName, timeout: float) -> None:
        """Have a model leave memory until it is asked for again, and wait until it has left.

        Raises ModelUnavailable where that takes over `timeout` s: a load or a long call is under way.
        """
        resident, left = self.models[name], threading.Event()
        self._released.add(name)

        def leave() -> None:
            if resident.loaded is not None:
                self._evict(resident, "left on request")
            left.set()

        self._enqueue(leave)
        if not left.wait(timeout):
            raise ModelUnavailable(f"{name} has not left after {timeout:g} s: it is still loading or in use")

    def exchange(self, resident: Resident, exchange: Exchange) -> None:
        """Let another engine take the place of a loaded model's, once it is warm. Returns at once."""
        self._enqueue(lambda: self._exchange(resident, exchange))

    def close(self) -> None:
        """End the thread; a load under way is waited for, but not for ever."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        self._thread.join(_STOP_S)

    def _request_load(self, resident: Resident) -> None:
        self._enqueue(lambda: self._bring_in(resident))

    def _enqueue(self, job: Callable[[], None]) -> None:
        with self._change:
            self._jobs.append(job)
            self._change.notify_all()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._stopping, _TICK_S)
                if self._stopping:
                    return
                job = self._jobs.popleft() if self._jobs else None
            try:
                if job is not None:
                    job()
                self._let_idle_ones_go()
            except Exception:  # the driver's own errors: a thread that ended would leave every later request waiting
                logger.exception("a model could not be loaded or unloaded")

    def _bring_in(self, resident: Resident) -> None:
        began = time.monotonic()
        outcome = self._load_or_fail(resident)
        if isinstance(outcome, LoadFailure):
            self._memory.give_back()
            self._capture_graphs(resident)
            resident.settle_failed(outcome)
            logger.error("%s can't be served: %s", resident.name, outcome.detail)
            return
        if resident.name in self._policy.pinned:  # before readiness lets calls in, which take memory for a while
            self._capture_graphs(resident, outcome)
        resident.settle_ready(outcome)
        logger.info(
            "%s is ready on %s (%s) after %.1f s, %.0f MB: %s",
            resident.name,
            outcome.name,
            outcome.precision,
            time.monotonic() - began,
            resident.memory_mb,
            resident.stored.label_for_health,
        )
        self._loader.on_ready(resident, self.exchange)
        self._trim(resident)
        self._capture_graphs()

    def _capture_graphs(self, coming: Resident | None = None, engine: Engine | None = None) -> None:
        """See Graphs.capture. No model is the worse where that fails."""
        try:
            self._graphs.capture(coming, engine)
        except DeviceLost as error:
            self._loader.on_device_lost(error)
        except Exception:
            logger.exception("CUDA graphs could not be captured")

    def _load_or_fail(self, resident: Resident) -> Engine | LoadFailure:
        try:
            self._loader.start()
            self._make_room(resident)
            resident.explain(None)
            return self._load_measured(resident)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told
            if isinstance(error, DeviceLost):
                self._loader.on_device_lost(error)
            return failure_of(resident.name, error)

    def _exchange(self, resident: Resident, exchange: Exchange) -> None:
        if resident.loaded is None or not exchange.wanted(resident.loaded):
            exchange.on_done(None)
            return
        try:
            engine, grown_mb = self._measured(resident.stored, exchange.load)
        except DeviceLost as error:
            self._loader.on_device_lost(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told, and the present engine goes on
            failure = error.with_traceback(None)  # which would hold what is to be given back
        else:
            resident.measure(grown_mb)
            former = resident.replace(engine)
            exchange.on_done(None)
            self._close(former)
            logger.info("%s is on %s (%s) now", resident.name, engine.name, engine.precision)
            self._trim(resident)
            self._capture_graphs()
            return
        failure.__cause__ = failure.__context__ = None
        self._memory.give_back()
        exchange.on_done(failure)

    def _measured(self, stored: StoredModel, load: Callable[[], Engine]) -> tuple[Engine, float]:
        """A loaded engine, warmed up, and by how many MB the process grew. Graphs leave where memory is short."""
        try:
            return self._measured_once(stored, load)
        except OutOfMemory:
            if not self._graphs.give_back():
                raise
        return self._measured_once(stored, load)

    def _measured_once(self, stored: StoredModel, load: Callable[[], Engine]) -> tuple[Engine, float]:
        before = held_mb(self._memory)
        engine = load()
        try:
            self._loader.warm_up(stored, engine)
            return engine, held_mb(self._memory) - before
        except BaseException:
            engine.close()
            raise

    def _load_measured(self, resident: Resident) -> Engine:
        """Load, and measure by how much the process grew. Raises DoesNotFit if that is too much even alone."""
        engine, grown_mb = self._measured(resident.stored, lambda: self._loader.load(resident.stored))
        resident.measure(grown_mb)
        self._graphs.make_room(self._memory.used_mb)
        try:
            self._budget.check(resident, self._memory.used_mb)
        except DoesNotFit:
            engine.close()
            raise
        return engine

    def _make_room(self, resident: Resident) -> None:
        """Before a load whose size is known: evict until it fits. Raises DoesNotFit."""
        needed = resident.memory_mb
        if needed is not None:
            self._evict_until(resident, lambda: self._memory.used_mb() + needed)

    def _trim(self, resident: Resident) -> None:
        """Let others leave for a model that is loaded, and serves already."""
        try:
            self._evict_until(resident, self._memory.used_mb)
        except DoesNotFit as error:  # the others gave back less than they had taken
            logger.warning("the budget is passed: %s", error)

    def _evict_until(self, resident: Resident, wanted_mb: Callable[[], float]) -> None:
        """Evict until `wanted_mb()` is within the budget. Raises DoesNotFit."""
        self._graphs.make_room(wanted_mb)
        while (leaving := self._budget.who_leaves(resident, wanted_mb)) is not None:
            self._evict(leaving, f"left to make room for {resident.name}")

    def _evict(self, resident: Resident, reason: str) -> None:
        before = self._memory.used_mb()
        self._close(resident.take_out(reason))
        logger.info("%s %s: %.0f MB before, %.0f MB after", resident.name, reason, before, self._memory.used_mb())

    def _close(self, loaded: Loaded) -> None:
        """Wait until nobody uses an engine that nobody new can get, and give its memory back."""
        with self._change:
            self._change.wait_for(lambda: loaded.users == 0)
        loaded.engine.close()
        self._memory.give_back()

    def _let_idle_ones_go(self) -> None:
        for name, resident in self.models.items():
            ttl, loaded = self._policy.idle_ttl_s[name], resident.loaded
            if not ttl or name in self._policy.pinned or loaded is None or loaded.users:
                continue
            if time.monotonic() - loaded.last_used >= ttl:
                self._evict(resident, f"left after {ttl:g} s without a request")
