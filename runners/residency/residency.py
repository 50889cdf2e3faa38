"""Loads and evicts the models of a runner process: preload, on demand, by budget, by idle time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from engines.engine import Engine
from engines.errors import DeviceLost, OutOfMemory
from models.catalogue import ModelName
from models.store import StoredModel
from runners.residency.back_off import BackOff
from runners.residency.budget import Budget, Policy
from runners.residency.graphs import Graphs
from runners.residency.load_failure import DoesNotFit, LoadFailure, failure_of
from runners.residency.loading import EngineSwap, Loader
from runners.residency.memory import Memory, held_mb
from runners.residency.resident import Loaded, ModelUnavailable, Resident

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_TICK_S: Final = 0.5  # between two checks of idle times
_TRIM_S: Final = 10.0  # between two checks of the memory that calls leave behind
_CAPTURE_S: Final = 60.0  # between two looks for room for graphs
_GRAPHS_AGAIN_S: Final = (60.0, 3600.0)  # the first and the longest wait
_STOP_S: Final = 10.0  # the longest that `close` waits for a load under way


class Residency:
    """The models of one process. One thread does all loads and evictions, in the order of the requests.

    A model's memory is known only after its first load. So a first load may exceed the budget by the model's size
    until it is measured. Before later loads, models are evicted first.
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
        self._released: set[ModelName] = set()  # unloaded by an operator: `refresh` must not preload them again
        self.models: dict[ModelName, Resident] = {
            name: Resident(name, partial(loader.find, name), self._change, self._request_load) for name in names
        }
        self._budget = Budget(self.models, memory, policy, self._change, lambda: self._stopping)
        self._graphs = Graphs(self.models, memory, lambda: self._budget.limit_mb)
        self._graphs_again = BackOff(*_GRAPHS_AGAIN_S)
        # When a call last cost the graphs, caches were last looked at, and graphs were last captured.
        self._squeezed = self._trimmed = self._captured = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="loader", daemon=True)
        self._thread.start()

    @property
    def budget_mb(self) -> float:
        """The memory that the process may use, in MB; 0 = no limit. See Budget.limit_mb."""
        return self._budget.limit_mb

    def refresh(self) -> None:
        """Find newly imported models, and start loading preloaded ones. Returns at once.

        Preloaded models whose load failed for lack of memory are tried again here. No request would do it: while
        readiness fails, none may arrive.
        """
        for name, resident in self.models.items():
            resident.look_again()
            if name in self._policy.preloaded and name not in self._released:
                resident.forget_failure()
                resident.start_loading()

    def load(self, name: ModelName, timeout: float) -> None:
        """Load a model, and wait. Raises ModelUnavailable if that fails or takes over `timeout` s."""
        self._released.discard(name)
        with self.models[name].lease(timeout):
            pass

    def unload(self, name: ModelName, timeout: float) -> None:
        """Evict a model until the next request for it, and wait.

        Raises ModelUnavailable if that takes over `timeout` s, because of a load or a long call under way.
        """
        resident, done = self.models[name], threading.Event()
        self._released.add(name)

        def evict() -> None:
            if resident.loaded is not None:
                self._evict(resident, "unloaded on request")
            done.set()

        self._enqueue(evict)
        if not done.wait(timeout):
            raise ModelUnavailable(f"{name} was not unloaded within {timeout:g} s: it is still loading or in use")

    def free_memory(self) -> None:
        """Free what the models can do without, as a call found too little memory: first of all the CUDA graphs.

        May be called on any thread. The graphs are captured again after a while, which grows if it happens again.
        """
        if not self._graphs.give_back():
            self._memory.trim()
            return
        with self._change:
            if time.monotonic() - self._squeezed > _GRAPHS_AGAIN_S[1]:
                self._graphs_again.reset()
            self._squeezed = time.monotonic()
            self._graphs_again.failed()

    def swap_engine(self, resident: Resident, swap: EngineSwap) -> None:
        """Swap the engine of a loaded model once the new one is warm. Returns at once."""
        self._enqueue(lambda: self._swap_engine(resident, swap))

    def close(self) -> None:
        """End the thread. Waits a limited time for a load under way."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        self._thread.join(_STOP_S)

    def _request_load(self, resident: Resident) -> None:
        self._enqueue(lambda: self._load_and_settle(resident))

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
                self._evict_idle()
                self._tidy()
            except Exception:  # such as the driver's errors; without this thread all later requests would wait
                logger.exception("a model could not be loaded or unloaded")

    def _load_and_settle(self, resident: Resident) -> None:
        began = time.monotonic()
        outcome = self._load_or_fail(resident)
        if isinstance(outcome, LoadFailure):
            self._memory.give_back()
            self._capture_graphs(resident)
            resident.settle_failed(outcome)
            logger.error("%s can't be served: %s", resident.name, outcome.detail)
            return
        if resident.name in self._policy.preloaded:  # before calls arrive, which need memory of their own
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
        self._loader.on_ready(resident, self.swap_engine)
        self._evict_over_budget(resident)
        self._capture_graphs()

    def _capture_graphs(self, coming: Resident | None = None, engine: Engine | None = None) -> None:
        """See Graphs.capture. A failure is logged; the models serve without graphs.

        Does nothing while calls need the memory that graphs had.
        """
        if self._graphs_again.left_s:
            return
        self._captured = time.monotonic()
        try:
            self._graphs.capture(coming, engine)
        except DeviceLost as error:
            self._loader.on_device_lost(error)
        except Exception:
            logger.exception("CUDA graphs could not be captured; the models serve without them")

    def _load_or_fail(self, resident: Resident) -> Engine | LoadFailure:
        try:
            self._loader.start()
            self._make_room(resident)
            resident.explain(None)
            return self._load_measured(resident)
        except Exception as error:  # noqa: BLE001 - reported as the model's failure
            if isinstance(error, DeviceLost):
                self._loader.on_device_lost(error)
            return failure_of(resident.name, error)

    def _swap_engine(self, resident: Resident, swap: EngineSwap) -> None:
        if resident.loaded is None or not swap.wanted(resident.loaded):
            swap.on_done(None)
            return
        try:
            engine, grown_mb = self._measured(resident.stored, swap.load)
        except DeviceLost as error:
            self._loader.on_device_lost(error)
            return
        except Exception as error:  # noqa: BLE001 - reported to on_done; the present engine stays
            failure = error.with_traceback(None)  # the traceback would keep the memory in use
        else:
            resident.measure(grown_mb)
            former = resident.replace(engine)
            swap.on_done(None)
            self._close(former)
            logger.info("%s now runs on %s (%s)", resident.name, engine.name, engine.precision)
            self._evict_over_budget(resident)
            self._capture_graphs()
            return
        failure.__cause__ = failure.__context__ = None
        self._memory.give_back()
        swap.on_done(failure)

    def _measured(self, stored: StoredModel, load: Callable[[], Engine]) -> tuple[Engine, float]:
        """Load and warm up an engine; return it and the process's growth in MB. Frees graphs if memory is short."""
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
        """Load a model, and measure its memory. Raises DoesNotFit if no eviction could make it fit."""
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
        """Before a load, evict models until this one fits, if its size is known. Raises DoesNotFit."""
        needed = resident.memory_mb
        if needed is not None:
            self._evict_until(resident, lambda: self._memory.used_mb() + needed)

    def _evict_over_budget(self, resident: Resident) -> None:
        """After a load, evict other models until the budget holds again."""
        try:
            self._evict_until(resident, self._memory.used_mb)
        except DoesNotFit as error:  # the evicted models freed less than they had taken
            logger.warning("the memory budget is exceeded: %s", error)

    def _evict_until(self, resident: Resident, wanted_mb: Callable[[], float]) -> None:
        """Evict until `wanted_mb()` is within the budget. Raises DoesNotFit."""
        self._graphs.make_room(wanted_mb)
        while (other := self._budget.to_evict(resident, wanted_mb)) is not None:
            self._evict(other, f"evicted to make room for {resident.name}")

    def _evict(self, resident: Resident, reason: str) -> None:
        before = self._memory.used_mb()
        self._close(resident.take_out(reason))
        after = self._memory.used_mb()
        # Libraries keep a part of what a first load takes, so the model takes only what it gave back when it returns.
        resident.memory_mb = resident.most_mb = max(0.0, before - after)
        logger.info("%s %s: %.0f MB before, %.0f MB after", resident.name, reason, before, after)

    def _close(self, loaded: Loaded) -> None:
        """Wait for the calls on an engine that takes no new ones, and free its memory."""
        with self._change:
            self._change.wait_for(lambda: loaded.users == 0)
        loaded.engine.close()
        self._memory.give_back()

    def _evict_idle(self) -> None:
        for name, resident in self.models.items():
            ttl, loaded = self._policy.idle_ttl_s[name], resident.loaded
            if not ttl or name in self._policy.preloaded or loaded is None or loaded.users:
                continue
            if time.monotonic() - loaded.last_used >= ttl:
                self._evict(resident, f"evicted after {ttl:g} s without a request")

    def _tidy(self) -> None:
        """Capture the graphs that had no room beside the calls of then, and trim what calls left beyond the budget."""
        if time.monotonic() - self._captured >= _CAPTURE_S:
            self._capture_graphs()
        if time.monotonic() - self._trimmed >= _TRIM_S:
            self._trimmed = time.monotonic()
            if self.budget_mb and self._memory.used_mb() > self.budget_mb:
                self._memory.trim()
