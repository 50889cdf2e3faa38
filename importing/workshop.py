"""The worker processes that open and convert weights, offline and without leaving files behind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TypeVar

from importing.errors import ImportFailure
from importing.jobs import CalibrationJob, Conversion, Job
from importing.wording import reason
from models.card import Loss
from models.catalogue import CATALOGUE
from models.store import WEIGHTS

logger = logging.getLogger(__name__)

#: Conversions at a time. A third process would take more memory, but save no time: the longest model decides.
WORKERS = 2

_FULL_BYTES = 1 << 20  # less is no room for a graph
_PACKAGES = ("onnx", "torch", "torchreid", "transformers", "ultralytics")

J = TypeVar("J", "Job", "CalibrationJob")
R = TypeVar("R")


class Workshop:
    """A pool of processes that convert weights, started with the first job.

    Use it as a context manager: its exit waits for running jobs.
    """

    def __init__(self, scratch: Path, jobs: int) -> None:
        """scratch: a folder for files under way. jobs: the most that will be submitted."""
        self.scratch = scratch
        self._workers = min(WORKERS, jobs)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, job: Job) -> Future[Conversion]:
        """Convert a model in one of the processes. The future raises ImportFailure if the conversion fails.

        Raises ImportFailure if a package for the conversion is not installed.
        """
        return self._begin(_convert, job, _PACKAGES)

    def calibrate(self, job: CalibrationJob) -> Future[Loss]:
        """Quantize a model in one of the processes. The future raises ImportFailure if the calibration fails.

        Raises ImportFailure if NNCF is not installed.
        """
        return self._begin(_calibrate, job, ("nncf",))

    def _begin(self, work: Callable[[J], R], job: J, packages: Sequence[str]) -> Future[R]:
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            raise ImportFailure(
                f"{', '.join(missing)} not installed; the images leave out the import step's packages. Import where "
                "they are installed (requirements/gpu.txt; for int8 dev.txt), or build the image with the model packed"
            )
        if self._pool is None:
            threads = max(1, (os.cpu_count() or 1) // self._workers)
            try:
                self._pool = ProcessPoolExecutor(
                    self._workers,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_prepare,
                    initargs=(self.scratch, threads),
                )
            except OSError as error:
                raise ImportFailure(
                    f"no processes can be started without shared memory: make /dev/shm writable ({error})"
                ) from error
        return self._pool.submit(_work, work, job)


def _prepare(scratch: Path, threads: int) -> None:
    """Keep the libraries from using the network, installing packages and writing into the user's home."""
    Thread(target=_end_with_parent, daemon=True).start()
    # OpenVINO reports its use to a web analytics service. Without this package it uses a stub.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    os.environ.update(
        YOLO_CONFIG_DIR=str(scratch),
        YOLO_AUTOINSTALL="false",
        YOLO_OFFLINE="true",
        YOLO_VERBOSE="false",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TRANSFORMERS_VERBOSITY="error",
        MPLCONFIGDIR=str(scratch),
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End this process when its parent has ended. A pool's process would wait for more work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(work: Callable[[J], R], job: J) -> R:
    try:
        return work(job)
    except ImportFailure:
        raise
    except OSError as error:
        raise ImportFailure(f"a file can't be read or written: {error}") from error
    except Exception as error:
        if shutil.disk_usage(job.folder).free < _FULL_BYTES:  # libraries have errors of their own for it
            raise ImportFailure(f"No space left on device: {job.folder} is on a full disk") from error
        logger.exception("%s: the import failed by an unexpected error.", job.name)
        raise ImportFailure(
            f"a fault of the import step or of a library: {type(error).__name__}: {reason(error)}"
        ) from error


def _convert(job: Job) -> Conversion:
    """Copy the weights into the job's folder, and convert the copy that will be stored."""
    from importing.convert import convert

    weights = job.folder / WEIGHTS
    weights.mkdir()
    for file, name in zip(job.files, CATALOGUE[job.name].file_names, strict=bool(job.files)):
        shutil.copyfile(file, weights / name)
    if not job.files:
        from importing.loaders import write_standin

        write_standin(job.name, weights)
    return convert(job.name, CATALOGUE[job.name].loaded_path(weights), job.folder)


def _calibrate(job: CalibrationJob) -> Loss:
    from importing.int8.quantize import calibrate

    shutil.copytree(job.stored.folder, job.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.yaml"))
    return calibrate(job.stored, job.pictures, job.folder)
