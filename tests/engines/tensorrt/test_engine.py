"""The TensorRT engine over a made-up tensorrt module and the fake device layer: the calls, not the arithmetic."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from engines.errors import EngineError, OutOfMemory
from tests.engines.cuda_layer import FakeCuda, FakeStream

SERIALIZED = b"ftrt serialized engine"
HEADER = json.dumps({"stride": 32, "names": {"0": "person"}}).encode()
EXPORTED = len(HEADER).to_bytes(4, "little") + HEADER + SERIALIZED


class FakeContext:
    """Gives, for each image, its mean in every channel. Addresses are looked up in `memory`, which the test fills."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.runs = 0

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        assert size == 4096

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        self.shape = shape
        return max(shape[2:]) <= 640

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape[0], 5, 7) if name == "output0" else self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeStream.cuda_stream
        self.runs += 1
        if self.engine.refuses:
            return False
        dtype = np.float16 if self.engine.half else np.float32
        images, output = (
            np.ctypeslib.as_array(
                (np.ctypeslib.ctypes.c_char * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(address)  # type: ignore[attr-defined]
            )
            .view(dtype)
            .reshape(shape)
            for shape, address in (
                (self.shape, self.addresses["images"]),
                (self.get_tensor_shape("output0"), self.addresses["output0"]),
            )
        )
        output[:] = images.astype(np.float32).mean(axis=(1, 2, 3))[:, None, None]
        return True


class FakeEngine:
    device_memory_size_v2 = 4096
    half = True
    refuses = False
    context_fits = True
    inputs: ClassVar[list[str]] = ["images"]

    def __init__(self) -> None:
        self.context: FakeContext | None = None

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + 1

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, "output0"][index]

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == "output0" else "input"

    def get_tensor_dtype(self, name: str) -> str:
        return "half" if self.half else "float"

    def create_execution_context(self, strategy: str) -> FakeContext | None:
        assert strategy == "user managed"
        self.context = FakeContext(self) if self.context_fits else None
        return self.context


@pytest.fixture
def serialized() -> list[bytes]:
    """What deserialize_cuda_engine was given."""
    return []


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, serialized: list[bytes]) -> Iterator[Any]:
    """engines.tensorrt.engine with the fakes below it."""

    class Logger:
        WARNING = 2

        def __init__(self, level: int) -> None: ...

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...

        def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
            serialized.append(content)
            return FakeEngine() if content == SERIALIZED else None

    class TensorIOMode:
        INPUT = "input"

    class ExecutionContextAllocationStrategy:
        USER_MANAGED = "user managed"

    class DataType:
        HALF = "half"

    fake: Any = ModuleType("tensorrt")
    fake.__version__ = "10.16.1.11"
    fake.Logger, fake.Runtime, fake.TensorIOMode, fake.DataType = Logger, Runtime, TensorIOMode, DataType
    fake.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    FakeCuda().install(monkeypatch)
    yield import_module("engines.tensorrt.engine")
    sys.modules.pop("engines.tensorrt.engine")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "pose_estimator.engine"
    file.write_bytes(EXPORTED)
    return file


@pytest.mark.parametrize("half", [True, False])
def test_each_image_gets_its_own_output_scaled_to_one(
    tensorrt: Any, file: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    monkeypatch.setattr(FakeEngine, "half", half)
    engine = tensorrt.TensorRtEngine(file, "f16", "pose_estimator")
    assert (engine.name, engine.precision) == ("tensorrt", "f16")
    engine.warm_up([(1, 32, 64, 3), (4, 32, 64, 3)])
    batch = np.stack([np.full((32, 64, 3), value, np.uint8) for value in (0, 51, 255)])
    (output,) = engine.run(batch)
    assert (output.dtype, output.shape) == (np.float32, (3, 5, 7))
    assert output[:, 0, 0].tolist() == pytest.approx([0, 0.2, 1], abs=1e-3)
    assert engine._context.shape == (3, 3, 32, 64)


def test_the_exporters_header_is_not_part_of_the_engine(tensorrt: Any, file: Path, serialized: list[bytes]) -> None:
    tensorrt.TensorRtEngine(file, "f16", "pose_estimator")
    file.write_bytes(SERIALIZED)  # one without a header
    tensorrt.TensorRtEngine(file, "f16", "pose_estimator")
    assert serialized == [SERIALIZED, SERIALIZED]


@pytest.mark.parametrize("content", [b"", b"xx", SERIALIZED[:-1], EXPORTED[:-1], b"\xff\xff\xff\x7f" + SERIALIZED])
def test_what_tensorrt_does_not_read_is_unreadable(tensorrt: Any, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(EngineError, match=r"TensorRT 10\.16\.1\.11 can't read pose_estimator\.engine"):
        tensorrt.TensorRtEngine(file, "f16", "pose_estimator")


def test_an_engine_for_which_there_is_no_memory_is_not_unreadable(
    tensorrt: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeCuda(free_mb=0.00001).install(monkeypatch)
    file.write_bytes(b"what TensorRT gives nothing for")
    with pytest.raises(OutOfMemory, match=r"needs about 0 MB, and the GPU has 0 MB left"):
        tensorrt.TensorRtEngine(file, "f16", "pose_estimator")


def test_an_engine_of_another_kind_is_unreadable(tensorrt: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "inputs", ["images", "orig_sizes"])
    with pytest.raises(EngineError, match=r"has the inputs \['images', 'orig_sizes'\]"):
        tensorrt.TensorRtEngine(file, "f16", "pose_estimator")


def test_a_context_that_does_not_fit_is_too_little_memory(
    tensorrt: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "context_fits", False)
    with pytest.raises(OutOfMemory):
        tensorrt.TensorRtEngine(file, "f16", "pose_estimator")


def test_an_input_outside_of_the_profile_is_an_error_of_that_call(tensorrt: Any, file: Path) -> None:
    engine = tensorrt.TensorRtEngine(file, "f16", "pose_estimator")
    with pytest.raises(ValueError, match="outside of the engine's profile"):
        engine.run(np.zeros((1, 672, 640, 3), np.uint8))
    engine.run(np.zeros((1, 640, 640, 3), np.uint8))


def test_a_batch_that_tensorrt_does_not_run_is_an_error_and_no_answer(
    tensorrt: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tensorrt.TensorRtEngine(file, "f16", "pose_estimator")
    monkeypatch.setattr(FakeEngine, "refuses", True)
    with pytest.raises(RuntimeError, match="TensorRT did not run the batch"):
        engine.run(np.zeros((1, 640, 640, 3), np.uint8))


def test_a_closed_engine_holds_nothing(tensorrt: Any, file: Path) -> None:
    engine = tensorrt.TensorRtEngine(file, "f16", "pose_estimator")
    engine.close()
    assert not [value for value in vars(engine).values() if isinstance(value, FakeEngine | FakeContext | torch.Tensor)]
