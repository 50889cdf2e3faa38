"""One model's life in a runner process: absent, unloaded, loading, ready or failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from models.catalogue import ModelName
from models.store import StoredModel, StoreError
from runners.contract import ModelStatus, State, refusal
from runners.engines import Engine
from runners.engines.errors import EngineError

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


class ModelUnavailable(RuntimeError):
    """The model can't answer now; the text is for the caller of the service and says what the operator can do."""


@dataclass(frozen=True)
class Loaded:
    """A model that can answer."""

    stored: StoredModel
    engine: Engine


class Resident:
    """Loads a model once, however many ask, on a thread that is not theirs."""

    def __init__(
        self,
        name: ModelName,
        find: Callable[[], StoredModel | None],
        load: Callable[[StoredModel], Engine],
        loader: Executor,
    ) -> None:
        """`find` looks into the model store; `load` loads and warms; `loader` is the thread that loading happens on."""
        self.name = name
        self._find = find
        self._load = load
        self._loader = loader
        self._change = threading.Condition()
        self._stored: StoredModel | None = None
        self._loaded: Loaded | None = None
        self._state = State.ABSENT
        self._detail: str | None = None
        self._look()

    def look_again(self) -> None:
        """Look into the model store where nothing usable was found: the operator may have imported it meanwhile."""
        with self._change:
            if self._stored is None:
                self._look()

    def start_loading(self) -> None:
        """Begin to load, unless that has begun already or there is nothing to load."""
        with self._change:
            if self._state is State.UNLOADED:
                self._state = State.LOADING
                self._loader.submit(self._run)

    def wait(self, timeout: float) -> Loaded:
        """The loaded model, as soon as it is there. Raises ModelUnavailable if that fails or takes over `timeout` s."""
        self.look_again()
        self.start_loading()
        with self._change:
            self._change.wait_for(lambda: self._state is not State.LOADING, timeout)
            if self._loaded is not None:
                return self._loaded
            if self._state is State.LOADING:
                raise ModelUnavailable(f"{self.name} is still loading after {timeout:g} s")
            raise ModelUnavailable(refusal(self.name, self._state, self._detail))

    def status(self) -> ModelStatus:
        """What the runner says of this model to the API."""
        with self._change:
            engine = self._loaded.engine if self._loaded else None
            return {
                "state": self._state,
                "engine": engine.name if engine else None,
                "precision": engine.precision if engine else None,
                "weights": self._stored.label_for_health if self._stored else None,
                "untrained": self._stored.card.untrained if self._stored else False,
                "detail": self._detail,
                "input": self._stored.card.input if self._stored else None,
            }

    def _look(self) -> None:
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

    def _run(self) -> None:
        assert self._stored is not None  # start_loading left UNLOADED only with a stored model
        began = time.monotonic()
        try:
            loaded = Loaded(self._stored, self._load(self._stored))
        except (EngineError, StoreError) as error:
            self._settle(State.FAILED, str(error))
            logger.error("%s can't be served: %s", self.name, error)
        except Exception as error:
            self._settle(State.FAILED, f"loading failed: {type(error).__name__}: {error}")
            logger.exception("%s could not be loaded", self.name)
            raise  # into the loader's future, so that the thread pool has it too
        else:
            self._settle(State.READY, None, loaded)
            logger.info(
                "%s is ready on %s (%s) after %.1f s: %s",
                self.name,
                loaded.engine.name,
                loaded.engine.precision,
                time.monotonic() - began,
                self._stored.label_for_health,
            )

    def _settle(self, state: State, detail: str | None, loaded: Loaded | None = None) -> None:
        with self._change:
            self._state, self._detail, self._loaded = state, detail, loaded
            self._change.notify_all()
