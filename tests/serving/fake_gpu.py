"""The fake device layer below a whole server: two cards, a CUDA context, TensorRT and its exporter, all made up."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pynvml

from engines.device import Gpu
from engines.engine import Engine
from engines.tensorrt import build
from models.catalogue import ModelName
from runners import engine_choice
from settings import Settings
from tests.engines.nvml import FakeNvml, a400, a5500
from tests.engines.tensorrt.test_build import EXPORTER
from tests.serving import fake

WANTED: Final = "FAKE_GPU"  # set to anything: there are two cards
CONTEXT_MB: Final = 290


def install() -> None:
    """Put it in place of NVML, CUDA and TensorRT in this process."""
    nvml = FakeNvml([a5500(), a400()])
    for name, function in nvml.functions().items():
        setattr(pynvml, name, function)
    fake.CARD = nvml.cards[1]
    engine_choice.start = _start
    build.EXPORT = EXPORTER  # type: ignore[misc]
    library: Any = ModuleType("tensorrt")
    library.__version__, library.__spec__ = "10.16.1.11", ModuleSpec("tensorrt", None)
    sys.modules["tensorrt"] = library
    engine: Any = ModuleType("engines.tensorrt.engine")
    engine.TensorRtEngine, engine.EngineUnreadable = _open, type("EngineUnreadable", (Exception,), {})
    sys.modules["engines.tensorrt.engine"] = engine


def _start(settings: Settings, gpu: Gpu | None) -> None:
    assert gpu is not None
    assert fake.CARD is not None
    fake.CARD.processes.setdefault(os.getpid(), CONTEXT_MB * 1_000_000)


def _open(file: Path, precision: str, model: ModelName) -> Engine:
    return fake.FakeEngine(model, "tensorrt", memory_mb=100)
