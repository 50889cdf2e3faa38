"""Says what this machine has, what the service will use, how fast it will be, and what is missing.

usage: python -m tools.doctor [--seconds SECONDS]

Nothing is changed and nothing is served. Exit code: 0 = the service can answer for all of its models; 1 = it can't, and
the last lines say what to do.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import runners
from engines import device, processor
from engines.cores import cores, side_by_side
from engines.device import Gpu
from engines.errors import EngineError
from importing import sources
from importing.errors import ImportFailure
from importing.report import command
from models import store
from models.catalogue import CATALOGUE, ModelName
from models.store import StoredModel, StoreError
from runners import engine_choice
from runners.runner import GPU_BUDGET_MB
from settings import Settings, get_settings
from tools import exposure, machine
from tools.machine import Machine
from tools.measuring import Measured, Measuring

_PICTURE: Final = Path(__file__).parents[1] / "api/page/static/samples/astronaut.jpg"
_NO_TIME: Final = "not measured for lack of time (.venv/bin/python -m tools.doctor --seconds 60)"
_SHARE: Final = 0.8  # of the memory: other programs need some, too


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="for measuring; models beyond are not measured")
    seconds = parser.parse_args(arguments).seconds
    settings, here = get_settings(), machine.look()
    gpu = device.choose(settings.device.gpu, os.environ)
    to_do: list[str] = []
    _say("This machine", _of_machine(here, gpu))
    _say("The service will use", _of_setup(settings, here, gpu, to_do))
    computing = gpu if engine_choice.choose(settings, gpu) == "torch" else None
    measuring = Measuring(settings, computing, _PICTURE, time.monotonic() + seconds)
    print("\nModels (milliseconds from an encoded picture to its answer, one at a time)")
    measured = {name: one for name in CATALOGUE if (one := _of_model(name, settings, measuring, to_do)) is not None}
    _say("Frames per second", _speed(settings, measured))
    _say("Memory", _memory(settings, here, measuring, to_do))
    _say("Network", [exposure.warning(settings) or f"only this machine: {exposure.local_url(settings)}"])
    _say("To do", to_do or ["nothing"])
    return 1 if to_do else 0


def _say(heading: str, lines: Sequence[str]) -> None:
    print(f"\n{heading}")
    for line in lines:
        print(f"  {line}", flush=True)


def _of_machine(here: Machine, gpu: Gpu | None) -> list[str]:
    quota = "" if here.quota is None else f", limited to the time of {here.quota:g}"
    limit = "no limit" if here.limit_mb is None else f"limited to {here.limit_mb / 1000:.1f} GB"
    busy = os.getloadavg()[0]
    too_busy = "; the times below are longer than on an idle machine" if busy > here.all_cores / 2 else ""
    return [
        f"processor: {here.processor}, {here.cores} of {here.all_cores} cores may be used{quota}",
        f"load: {busy:.1f} processes at a time in the last minute{too_busy}",
        f"instructions: {', '.join(here.instructions) or 'none that matter here'}",
        f"memory: {here.memory_mb / 1000:.1f} GB, {limit}",
        f"GPU: {gpu or 'NVML finds none'}",
    ]


def _of_setup(settings: Settings, here: Machine, gpu: Gpu | None, to_do: list[str]) -> list[str]:
    engine = engine_choice.choose(settings, gpu)
    try:
        placement = runners.placement(settings)
        runners.check_start(settings, placement)
    except EngineError as error:
        to_do.append(f"the service does not start: {error}")
        return [f"engine: {engine}"]
    lines = [f"engine: {engine} on {gpu if engine == 'torch' and gpu else 'the CPU'}, placement {placement}"]
    if engine == "torch":
        return [*lines, f"precision: {settings.precision}"]
    pays = "bf16 is faster than f32 here" if processor.bf16_pays() else "f32, as bf16 is no faster here"
    threads = cores(settings.cpu_threads)
    lines.append(f"precision: {settings.precision}{f' ({pays})' if settings.precision == 'auto' else ''}")
    lines.append(f"threads: {threads}, for up to {side_by_side(settings.cpu_threads)} pictures side by side")
    if here.quota is not None and threads > here.quota:
        lines.append(
            f"slower than it could be: set ENRICHMENT_CPU_THREADS={max(1, int(here.quota))}, as the limit says"
        )
    return lines


def _of_model(name: ModelName, settings: Settings, measuring: Measuring, to_do: list[str]) -> Measured | None:
    """Print a model's line. Returns its measurement, None if it was not measured."""
    if name not in settings.assigned():
        print(f"  {name}: served elsewhere ({CATALOGUE[name].assignment_variable}=heavy)", flush=True)
        return None
    try:
        stored = store.find(name)
    except StoreError as error:
        print(f"  {name}: DAMAGED in the model store", flush=True)
        to_do.append(str(error))
        return None
    if stored is None:
        to_do.append(_how_to_get(name))
        stored = _standin(name)
    if stored is None:
        print(f"  {name}: MISSING", flush=True)
        return None
    only_trial = ", a stand-in of random numbers that only `make run` serves" if stored.card.untrained else ""
    about = f"  {name}: {stored.label_for_health}{only_trial}"
    try:
        measured = measuring.measure(stored)
    except (EngineError, RuntimeError, OSError) as error:
        print(f"{about}, FAILS", flush=True)
        to_do.append(f"{name} can't be loaded: {error}")
        return None
    print(f"{about}, {measured or _NO_TIME}", flush=True)
    return measured


def _how_to_get(name: ModelName) -> str:
    spec = CATALOGUE[name]
    try:
        path = sources.on_disk(spec)
    except ImportFailure as error:
        return f"{name} is missing: {error}"
    if path is not None:
        return f"{name} is not imported yet. Its weights are at {path}: {command(name, source=False)}"
    if spec.sources:
        return f"{name} is missing. Download and import it: {command(name, source=False)}"
    return f"{name} is missing. Get it from {spec.homepage}, and import it: {command(name, source=True)}"


def _standin(name: ModelName) -> StoredModel | None:
    try:
        return store.find(name, untrained=True)
    except StoreError:
        return None  # `make run` makes it anew


def _speed(settings: Settings, measured: dict[ModelName, Measured]) -> list[str]:
    """Rates of one camera, whose frames come one after the other."""
    lines = []
    if "pose_estimator" in measured:
        lines.append(f"pose on every frame: {1000 / measured['pose_estimator'].ms:.1f}")
    without = [name for name in settings.assigned() if name not in measured]
    if measured:
        missing = f" (without {', '.join(without)})" if without else ""
        lines.append(f"all models on every frame: {1000 / sum(one.ms for one in measured.values()):.1f}{missing}")
    return lines or ["nothing was measured"]


def _memory(settings: Settings, here: Machine, measuring: Measuring, to_do: list[str]) -> list[str]:
    """Compare what the loaded models take with what the device has, and with the budget."""
    models_mb, limits, needed_mb, what = measuring.models_mb, settings.limits, measuring.process_mb, "libraries"
    budget_mb = settings.residency.budget_mb
    if budget_mb == "auto":
        budget_mb = GPU_BUDGET_MB if measuring.gpu else 0
    lines = []
    if 0 < budget_mb < models_mb:
        lines.append(f"the budget of {budget_mb:.0f} MB does not hold all models at a time: they will be reloaded")
        needed_mb += budget_mb - models_mb
    device_mb = here.room_mb if measuring.gpu is None else measuring.gpu.memory_mb
    if measuring.gpu is None:
        needed_mb += limits.max_picture_mb + limits.max_body_bytes / 1e6
        what = "libraries, and pictures and requests at their limits"
    room = f"{device_mb:.0f} MB" if device_mb else "an unknown size"
    lines.append(f"the measured models {models_mb:.0f} MB; with {what} {needed_mb:.0f} MB of {room}")
    if device_mb and needed_mb > device_mb * _SHARE:
        to_do.append(
            f"{needed_mb:.0f} MB may be too much for {room}: set ENRICHMENT_MEMORY_BUDGET_MB, or let fewer models be "
            "preloaded (ENRICHMENT_PRELOAD_MODELS)"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
