"""Builds TensorRT engines in the background while torch serves, and swaps them in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from engines.device import Gpu
from engines.engine import Engine
from engines.errors import OutOfMemory
from engines.tensorrt.build import BuildFailed, BuildStopped, Export
from engines.tensorrt.cache import FIRST_RETRY_S, LONGEST_RETRY_S, BuildFailure, EngineCache, EngineInputs
from models import store
from models.catalogue import ModelName
from models.store import StoredModel, StoreError
from runners.residency.back_off import BackOff
from runners.residency.loading import EngineSwap
from runners.residency.resident import Loaded, Resident
from settings import Settings
from tasks.detection import DetectorSettings

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

LARGEST_SIDE: Final = 640  # pixels; the largest input side of the two YOLO models
_MEANWHILE: Final = "torch serves meanwhile"


SwapCall = Callable[[Resident, EngineSwap], None]  # Residency.swap_engine


class _BuildFailed(Exception):
    """The build failed, or an earlier one from the same inputs did. again_s: see BuildFailure."""

    def __init__(self, failure: BuildFailure) -> None:
        super().__init__(failure.text)
        self.again_s = failure.again_s


class TensorRtEngines:
    """Finds engines in the cache, and builds missing ones in separate processes, one at a time."""

    def __init__(self, settings: Settings, gpu: Gpu, version: str) -> None:
        """version: of the installed TensorRT."""
        self._settings = settings
        self._gpu = gpu
        self._version = version
        self._cache = EngineCache(settings.tensorrt.cache)
        self._began = time.time()
        self._closed = False
        self._exports: list[Export] = []
        self._retries: dict[ModelName, threading.Timer] = {}
        self._back_offs: dict[ModelName, BackOff] = {}  # for failures without a note in the cache
        self._under_way: set[ModelName] = set()

    def wants(self, stored: StoredModel) -> bool:
        """Whether this model shall run on TensorRT."""
        return stored.card.name in _asked_for(self._settings) and not stored.card.untrained

    def load(self, stored: StoredModel) -> Engine | None:
        """Load the model's engine from the cache; None if there is none. Raises OutOfMemory and DeviceLost."""
        from engines.tensorrt.engine import EngineUnreadable

        inputs = self._inputs(stored)
        try:
            file = self._cache.find(inputs)
            if file is None:
                return None
            try:
                return _open(file, inputs)
            except EngineUnreadable as error:
                self._cache.delete(inputs, str(error))
                return None
        except OSError as error:
            logger.warning("TensorRT cache %s can't be read: %s", self._cache.folder, error)
            return None

    def build(self, resident: Resident, swap: SwapCall) -> None:
        """Start a build for a model that serves on torch, and swap the engine in afterwards. Returns at once.

        Does nothing if a build of the model is under way, for example after it was evicted and loaded again.
        """
        if resident.name in self._under_way:
            return
        inputs = self._inputs(resident.stored)
        try:
            failure = self._cache.failure(inputs, self._began)
        except OSError as error:
            text = f"its cache {self._cache.folder} can't be read: {error}"
            failure = BuildFailure(text, self._back_off(resident))
        if failure is not None:
            self._give_up(resident, failure.text, swap, failure.again_s)
            return
        self._under_way.add(resident.name)
        resident.set_building(f"a TensorRT engine is being built, which takes minutes; {_MEANWHILE}")
        threading.Thread(
            target=self._build,
            args=(resident, resident.stored, inputs, swap),
            name=f"tensorrt-{resident.name}",
            daemon=True,
        ).start()

    def close(self) -> None:
        """Stop the builds under way, and start no more."""
        self._closed = True
        for retry in self._retries.values():
            retry.cancel()
        for export in self._exports:
            export.stop()

    def _build(self, resident: Resident, stored: StoredModel, inputs: EngineInputs, swap: SwapCall) -> None:
        began = time.monotonic()

        def give_up(reason: str, again_s: float | None = None) -> None:
            logger.error("TensorRT build of %s failed after %.0f s", resident.name, time.monotonic() - began)
            self._give_up(resident, reason, swap, again_s)

        def wanted(loaded: Loaded) -> bool:
            return loaded.stored == stored and loaded.engine.name != "tensorrt"

        logger.info("TensorRT build of %s starts; %s", resident.name, _MEANWHILE)
        try:
            file = self._find_or_make(inputs, stored)
        except BuildStopped:
            self._give_up(resident, "its build was stopped")
        except _BuildFailed as error:
            self._give_up(resident, str(error), swap, error.again_s)
        except StoreError as error:
            give_up(str(error), self._back_off(resident))
        except OSError as error:
            give_up(f"its cache {self._cache.folder} can't be written: {error}", self._back_off(resident))
        except Exception as error:  # a bug here must not leave the model in building_engine
            logger.exception("TensorRT build of %s failed unexpectedly", resident.name)
            give_up(f"{type(error).__name__}: {error}")
        else:
            logger.info("TensorRT build of %s succeeded after %.0f s", resident.name, time.monotonic() - began)
            done = partial(self._swapped, resident, inputs, swap)
            swap(resident, EngineSwap(wanted, lambda: _open(file, inputs), done))

    def _find_or_make(self, inputs: EngineInputs, stored: StoredModel) -> Path:
        export = Export()
        self._exports.append(export)
        with self._cache.exclusive():
            found = self._cache.find(inputs)  # another process that shares the cache may have built it
            if found is not None:
                return found
            failure = self._cache.failure(inputs, self._began)
            if failure is not None:
                raise _BuildFailed(failure)
            weights = [name for name in stored.checksums if name.startswith(store.WEIGHTS)]
            store.verify(stored, *(stored.folder / name for name in weights))
            limits = self._settings.tensorrt
            with self._cache.scratch() as folder:
                try:
                    built = export.run(inputs, stored.checkpoint, folder, limits.workspace_gib, limits.build_timeout_s)
                except BuildFailed as error:  # noted within the lock, so that a waiting process finds the note
                    raise _BuildFailed(self._remember(inputs, str(error), may_pass=error.may_pass)) from error
                return self._cache.store(inputs, built)

    def _swapped(self, resident: Resident, inputs: EngineInputs, swap: SwapCall, error: Exception | None) -> None:
        if error is None:  # it runs on TensorRT, or will after its next load
            self._under_way.discard(resident.name)
            self._back_offs.pop(resident.name, None)
            resident.set_building(None)
            self._try_again(resident, swap)  # if another version was loaded meanwhile
        elif isinstance(error, OutOfMemory):
            self._give_up(resident, str(error), swap, self._back_off(resident))
        else:
            reason = f"the engine was built and can't be loaded: {error}"
            self._give_up(resident, self._remember(inputs, reason, may_pass=False).text)

    def _remember(self, inputs: EngineInputs, reason: str, *, may_pass: bool) -> BuildFailure:
        try:
            self._cache.remember_failure(inputs, reason, may_pass=may_pass)
            remembered = self._cache.failure(inputs, self._began)
        except OSError as error:
            logger.warning("TensorRT cache %s can't be written: %s", self._cache.folder, error)
            remembered = None
        return remembered or BuildFailure(reason, FIRST_RETRY_S if may_pass else None)

    def _back_off(self, resident: Resident) -> float:
        return self._back_offs.setdefault(resident.name, BackOff(FIRST_RETRY_S, LONGEST_RETRY_S)).failed()

    def _give_up(
        self, resident: Resident, reason: str, swap: SwapCall | None = None, again_s: float | None = None
    ) -> None:
        """Leave a model on torch for `again_s` seconds, or for good (None)."""
        logger.warning("TensorRT: %s continues on torch: %s", resident.name, reason)
        self._under_way.discard(resident.name)
        resident.set_building(None, failure=f"no TensorRT engine, torch serves: {reason}")
        if swap is None or again_s is None or self._closed:
            return
        if (former := self._retries.get(resident.name)) is not None:
            former.cancel()
        retry = self._retries[resident.name] = threading.Timer(again_s, self._try_again, (resident, swap))
        retry.daemon = True
        retry.start()

    def _try_again(self, resident: Resident, swap: SwapCall) -> None:
        """Build again. If the model was evicted meanwhile, its next load starts the build."""
        loaded = resident.loaded
        if loaded is not None and loaded.engine.name != "tensorrt":
            self.build(resident, swap)

    def _inputs(self, stored: StoredModel) -> EngineInputs:
        name: ModelName = stored.card.name
        return EngineInputs(
            model=name,
            weights_sha256=stored.card.sha256,
            tensorrt=self._version,
            gpu=self._gpu.name,
            compute_capability=self._gpu.compute_capability,
            driver=self._gpu.driver,
            precision="f32" if self._settings.precision == "f32" else "f16",
            max_batch=self._settings.models[name].max_batch_size,
            max_side=LARGEST_SIDE,
        )


def find(settings: Settings, gpu: Gpu | None) -> TensorRtEngines | None:
    """TensorRT, if the settings want it and it is installed; else None. Logs once what is missing.

    With ENRICHMENT_ENGINE=torch, or bf16, which ultralytics' exporter does not know, models stay on torch.
    """
    wanted = _asked_for(settings)
    if gpu is None or not wanted or settings.engine != "auto" or settings.precision == "bf16":
        return None
    missing = [package for package in ("tensorrt", "ultralytics") if find_spec(package) is None]
    if not missing:
        try:
            import tensorrt

            return TensorRtEngines(settings, gpu, tensorrt.__version__)
        except (ImportError, AttributeError, OSError) as error:  # the package's libraries are missing
            missing = [f"tensorrt ({error})"]
    logger.warning("TensorRT can't be used (missing: %s): using torch for %s", ", ".join(missing), " and ".join(wanted))
    return None


def _asked_for(settings: Settings) -> list[ModelName]:
    """The assigned models with `use_tensorrt`."""
    return [
        name
        for name in settings.assigned()
        if isinstance(model := settings.models[name], DetectorSettings) and model.use_tensorrt
    ]


def _open(file: Path, inputs: EngineInputs) -> Engine:
    from engines.tensorrt.engine import TensorRtEngine

    precision: Literal["f16", "f32"] = "f32" if inputs.precision == "f32" else "f16"
    return TensorRtEngine(file, precision, inputs.model)
