"""All that the engines do with CUDA itself: copies, streams, graphs, and telling its errors apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engines.engine import Shape
from engines.errors import DeviceLost, OutOfMemory

DEVICE: Final = torch.device("cuda")  # the one that CUDA_VISIBLE_DEVICES leaves

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Captured:
    """A CUDA graph of a whole network for one shape, with the tensors that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    images: torch.Tensor
    outputs: Tensors


@contextmanager
def device_errors() -> Iterator[None]:
    """Tell torch's errors of the device apart: OutOfMemory, DeviceLost, and those of one call, which stay as they are.

    A list of sticky errors is not to be relied on, since libraries wrap them in texts of their own. So the device is
    asked: after a sticky error it refuses everything else, too.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError are such
        text = str(error).split("\n")[0]
        if not _answers():
            raise DeviceLost(f"the GPU refuses everything after: {text}") from error
        if _is_out_of_memory(error):
            raise OutOfMemory(text) from error
        raise


def free_mb() -> float:
    """What the device has left for anybody, in MB (10⁶ bytes)."""
    return float(torch.cuda.mem_get_info()[0] / 1e6)


def make_context() -> None:
    """Create this process's CUDA context (hundreds of MB of the device), which is otherwise the first model's burden.

    Raises OutOfMemory, after which it can be tried again, and RuntimeError, with torch's own text, where torch and the
    driver do not fit together.
    """
    try:
        torch.zeros(1, device=DEVICE)
        torch.cuda.synchronize()
    except (RuntimeError, torch.cuda.DeferredCudaCallError) as error:
        # The device can't be asked, as device_errors does: it may never have answered.
        text = str(error).split("\n")[0]
        raise (OutOfMemory if _is_out_of_memory(error) else RuntimeError)(text) from error


@cache
def stream_of(model: str) -> torch.cuda.Stream:  # noqa: ARG001 - it is what the cache goes by
    """The stream of a model, so that models do not wait for one another's copies; the same one after each reload.

    torch has 32 streams and hands them out in turns: with a new one at each load, two models would come to share one,
    and what one computes would become part of what the other captures.
    """
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@contextmanager
def on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Do what the block does on `stream`, as inference, with its errors told apart."""
    with device_errors(), torch.inference_mode(), torch.cuda.stream(stream):
        yield


def to_device(batch: NDArray[np.uint8]) -> torch.Tensor:
    """A copy of a batch on the device, by way of pinned memory; ready for what comes later on the same stream."""
    return torch.from_numpy(batch).pin_memory().to(DEVICE, non_blocking=True)


def to_host(outputs: Sequence[torch.Tensor], stream: torch.cuda.Stream) -> tuple[NDArray[np.float32], ...]:
    """Copies of tensors as float32 arrays in pinned memory; waits until they are there."""
    on_host = [torch.empty(output.shape, pin_memory=True) for output in outputs]
    for host, output in zip(on_host, outputs, strict=True):
        host.copy_(output, non_blocking=True)  # to float32 on the way
    stream.synchronize()
    return tuple(host.numpy() for host in on_host)


def capture(forward: Callable[[torch.Tensor], Tensors], shape: Shape, pool: Any, stream: torch.cuda.Stream) -> Captured:
    """`forward` for a uint8 input of `shape` as a graph. It must have run for this shape before.

    pool: of torch.cuda.graph_pool_handle(), for graphs that are never replayed at the same time and whose outputs are
    read before the next replay. Raises RuntimeError where `forward` does what can't be captured.
    """
    images = torch.zeros(shape, dtype=torch.uint8, device=DEVICE)
    graph = torch.cuda.CUDAGraph()
    # thread_local: other models go on serving meanwhile, and their allocations must neither fail nor spoil the capture.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        outputs = forward(images)
    return Captured(graph, images, outputs)


def _answers() -> bool:
    """Whether the device still does something for this process.

    Not asked by a synchronisation of the whole device, which is an error while another model's graph is captured, and
    spoils the capture.
    """
    try:
        return int(torch.ones(1, device=DEVICE).item()) == 1
    except RuntimeError as error:
        return _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text.lower() or "ALLOC_FAILED" in text
