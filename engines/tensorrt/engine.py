"""The TensorRT engine: runs on CUDA what ultralytics' exporter built. Not run on hardware so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorrt
import torch
from numpy.typing import NDArray

from engines import cuda
from engines.engine import Images, Shape
from engines.errors import EngineError, OutOfMemory

_HEADER = 4  # bytes in front of ultralytics' metadata: their length, little-endian
_ROOM = 4  # this many times its file size is surely enough memory to read an engine
_WHY = "TensorRT's own log has the reason"


class EngineUnreadable(EngineError):
    """The file is not an engine that this TensorRT can use on this GPU."""


class TensorRtEngine:
    """A YOLO engine with dynamic shapes. It takes a float NCHW input scaled to 0…1 and returns decoded predictions."""

    name = "tensorrt"

    def __init__(self, file: Path, precision: Literal["f16", "f32"], model: str) -> None:
        """Load `file`, the engine of `model`. Raises EngineUnreadable, OutOfMemory and DeviceLost."""
        self.precision = precision
        with cuda.device_errors():
            runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
            serialized = without_header(file.read_bytes())
            self._engine: Any = runtime.deserialize_cuda_engine(serialized)
            if self._engine is None:
                _check_room(file, len(serialized))
                raise EngineUnreadable(f"TensorRT {tensorrt.__version__} can't read {file.name}: {_WHY}")
            # Activations live in torch's allocator, so that one allocator counts and frees all memory.
            strategy = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
            self._context: Any = self._engine.create_execution_context(strategy)
            if self._context is None:
                raise OutOfMemory(f"TensorRT could not make a context for {file.name}: {_WHY}")
            size = max(1, self._engine.device_memory_size_v2)
            self._activations = torch.empty(size, dtype=torch.uint8, device=cuda.DEVICE)
            self._context.set_device_memory(self._activations.data_ptr(), size)
            self._stream = cuda.stream_of(model)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise EngineUnreadable(f"{file.name} has the inputs {inputs}; one is expected")
        (self._input,) = inputs
        self._outputs = [name for name in names if name != self._input]

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up."""
        for shape in shapes:
            self.run(np.zeros(shape, dtype=np.uint8))

    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[NDArray[np.float32], ...]:  # noqa: ARG002
        """See Engine.run."""
        batch = np.asarray(images)
        with cuda.on(self._stream):
            channels_first = cuda.to_device(batch).permute(0, 3, 1, 2)
            scaled = (channels_first.to(self._dtype(self._input)) / 255).contiguous()
            if not self._context.set_input_shape(self._input, tuple(scaled.shape)):
                raise ValueError(f"an input of {tuple(scaled.shape)} is outside of the engine's profile")
            self._context.set_tensor_address(self._input, scaled.data_ptr())
            outputs = [self._output(name) for name in self._outputs]
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError(f"TensorRT did not run the batch: {_WHY}")
            return cuda.to_host(outputs, self._stream)

    def close(self) -> None:
        """See Engine.close."""
        del self._context
        del self._engine  # after the context, which must not outlive the engine
        del self._activations

    def _output(self, name: str) -> torch.Tensor:
        output = torch.empty(tuple(self._context.get_tensor_shape(name)), dtype=self._dtype(name), device=cuda.DEVICE)
        self._context.set_tensor_address(name, output.data_ptr())
        return output

    def _dtype(self, name: str) -> torch.dtype:
        return torch.float16 if self._engine.get_tensor_dtype(name) == tensorrt.DataType.HALF else torch.float32


def _check_room(file: Path, size: int) -> None:
    """Raise OutOfMemory if the GPU has too little free memory for `size` bytes of an engine.

    TensorRT returns None both for too little memory and for an unreadable file.
    """
    needed_mb = _ROOM * size / 1e6
    if cuda.free_mb() < needed_mb:
        raise OutOfMemory(f"{file.name} needs about {needed_mb:.0f} MB, and the GPU has {cuda.free_mb():.0f} MB left")


def without_header(content: bytes) -> bytes:
    """Strip the JSON metadata that ultralytics' exporter may write in front of a serialized engine."""
    end = _HEADER + int.from_bytes(content[:_HEADER], "little")
    if not _HEADER < end <= len(content):
        return content
    try:
        json.loads(content[_HEADER:end])
    except ValueError:  # an engine's own bytes are not JSON
        return content
    return content[end:]
