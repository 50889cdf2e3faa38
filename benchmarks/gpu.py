"""How much memory do the five models take on a GPU, and how fast are they compared with eager f32 torch?

usage: python -m benchmarks.gpu [NAME …] [--calls 50]

Prints Markdown with the device's name and the date. Loads all models in one process, as the runner does. Measures
their memory by NVML, p50 at batch 1 and 8, and the memory that each unload frees. Needs the models in the store (make
import) and requirements/gpu.txt. The exit code is 1 without a GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Final

import numpy as np

from engines.engine import Engine, Graphed, Shape
from engines.errors import DeviceLost
from models.catalogue import CATALOGUE, ModelName
from models.store import require
from runners import engine_choice
from runners.loader import ModelLoader, warm_up_shapes
from runners.residency.memory import GpuMemory, held_mb
from settings import get_settings
from tasks import TASKS, AnyTask

BATCHES: Final = (1, 8)
_UNMEASURED: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--calls", type=int, default=50)
    options = parser.parse_args(arguments)
    settings = get_settings()
    gpu = engine_choice.take_gpu(settings)
    if gpu is None:
        print("no tables: the settings and this machine give no GPU", file=sys.stderr)
        return 1
    names: list[ModelName] = [name for name in CATALOGUE if not options.names or name in options.names]
    print(f"## {datetime.now(UTC):%Y-%m-%d}, {gpu}, compute capability {gpu.compute_capability}\n")
    memory = GpuMemory(gpu)
    tasks = {name: task(settings.models[name]) for name, task in TASKS.items()}
    loader = ModelLoader(settings, tasks, gpu, memory, None, _lost)
    loader.start()
    loaded = load_all(names, loader, tasks, memory)
    print(f"\n{speed(names, loaded, options.calls)}\n\n{unload(loaded, memory)}")
    return 0


def _lost(error: DeviceLost) -> None:
    raise error


def load_all(
    names: Sequence[ModelName], loader: ModelLoader, tasks: Mapping[ModelName, AnyTask], memory: GpuMemory
) -> dict[ModelName, Engine]:
    """Load and warm up the models one after another, as the runner does, and print the memory of each."""
    print(f"| | MB (NVML) |\n|---|---|\n| CUDA context and torch | {memory.used_mb():.0f} |")
    loaded: dict[ModelName, Engine] = {}
    for name in names:
        before = memory.used_mb()
        model = require(name)
        engine = loader.load(model)
        warm_up(engine, warm_up_shapes(tasks[name], model.card))
        loaded[name] = engine
        print(f"| {name} on {engine.name} ({engine.precision}) | {held_mb(memory) - before:.0f} |")
    print(f"| all, resident together | {memory.used_mb():.0f} |")
    return loaded


def warm_up(engine: Engine, shapes: Sequence[Shape]) -> None:
    """Warm up, and capture all CUDA graphs, as without a memory budget."""
    engine.warm_up(shapes)
    if isinstance(engine, Graphed):
        engine.capture(lambda: math.inf)


def speed(names: Sequence[ModelName], loaded: dict[ModelName, Engine], calls: int) -> str:
    """p50 of each engine and of eager f32 torch, called alternately, as Markdown."""
    settings = get_settings()
    rows = ["| model | batch | p50, ms | eager f32 torch, ms | ratio |", "|---|---|---|---|---|"]
    for name in names:
        eager = Eager(name)
        for size in BATCHES:
            largest = TASKS[name](settings.models[name]).warm_up_sizes(require(name).card.input)[0]
            shape = (size, *largest, 3)
            warm_up(loaded[name], [shape])  # depth has no batch of 8 in the service
            ours, theirs = alternate(loaded[name], eager, shape, calls)
            rows.append(f"| {name} | {size} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")
        eager.close()
    return "\n".join(rows)


def alternate(ours: Engine, theirs: Eager, shape: Shape, calls: int) -> tuple[float, float]:
    """The median milliseconds of both on the same random images, called alternately."""
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    taken: tuple[list[float], list[float]] = ([], [])
    runs: tuple[Callable[[np.ndarray], object], ...] = (ours.run, theirs.run)
    for _ in range(calls + _UNMEASURED):
        for run, milliseconds in zip(runs, taken, strict=True):
            began = time.perf_counter()
            run(images)
            milliseconds.append((time.perf_counter() - began) * 1000)
    first, second = (median(milliseconds[_UNMEASURED:]) for milliseconds in taken)
    return first, second


def unload(loaded: dict[ModelName, Engine], memory: GpuMemory) -> str:
    """Close the engines one after another. Returns the memory before and after each as Markdown."""
    rows = ["| left | MB before | MB after |", "|---|---|---|"]
    for name, engine in loaded.items():
        before = held_mb(memory)
        engine.close()
        rows.append(f"| {name} | {before:.0f} | {held_mb(memory):.0f} |")
    return "\n".join(rows)


class Eager:
    """The exported program in plain torch: f32, no CUDA graph, copies from pageable memory."""

    def __init__(self, name: ModelName) -> None:
        from engines import cuda
        from engines.torch import module_on

        self._device = cuda.DEVICE
        self._module = module_on(self._device, require(name).program)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs on the host, as from Engine.run."""
        import torch

        with torch.inference_mode():
            outputs = self._module(torch.from_numpy(images).to(self._device))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def close(self) -> None:
        """Free the weights."""
        del self._module


if __name__ == "__main__":
    sys.exit(main())
