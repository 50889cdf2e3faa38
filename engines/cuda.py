"""CUDA for the engines: copies, streams, CUDA graphs, and the classification of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engines.engine import Shape
from engines.errors import DeviceLost, OutOfMemory

DEVICE: Final = torch.device("cuda")  # CUDA_VISIBLE_DEVICES leaves only one

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Captured:
    """A CUDA graph of a whole network for one input shape, with its input and output tensors."""

    graph: torch.cuda.CUDAGraph
    images: torch.Tensor
    outputs: Tensors


@contextmanager
def device_errors() -> Iterator[None]:
    """Translate torch's device errors into OutOfMemory or DeviceLost. Errors of a single call pass through.

    Libraries wrap CUDA's sticky errors in their own texts, so their names do not identify them. A small computation
    does: after a sticky error the device refuses everything.
    """
    try:
        yield
    except RuntimeError as error:  # the base of torch.OutOfMemoryError and torch.AcceleratorError
        text = str(error).split("\n")[0]
        if not _answers():
            raise DeviceLost(f"the GPU refuses everything after: {text}") from error
        if _is_out_of_memory(error):
            raise OutOfMemory(text.partition(". GPU ")[0]) from error  # torch describes the whole card after it
        raise


def free_mb() -> float:
    """Free memory of the device, in MB (10⁶ bytes)."""
    return float(torch.cuda.mem_get_info()[0] / 1e6)


def make_context() -> None:
    """Create this process's CUDA context, so that its memory is not charged to the first model.

    Raises OutOfMemory; the call can then be repeated. Raises RuntimeError, with torch's text, if torch and the driver
    do not match.
    """
    try:
        torch.zeros(1, device=DEVICE)
        torch.cuda.synchronize()
    except (RuntimeError, torch.cuda.DeferredCudaCallError) as error:
        # Unlike in device_errors, a failed computation would not prove a sticky error: none may ever have succeeded.
        text = str(error).split("\n")[0]
        raise (OutOfMemory if _is_out_of_memory(error) else RuntimeError)(text) from error


@cache
def stream_of(model: str) -> torch.cuda.Stream:  # noqa: ARG001 - the cache's key
    """The stream of a model, the same after each reload. With separate streams, models do not wait for each other.

    torch has 32 streams and hands them out in turn. With a new stream at each load, two models would some day share
    one. Then one model's kernels would be captured into the other's CUDA graph.
    """
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@cache
def thread_of(model: str) -> ThreadPoolExecutor:
    """The one thread that computes a model, the same after each reload.

    cuDNN's plans and cuBLAS' workspaces belong to threads. torch keeps those of a thread that has ended, and BentoML's
    threads come and go.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=f"cuda-{model}")


@contextmanager
def on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run the block on `stream` in inference mode. Raises as device_errors does."""
    with device_errors(), torch.inference_mode(), torch.cuda.stream(stream):
        yield


def to_device(batch: NDArray[np.uint8]) -> torch.Tensor:
    """Copy a batch to the device through pinned memory. Later work on the same stream sees the copy complete."""
    return torch.from_numpy(batch).pin_memory().to(DEVICE, non_blocking=True)


def to_host(outputs: Sequence[torch.Tensor], stream: torch.cuda.Stream) -> tuple[NDArray[np.float32], ...]:
    """Copy tensors to float32 arrays in pinned memory, and wait until the copies are complete."""
    on_host = [torch.empty(output.shape, pin_memory=True) for output in outputs]
    for host, output in zip(on_host, outputs, strict=True):
        host.copy_(output, non_blocking=True)  # converts to float32
    stream.synchronize()
    return tuple(host.numpy() for host in on_host)


def capture(forward: Callable[[torch.Tensor], Tensors], shape: Shape, pool: Any, stream: torch.cuda.Stream) -> Captured:
    """Capture `forward` for a uint8 input of `shape` as a CUDA graph. It must have run for this shape before.

    pool: from torch.cuda.graph_pool_handle(). Graphs that share a pool must not be replayed at the same time, and
    their outputs must be read before the next replay. Raises RuntimeError if `forward` can't be captured.
    """
    images = torch.zeros(shape, dtype=torch.uint8, device=DEVICE)
    graph = torch.cuda.CUDAGraph()
    # thread_local: other models keep serving. Their allocations must neither fail nor invalidate this capture.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        outputs = forward(images)
    return Captured(graph, images, outputs)


def _answers() -> bool:
    """Whether the device still computes for this process.

    A synchronisation of the whole device would tell, too, but it invalidates the graph capture of another model.
    """
    try:
        return int(torch.ones(1, device=DEVICE).item()) == 1
    except RuntimeError as error:
        return _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    # Where NVML refuses to list processes (MIG, some containers), torch fails on describing the lack of memory.
    known = "out of memory" in text.lower() or "ALLOC_FAILED" in text or "NVML_SUCCESS ==" in text
    return isinstance(error, torch.OutOfMemoryError) or known
