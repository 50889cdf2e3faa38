"""One model's life in a runner process: absent, unloaded, loading, building_engine, ready or failed."""

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
from models.state import ModelStatus, State, refusal
from models.store import StoredModel, StoreError
from runners.residency.back_off import BackOff
from runners.residency.load_failure import LoadFailure

FIRST_RETRY_S: Final = 5.0  # after which a model that found too little memory is tried again: others may have left
LONGEST_RETRY_S: Final = 300.0  # to which that grows, doubled with each failure: a load takes time from the others


class ModelUnavailable(RuntimeError):
    """The model can't answer now; the text is for the caller of the service and says what the operator can do."""


@dataclass(eq=False)
class Loaded:
    """A model that can answer. Times are of time.monotonic()."""

    stored: StoredModel
    engine: Engine
    since: float = field(default_factory=time.monotonic)
    last_used: float = field(default_factory=time.monotonic)
    users: int = 0  # calls under way; it may be closed when there are none


class Resident:
    """What is known of one model, and the way to it: `lease`. What becomes of it is decided by Residency.

    `change` guards everything here and is notified at every change; it is one for all models of a process.
    """

    def __init__(
        self,
        name: ModelName,
        find: Callable[[], StoredModel | None],
        change: threading.Condition,
        request_load: Callable[[Resident], None],
    ) -> None:
        """`find` looks into the model store; `request_load` has the model loaded soon, on a thread that is not ours."""
        self.name = name
        self.loaded: Loaded | None = None
        self.memory_mb: float | None = None  # what loading it took the last time, measured; None before the first
        self.most_mb = 0.0  # the most of all times: where a load takes heap that another freed, it hardly shows
        self.loads = 0
        self._find = find
        self._change = change
        self._request_load = request_load
        self._stored: StoredModel | None = None
        self._state = State.ABSENT
        self._detail: str | None = None
        self._refusal: str | None = None  # what callers are told in place of the detail
        self._back_off = BackOff(FIRST_RETRY_S, LONGEST_RETRY_S)  # waits while a failure that may pass is not forgotten
        self._building: str | None = None
        self._build_failure: str | None = None
        self._look()

    @contextmanager
    def lease(self, timeout: float) -> Iterator[Loaded]:
        """The loaded model for as long as the block runs, as soon as it is there; has it loaded if need be.

        Raises ModelUnavailable if that fails or takes over `timeout` s.
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
        """Look into the model store where nothing usable was found: the operator may have imported it meanwhile."""
        with self._change:
            if self._stored is None:
                self._look()

    def forget_failure(self) -> None:
        """Let a model that failed for the time being be loaded again, once its time has come."""
        with self._change:
            if self._back_off.left_s == 0:
                self.memory_mb = None  # measured anew: on a CPU other models' calls may have been counted in
                self._look()

    def start_loading(self) -> None:
        """Begin to load, unless that has begun already or there is nothing to load."""
        with self._change:
            if self._state is State.UNLOADED:
                self._state, self._detail = State.LOADING, None
                self._request_load(self)

    def status(self) -> ModelStatus:
        """What the runner says of this model to the API."""
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
                "memory_mb": round(self.memory_mb) if self.memory_mb is not None else None,
                "loads": self.loads,
                "last_used": time.time() - (time.monotonic() - loaded.last_used) if loaded else None,
                "engine_build_failed": self._build_failure is not None,
            }

    # What follows is for runners.residency.residency, which decides.

    @property
    def stored(self) -> StoredModel:
        """What `find` found; there is something wherever a load was requested."""
        assert self._stored is not None
        return self._stored

    @property
    def is_loading(self) -> bool:
        """Whether it is being loaded, or waits for its turn."""
        return self._state is State.LOADING

    def measure(self, memory_mb: float) -> None:
        """Keep what loading took."""
        self.memory_mb = max(0.0, memory_mb)
        self.most_mb = max(self.most_mb, memory_mb)

    def explain(self, detail: str | None) -> None:
        """Say in /health what the model is waiting for."""
        with self._change:
            self._detail = detail

    def set_building(self, detail: str | None, *, failure: str | None = None) -> None:
        """Say that a faster engine is being built while the present one serves; None: no longer.

        failure: why there is none. It stays until another build begins, whatever becomes of the model meanwhile.
        """
        with self._change:
            self._building, self._build_failure = detail, failure
            self._change.notify_all()

    def settle_ready(self, engine: Engine) -> None:
        """The model can answer."""
        with self._change:
            self.loaded = Loaded(self.stored, engine)
            self.loads += 1
            self._state, self._detail, self._refusal = State.READY, None, None
            self._back_off.reset()
            self._change.notify_all()

    def settle_failed(self, failure: LoadFailure) -> None:
        """The model can't be had; where that may pass, it can be tried again, after an ever longer while."""
        with self._change:
            self._state, self._detail, self._refusal = State.FAILED, failure.detail, failure.told
            if failure.may_pass:
                self._back_off.failed()
            self._change.notify_all()

    def replace(self, engine: Engine) -> Loaded:
        """Let another engine answer from now on. Returns the former one, with calls perhaps still under way on it."""
        with self._change:
            former = self.loaded
            assert former is not None  # only the residency takes models out, and it asks this
            self.loaded = Loaded(former.stored, engine, last_used=former.last_used)
            self._building = self._build_failure = None
            self._change.notify_all()
            return former

    def take_out(self, detail: str) -> Loaded:
        """Let nobody get the model from now on. Returns it, with calls perhaps still under way on it."""
        with self._change:
            former, self.loaded = self.loaded, None
            assert former is not None  # as above
            self._state, self._detail = State.UNLOADED, detail
            self._change.notify_all()
            return former

    def _why(self) -> str | None:
        """The detail for /health, with when a failure that may pass allows another try."""
        left_s = self._back_off.left_s
        return f"{self._detail}; the next try is in {math.ceil(left_s)} s at the earliest" if left_s else self._detail

    def _reason(self) -> str:
        return f": {self._detail}" if self._detail else ""

    def _look(self) -> None:
        self._refusal = None
        self._back_off.begin()
        self._stored = None
        try:
            self._stored = self._find()
        except StoreError as error:
            self._state, self._detail = State.FAILED, str(error)
            return
        if self._stored is None:
            self._state = State.ABSENT
            self._detail = f"its weights are not in the model store; run: python -m models.import_models {self.name}"
        else:
            self._state, self._detail = State.UNLOADED, None
