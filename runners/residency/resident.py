"""The state of one model in a runner process: absent, unloaded, loading, building_engine, ready or failed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from engines.engine import Engine
from models.catalogue import ModelName
from models.state import LastError, ModelStatus, State, refusal
from models.store import StoredModel, StoreError, remedy
from runners.residency.back_off import BackOff
from runners.residency.load_failure import LoadFailure

FIRST_RETRY_S: Final = 5.0  # until the next try after too little memory; other models may have left by then
LONGEST_RETRY_S: Final = 300.0  # the wait doubles up to this, because each try takes time from the other models


class ModelUnavailable(RuntimeError):
    """The model can't answer now. The text is for the caller and says what the operator can do."""


@dataclass(eq=False)
class Loaded:
    """A model that can answer. Times are in seconds of time.monotonic()."""

    stored: StoredModel
    engine: Engine
    since: float = field(default_factory=time.monotonic)
    last_used: float = field(default_factory=time.monotonic)
    users: int = 0  # calls under way; its engine is closed only at 0


class Resident:
    """The state of one model. Callers use it through `lease`; Residency decides when to load and evict it.

    The condition `change` guards all fields and is notified of every change. All models of a process share it.
    """

    def __init__(
        self,
        name: ModelName,
        find: Callable[[], StoredModel | None],
        change: threading.Condition,
        request_load: Callable[[Resident], None],
    ) -> None:
        """find: looks into the model store. request_load: queues a load on the residency's thread."""
        self.name = name
        self.loaded: Loaded | None = None
        self.memory_mb: float | None = None  # measured growth at the last load; None before the first
        self.most_mb = 0.0  # the largest of all loads: one that reuses another model's freed heap hardly grows
        self.loads = 0
        self._find = find
        self._change = change
        self._request_load = request_load
        self._stored: StoredModel | None = None
        self._state = State.ABSENT
        self._detail: str | None = None
        self._refusal: str | None = None  # the text for callers instead of the detail
        self._back_off = BackOff(FIRST_RETRY_S, LONGEST_RETRY_S)  # for failures that may pass
        self._building: str | None = None
        self._build_failure: str | None = None
        self._last_error: LastError | None = None
        self._look()

    @contextmanager
    def lease(self, timeout: float) -> Iterator[Loaded]:
        """Hold the loaded model while the block runs. Loads it first if necessary, and waits for that.

        Raises ModelUnavailable if the load fails or takes over `timeout` s.
        """
        end = time.monotonic() + timeout
        self.look_again()
        with self._change:
            self.forget_failure()
            while self.loaded is None:
                self.start_loading()
                if self._state is not State.LOADING:
                    raise ModelUnavailable(self._refusal or refusal(self.name, self._state, self._detail))
                if not self._change.wait_for(lambda: self._state is not State.LOADING, end - time.monotonic()):
                    raise ModelUnavailable(f"{self.name} is still loading after {timeout:g} s{self._reason()}")
            loaded = self.loaded
            loaded.users += 1
        try:
            yield loaded
        finally:
            with self._change:
                loaded.users -= 1
                loaded.last_used = time.monotonic()
                self._change.notify_all()

    def look_again(self) -> None:
        """Look into the model store again if the model was not found: it may have been imported meanwhile."""
        with self._change:
            if self._stored is None:
                self._look()

    def forget_failure(self) -> None:
        """Allow another load after a failure that may pass, if its wait is over."""
        with self._change:
            if self._back_off.left_s == 0:
                self.memory_mb = None  # to be measured again: on a CPU it may include calls of other models
                self._look()

    def start_loading(self) -> None:
        """Request a load of the version that the store has now, if the model is unloaded."""
        with self._change:
            if self._state is State.UNLOADED:
                self._look()
            if self._state is State.UNLOADED:
                self._state, self._detail = State.LOADING, None
                self._request_load(self)

    def status(self) -> ModelStatus:
        """The model's status for the API."""
        with self._change:
            loaded = self.loaded
            engine = loaded.engine if loaded else None
            building = self._building if self.loaded else None
            return {
                "state": State.BUILDING_ENGINE if building else self._state,
                "engine": engine.name if engine else None,
                "precision": engine.precision if engine else None,
                "weights": self._stored.label_for_health if self._stored else None,
                "untrained": self._stored.card.untrained if self._stored else False,
                "detail": building or self._why() or (self._build_failure if self.loaded else None),
                "input": self._stored.card.input if self._stored else None,
                "card": self._stored.card.summary if self._stored else None,
                "memory_mb": round(self.memory_mb) if self.memory_mb is not None else None,
                "loads": self.loads,
                "last_used": time.time() - (time.monotonic() - loaded.last_used) if loaded else None,
                "engine_build_failed": self._build_failure is not None,
                "last_error": self._last_error,
            }

    # The rest is for runners.residency.residency only.

    @property
    def stored(self) -> StoredModel:
        """The model in the store. A load is requested only if there is one."""
        assert self._stored is not None
        return self._stored

    @property
    def is_loading(self) -> bool:
        """Whether it is being loaded or queued for it."""
        return self._state is State.LOADING

    def measure(self, memory_mb: float) -> None:
        """Note by how many MB the process grew during the load."""
        self.memory_mb = max(0.0, memory_mb)
        self.most_mb = max(self.most_mb, memory_mb)

    def explain(self, detail: str | None) -> None:
        """Set the detail for /health: what the model is waiting for."""
        with self._change:
            self._detail = detail

    def set_building(self, detail: str | None, *, failure: str | None = None) -> None:
        """Note that a faster engine is being built while the present one serves; None = no longer.

        failure: why the build failed. It stays until the next build begins, even if the model is evicted meanwhile.
        """
        with self._change:
            self._building, self._build_failure = detail, failure
            if failure is not None:
                self._note(failure)
            self._change.notify_all()

    def settle_ready(self, engine: Engine) -> None:
        """Let the model answer with this engine."""
        with self._change:
            self.loaded = Loaded(self.stored, engine)
            self.loads += 1
            self._state, self._detail, self._refusal = State.READY, None, None
            self._back_off.reset()
            self._change.notify_all()

    def settle_failed(self, failure: LoadFailure) -> None:
        """Note a failed load. If it may pass, it is tried again after a growing wait."""
        with self._change:
            self._state, self._detail, self._refusal = State.FAILED, failure.detail, failure.told
            self._note(failure.detail)
            if failure.may_pass:
                self._back_off.failed()
            self._change.notify_all()

    def replace(self, engine: Engine) -> Loaded:
        """Let another engine answer from now on. Returns the former one; calls may still be under way on it."""
        with self._change:
            former = self.loaded
            assert former is not None  # only the residency evicts models, and it checks first
            self.loaded = Loaded(former.stored, engine, last_used=former.last_used)
            self._building = self._build_failure = None
            self._change.notify_all()
            return former

    def take_out(self, detail: str) -> Loaded:
        """Take no new calls for the model. Returns it; calls may still be under way on it."""
        with self._change:
            former, self.loaded = self.loaded, None
            assert former is not None  # as above
            self._state, self._detail = State.UNLOADED, detail
            self._change.notify_all()
            return former

    def _why(self) -> str | None:
        """The detail for /health, with the time until the next try."""
        left_s = self._back_off.left_s
        return f"{self._detail}; the next try is in {math.ceil(left_s)} s at the earliest" if left_s else self._detail

    def _reason(self) -> str:
        return f": {self._detail}" if self._detail else ""

    def _note(self, message: str) -> None:
        self._last_error = {"at": time.time(), "message": message}

    def _look(self) -> None:
        self._refusal = None
        self._back_off.begin()
        self._stored = None
        try:
            self._stored = self._find()
        except StoreError as error:
            self._state, self._detail = State.FAILED, str(error)
            if self._last_error is None or self._last_error["message"] != str(error):  # each heartbeat looks again
                self._note(str(error))
            return
        if self._stored is None:
            self._state = State.ABSENT
            self._detail = f"its weights are not in the model store; {remedy(self.name)}"
        else:
            self._state, self._detail = State.UNLOADED, None
