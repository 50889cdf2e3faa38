"""The torch engines, for CUDA and the CPU. They run the `torch.export` program of the import step, no checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule, Node

from engines import cuda
from engines.engine import Images, Shape
from engines.errors import EngineError, OutOfMemory
from engines.marks import carried

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_DTYPE: Final = {"bf16": torch.bfloat16, "f16": torch.float16}
# The operators that autocast computes in the reduced precision, with their weights at positions 1 and 2.
_MATRIX_OPERATORS: Final = frozenset(
    {
        torch.ops.aten.conv2d.default,
        torch.ops.aten.conv_transpose2d.input,
        torch.ops.aten.linear.default,
    }
)
Requested = Literal["auto", "f32", "bf16", "f16"]
T = TypeVar("T")


def load(program: Path, precision: Requested, *, model: str, on_cuda: bool, threads: int) -> CpuEngine | CudaEngine:
    """Load `program` of `model` onto the GPU or the CPU.

    precision: `auto` is f16 on CUDA and f32 on a CPU. threads: per call on a CPU; 0 = all cores.

    Raises EngineError for f16 on a CPU, where torch has no fast kernels. Raises OutOfMemory and DeviceLost.
    """
    if precision == "auto":
        precision = "f16" if on_cuda else "f32"
    if on_cuda:
        return CudaEngine(program, precision, cuda.stream_of(model), cuda.thread_of(model))
    if precision == "f16":
        raise EngineError("torch has no fast f16 on a CPU: set ENRICHMENT_PRECISION to auto, f32 or bf16")
    if threads:
        torch.set_num_threads(threads)
    return CpuEngine(program, precision)


class _TorchEngine:
    """An exported program as a module, under autocast if the precision is bf16 or f16."""

    name = "torch"

    def __init__(self, program: Path, precision: str, device: torch.device) -> None:
        self.precision = precision
        self._device = device
        self._dtype = _DTYPE.get(precision)
        self._module = _reduced(module_on(device, program), self._dtype)

    def close(self) -> None:
        """See Engine.close."""
        del self._module

    def _forward(self, images: torch.Tensor) -> cuda.Tensors:
        outputs: torch.Tensor | cuda.Tensors
        with self._autocast():
            outputs = self._module(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def _autocast(self) -> AbstractContextManager[Any]:
        # No cache: one CUDA graph would make the cached copy of a weight, and another would use it.
        return torch.autocast(self._device.type, self._dtype, cache_enabled=False) if self._dtype else nullcontext()


class CpuEngine(_TorchEngine):
    """torch on a CPU."""

    def __init__(self, program: Path, precision: str) -> None:
        super().__init__(program, precision, torch.device("cpu"))

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up."""
        for shape in shapes:
            self.run(np.zeros(shape, dtype=np.uint8))

    @torch.inference_mode()
    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[NDArray[np.float32], ...]:  # noqa: ARG002
        """See Engine.run."""
        return tuple(output.float().numpy() for output in self._forward(torch.from_numpy(np.asarray(images))))


class CudaEngine(_TorchEngine):
    """torch on a GPU.

    The layout is channels-last, like the uint8 NHWC input. Weights are stored in the reduced precision. Copies go
    through pinned host memory. The engine has its own stream and thread, and CUDA graphs of the warmed-up shapes
    (runners.residency.graphs).
    """

    def __init__(self, program: Path, precision: str, stream: torch.cuda.Stream, thread: ThreadPoolExecutor) -> None:
        """stream, thread: no other engine may use them. Raises OutOfMemory and DeviceLost."""
        with cuda.device_errors():
            super().__init__(program, precision, cuda.DEVICE)
            self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._stream = stream
        self._thread = thread
        self._pool: Any = None
        self._warm: list[Shape] = []
        self._captured: dict[Shape, cuda.Captured] = {}
        self._too_large: dict[Shape, float] = {}  # shape → the free MB that were too few for its graph
        self._capturable = True

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up."""
        # The largest first: graphs share their memory, and a smaller one fits into the memory of a larger one.
        self._warm = sorted({*self._warm, *shapes}, key=lambda shape: (prod(shape), shape), reverse=True)
        for shape in self._warm:
            self.run(np.zeros(shape, dtype=np.uint8))

    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[NDArray[np.float32], ...]:  # noqa: ARG002
        """See Engine.run."""
        return self._on_thread(lambda: self._run(np.asarray(images)))

    def capture(self, room_mb: Callable[[], float]) -> int:
        """See Graphed.capture."""
        for shape in self._warm:
            if shape in self._captured or not self._capturable:
                continue
            room = room_mb()
            if room < 0 or (shape in self._too_large and room <= self._too_large[shape]):
                continue
            self._on_thread(partial(self._capture, shape))
            if room_mb() < 0:
                self._too_large[shape] = room
                self._on_thread(partial(self._captured.pop, shape, None))
            if room_mb() < 0:  # the shared pool keeps the dropped graph's memory while other graphs use the pool
                self.give_back()
        return len(self._captured)

    def give_back(self) -> bool:
        """See Graphed.give_back."""
        return self._on_thread(self._drop)

    def close(self) -> None:
        """See Engine.close."""
        self.give_back()
        super().close()

    def _on_thread(self, function: Callable[[], T]) -> T:
        """Call on the engine's thread, one after the other: a capture would record the kernels of a concurrent call."""
        return self._thread.submit(carried(lambda _: function()), None).result()

    def _run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        with cuda.on(self._stream):
            on_device = cuda.to_device(batch)
            captured = self._captured.get(batch.shape)
            if captured is None:
                return cuda.to_host(self._forward(on_device), self._stream)
            captured.images.copy_(on_device)
            captured.graph.replay()
            return cuda.to_host(captured.outputs, self._stream)

    def _drop(self) -> bool:
        had = bool(self._captured)
        self._captured.clear()
        self._pool = None
        return had

    def _capture(self, shape: Shape) -> None:
        if not self._captured:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            with cuda.on(self._stream):
                self._captured[shape] = cuda.capture(self._forward, shape, self._pool, self._stream)
        except OutOfMemory as error:  # a smaller graph may still fit
            logger.info("no CUDA graph for an input of %s: too little memory: %s", shape, error)
        except RuntimeError as error:
            self._capturable = False
            logger.warning("no CUDA graphs: an input of %s can't be captured: %s", shape, str(error).split("\n")[0])


def module_on(device: torch.device, program: Path) -> GraphModule:
    """Load an exported program as a module on `device`, for all input sizes that it was exported for."""
    exported = torch.export.load(program)
    # The program was exported on a CPU and makes its tensors there; torch's pass moves them. The pass also moves the
    # example values of intermediate nodes, which would fix dynamic sizes to those of the export. So they are removed.
    for node in exported.graph.nodes:
        if node.op == "call_function":
            node.meta.pop("val", None)
    module = move_to_device_pass(exported, device.type).module()
    assert isinstance(module, GraphModule)
    return module


def _reduced(module: GraphModule, dtype: torch.dtype | None) -> GraphModule:
    """Convert the weights of convolutions and linear layers to `dtype`, as autocast would at every call."""
    if dtype is not None:
        for node in module.graph.nodes:
            if node.op == "get_attr" and node.users and all(_is_weight_of(user, node) for user in node.users):
                parameter = module.get_parameter(node.target)
                parameter.data = parameter.data.to(dtype)
    return module


def _is_weight_of(user: Node, weight: Node) -> bool:
    return user.target in _MATRIX_OPERATORS and weight in user.args[1:3]
