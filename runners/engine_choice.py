"""Chooses the engine and the device by the settings and the machine, and loads models into the engine."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

from engines import device
from engines.errors import EngineError
from models import store
from models.catalogue import CATALOGUE, ModelName

if TYPE_CHECKING:
    from engines.device import Gpu
    from engines.engine import Engine
    from models.store import StoredModel
    from settings import Settings

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_LEAST_CAPABILITY: Final = (7, 5)  # of torch 2.13 with CUDA 13: torch.cuda.get_arch_list()
# cuDNN's plans, of about 0.2 MB each, that each model's thread keeps. torch's own limit is 10,000.
_MOST_PLANS: Final = "2000"
MOST_CALLS: Final = 2  # concurrent calls of a model, whatever the engine


def choose(settings: Settings, gpu: Gpu | None) -> Literal["openvino", "torch"]:
    """The engine for these settings and this device. `auto` is torch if it is installed and can use the GPU."""
    if settings.engine != "auto":
        return settings.engine
    return "torch" if gpu is not None and find_spec("torch") and not _unfit(gpu) else "openvino"


def calls_at_a_time(settings: Settings, gpu: Gpu | None) -> int:
    """How many concurrent calls an engine may get.

    OpenVINO computes images side by side, so the next batch can begin before the last image of the previous one ends.
    """
    return MOST_CALLS if choose(settings, gpu) == "openvino" else 1


def take_gpu(settings: Settings) -> Gpu | None:
    """Choose and log the GPU that this process computes on; None is the CPU, with a warning.

    Call it before torch is imported.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = device.choose(settings.device.gpu, os.environ)
    if gpu is None:
        logger.warning("NO GPU IS USED: %s. All models run on the CPU", _nothing(visible))
    elif choose(settings, gpu) == "openvino":
        why = _why_not(settings, gpu)
        logger.warning("NO GPU IS USED, though there is %s: %s. All models run on the CPU", gpu, why)
        return None
    else:
        logger.info("computing on %s", gpu)
    return gpu


def check_gpu(settings: Settings) -> None:
    """Raise EngineError if a GPU is required and `take_gpu` would choose the CPU."""
    if not settings.device.gpu_required:
        return
    environment = dict(os.environ)
    gpu = device.choose(settings.device.gpu, environment)
    if gpu is not None and choose(settings, gpu) == "torch":
        return
    why = _nothing(os.environ.get("CUDA_VISIBLE_DEVICES")) if gpu is None else _why_not(settings, gpu)
    raise EngineError(
        f"device.gpu_required is true, and no GPU would be used: {why}. "
        "Check `nvidia-smi` and, in a container, the GPU reservation; or set ENRICHMENT_GPU_REQUIRED=false for the CPU"
    )


def _nothing(visible: str | None) -> str:
    """Say that NVML finds no GPU. visible: CUDA_VISIBLE_DEVICES before the search; None = it was not set."""
    return "NVML finds none" if visible is None else f"NVML finds none with CUDA_VISIBLE_DEVICES={visible!r}"


def _why_not(settings: Settings, gpu: Gpu) -> str:
    if settings.engine == "openvino":
        return "ENRICHMENT_ENGINE is openvino"
    return _unfit(gpu) if find_spec("torch") else "torch is not installed (requirements/gpu.txt)"


def _unfit(gpu: Gpu) -> str:
    """Say why the installed torch can't compute on a GPU; empty if nothing speaks against it.

    Importing torch to find out would take seconds, and would make its choice of the GPU final.
    """
    if gpu.compute_capability != device.UNKNOWN and _numbers(gpu.compute_capability) < _LEAST_CAPABILITY:
        return f"its compute capability is {gpu.compute_capability}, and torch needs {_text(_LEAST_CAPABILITY)}"
    with suppress(PackageNotFoundError):
        needed = _numbers(version("nvidia-cuda-runtime"))[:1]  # a driver serves all minor versions of its major one
        if gpu.cuda is not None and gpu.cuda[:1] < needed:
            return f"its driver {gpu.driver} supports CUDA {_text(gpu.cuda)}, and torch needs {_text(needed)}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def start(settings: Settings, gpu: Gpu | None) -> None:
    """Load the engine's library and, on a GPU, make the CUDA context. All models share them.

    Raises EngineError if that is impossible, OutOfMemory if the device has too little free memory for the context.
    """
    if choose(settings, gpu) == "openvino":
        from engines import processor

        processor.capabilities()
        return
    if not find_spec("torch"):
        raise EngineError("torch is not installed (requirements/gpu.txt), and ENRICHMENT_ENGINE asks for it")
    os.environ.setdefault("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", _MOST_PLANS)
    import_module("engines.torch")  # imports torch, too

    if gpu is not None:
        from engines import cuda

        try:
            cuda.make_context()
        except RuntimeError as error:
            raise EngineError(f"torch can't compute on {gpu}: {error}") from error


def load(stored: StoredModel, settings: Settings, gpu: Gpu | None) -> Engine:
    """Load a stored model into the engine for these settings and this device.

    Raises EngineError if the settings name something that is not available. Nothing falls back silently. Raises
    StoreError if a file is not the one that was imported.
    """
    # Imported here: an engine's library costs up to 2 GB and several seconds, and a process needs only one.
    if choose(settings, gpu) == "torch":
        if asks_for_int8(settings, stored.card.name):
            raise EngineError(
                "int8 is OpenVINO's alone: take the model out of ENRICHMENT_INT8_MODELS, or set"
                " ENRICHMENT_ENGINE=openvino"
            )
        from engines import torch

        store.verify(stored, stored.program)
        return torch.load(
            stored.program,
            settings.precision,
            model=stored.card.name,
            on_cuda=gpu is not None,
            threads=settings.cpu_threads,
        )
    from engines.openvino import OpenVinoEngine

    traits, precision = CATALOGUE[stored.card.name].traits, settings.precision
    made = partial(
        OpenVinoEngine, traits=traits, threads=settings.cpu_threads, cache=store.cache_folder("openvino", stored)
    )
    if _in_int8(stored, settings):
        verify = partial(store.verify, stored, stored.int8_graph, stored.int8_weights)
        return made(stored.int8_graph, "int8", verify=verify)
    own = OpenVinoEngine.auto_precision(traits) if precision == "auto" else precision
    return made(stored.graph, own, verify=partial(store.verify, stored, stored.graph))


def asks_for_int8(settings: Settings, name: ModelName) -> bool:
    """Whether the settings name this model for int8, whatever its loss of accuracy."""
    return isinstance(settings.int8, tuple) and name in settings.int8


def _in_int8(stored: StoredModel, settings: Settings) -> bool:
    """Whether a model runs in int8. Raises EngineError if the settings name it and it was not calibrated."""
    name, loss = stored.card.name, stored.card.int8
    if asks_for_int8(settings, name):
        if loss is None:
            raise EngineError(
                f"ENRICHMENT_INT8_MODELS names {name}, which was not calibrated; run: "
                f"python -m models.import_models {name} --calibrate FOLDER-OF-PICTURES"
            )
        return True
    automatic = settings.int8 == "auto" and settings.precision == "auto"
    return automatic and loss is not None and not loss.broken
