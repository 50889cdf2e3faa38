"""The torch engines on a made-up network; those on CUDA over the fake device layer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from engines import cuda
from engines import torch as engines
from engines.errors import DeviceLost, EngineError, OutOfMemory
from models.catalogue import CATALOGUE, ModelName
from models.store import find
from runners.loader import warm_up_shapes
from settings import get_settings
from tasks import TASKS
from tests.engines.cuda_layer import FakeCuda

RNG = np.random.default_rng(7)
BATCH = RNG.integers(0, 256, (4, 8, 8, 3), np.uint8)


class Tiny(nn.Module):
    """A convolution, a batch norm, a grid that is made on the fly as YOLO's head does, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.convolution(image.permute(0, 3, 1, 2).float() / 255)).relu()
        x = x.mean(dim=(2, 3)) * self.scale + torch.arange(8, device=x.device).type_as(x)
        return self.linear(x), x


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "tiny.pt2"
    sizes = {0: Dim("batch", min=1, max=64)}
    torch.export.save(torch.export.export(Tiny().eval(), (torch.from_numpy(BATCH[:2]),), dynamic_shapes=(sizes,)), file)
    return file


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in Tiny().eval()(torch.from_numpy(BATCH))]


def close(outputs: tuple[np.ndarray, ...], expected: list[np.ndarray], tolerance: float) -> bool:
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}
    return all(np.allclose(one, other, atol=tolerance) for one, other in zip(outputs, expected, strict=True))


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-5), ("auto", 1e-5), ("bf16", 0.05)])
def test_on_a_cpu(program: Path, expected: list[np.ndarray], precision: engines.Requested, tolerance: float) -> None:
    engine = engines.load(program, precision, model="person_reid", on_cuda=False, threads=0)
    assert engine.precision == ("f32" if precision == "auto" else precision)
    engine.warm_up([(1, 8, 8, 3), (4, 8, 8, 3)])
    assert close(engine.run(BATCH), expected, tolerance)
    engine.close()


def test_there_is_no_f16_on_a_cpu(program: Path) -> None:
    with pytest.raises(EngineError, match="no fast f16 on a CPU"):
        engines.load(program, "f16", model="person_reid", on_cuda=False, threads=0)


def test_weights_of_matrix_operators_alone_are_kept_in_the_reduced_precision(program: Path) -> None:
    engine = engines.load(program, "bf16", model="person_reid", on_cuda=False, threads=0)
    kept = {name: parameter.dtype for name, parameter in engine._module.named_parameters()}
    assert kept == {
        "convolution.weight": torch.bfloat16,
        "convolution.bias": torch.bfloat16,
        "linear.weight": torch.bfloat16,
        "linear.bias": torch.bfloat16,
        "norm.weight": torch.float32,
        "norm.bias": torch.float32,
        "scale": torch.float32,
    }


def cuda_engine(program: Path, precision: engines.Requested = "f32") -> engines.CudaEngine:
    engine = engines.load(program, precision, model="person_reid", on_cuda=True, threads=0)
    assert isinstance(engine, engines.CudaEngine)
    return engine


def everything() -> float:
    return 1e9


def test_on_cuda_auto_is_f16(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program, "auto")
    assert engine.precision == "f16"
    assert engine._module.get_parameter("convolution.weight").dtype == torch.float16
    assert engine._module.get_parameter("convolution.weight").is_contiguous(memory_format=torch.channels_last)


def test_one_thread_computes_a_model_whoever_asks_and_after_a_reload(
    monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    """cuDNN's plans belong to threads, and torch keeps those of threads that have ended."""
    FakeCuda().install(monkeypatch)
    threads: set[int] = set()
    forward = engines.CudaEngine._forward

    def seen(engine: engines.CudaEngine, images: Tensor) -> cuda.Tensors:
        threads.add(threading.get_ident())
        return forward(engine, images)

    monkeypatch.setattr(engines.CudaEngine, "_forward", seen)
    for _ in range(2):
        engine = cuda_engine(program)
        engine.warm_up([(2, 8, 8, 3)])
        assert engine.capture(everything) == 1
        callers = [threading.Thread(target=engine.run, args=(BATCH,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        engine.close()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_room_is_asked_for_only_where_a_graph_is_missing(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(2, 8, 8, 3)])
    assert engine.capture(everything) == 1
    assert engine.capture(lambda: pytest.fail("asked")) == 1
    engine.close()


def test_graphs_give_each_batch_its_own_answers(
    monkeypatch: pytest.MonkeyPatch, program: Path, expected: list[np.ndarray]
) -> None:
    device = FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(2, 8, 8, 3), (4, 8, 8, 3)])
    assert not device.graphs  # they come when the others are in, and there is room
    assert engine.capture(everything) == 2
    first, second = engine.run(BATCH), engine.run(BATCH[::-1].copy())
    assert close(first, expected, 1e-5)
    assert close(second, [output[::-1] for output in expected], 1e-5)
    assert [device.graphs[shape].replays for shape in ((2, 8, 8, 3), (4, 8, 8, 3))] == [0, 2]
    assert close(engine.run(BATCH[:1]), [output[:1] for output in expected], 1e-5)  # a shape that was not warmed up
    assert list(device.graphs) == [(4, 8, 8, 3), (2, 8, 8, 3)]  # they share their memory: the largest first


def test_graphs_that_were_given_back_are_not_used_and_can_be_had_again(
    monkeypatch: pytest.MonkeyPatch, program: Path, expected: list[np.ndarray]
) -> None:
    device = FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(4, 8, 8, 3)])
    for _ in range(2):
        assert engine.capture(everything) == 1
        assert close(engine.run(BATCH), expected, 1e-5)
        assert device.graphs[4, 8, 8, 3].replays == 1
        assert engine.give_back()
        assert close(engine.run(BATCH), expected, 1e-5)
        assert device.graphs[4, 8, 8, 3].replays == 1


class Pool:
    """What graphs leave of `room_mb`: they share their memory, and none of it comes back before the last has left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: engines.CudaEngine, room_mb: float) -> None:
        self.room_mb = room_mb
        self.needed = {4: 400.0, 2: 200.0, 1: 100.0}  # images → MB
        self.tried: list[int] = []
        self._engine = engine
        self._held = 0.0
        capture = cuda.capture

        def counted(forward: Any, shape: tuple[int, ...], pool: Any, stream: Any) -> cuda.Captured:
            self.left()
            self.tried.append(shape[0])
            self._held = max(self._held, self.needed[shape[0]])
            return capture(forward, shape, pool, stream)

        monkeypatch.setattr(cuda, "capture", counted)

    def left(self) -> float:
        self._held = self._held if self._engine._captured else 0
        return self.room_mb - self._held


@pytest.mark.parametrize(
    ("room_mb", "kept"), [(400, [4, 2, 1]), (399, [2, 1]), (200, [2, 1]), (150, [1]), (99, []), (0, []), (-5, [])]
)
def test_the_largest_graphs_that_fit_are_kept_whenever_it_is_done(
    monkeypatch: pytest.MonkeyPatch, program: Path, expected: list[np.ndarray], room_mb: float, kept: list[int]
) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(1, 8, 8, 3), (4, 8, 8, 3), (2, 8, 8, 3)])
    pool = Pool(monkeypatch, engine, room_mb)
    for _ in range(3):
        assert engine.capture(pool.left) == len(kept)
        assert [shape[0] for shape in engine._captured] == kept
    assert pool.left() >= min(room_mb, 0)
    assert pool.tried == ([4, 2, 1] if room_mb >= 0 else [])  # what did not fit is not tried again in the same room
    assert close(engine.run(BATCH), expected, 1e-5)


def test_a_graph_is_tried_again_where_there_is_more_room(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(4, 8, 8, 3)])
    pool = Pool(monkeypatch, engine, 300)
    assert engine.capture(pool.left) == 0
    pool.room_mb = 450
    assert engine.capture(pool.left) == 1
    assert pool.tried == [4, 4]


def test_one_that_passes_the_budget_in_the_memory_of_others_leaves_with_them(
    monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(4, 8, 8, 3), (2, 8, 8, 3), (1, 8, 8, 3)])
    pool = Pool(monkeypatch, engine, 400)
    pool.needed[2] = 450
    for _ in range(3):
        engine.capture(pool.left)
        assert pool.left() >= 0


def test_a_call_does_not_become_part_of_what_is_captured(
    monkeypatch: pytest.MonkeyPatch, program: Path, expected: list[np.ndarray]
) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(4, 8, 8, 3)])
    capture, ended = cuda.capture, threading.Event()
    answers: list[tuple[np.ndarray, ...]] = []

    def call() -> None:
        answers.append(engine.run(BATCH))
        ended.set()

    thread = threading.Thread(target=call)

    def slow(*arguments: Any) -> cuda.Captured:
        thread.start()
        assert not ended.wait(0.3)
        return capture(*arguments)

    monkeypatch.setattr(cuda, "capture", slow)
    assert engine.capture(everything) == 1
    thread.join(10)
    assert close(answers[0], expected, 1e-5)


def test_what_cannot_be_captured_runs_without_a_graph(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: Path, expected: list[np.ndarray]
) -> None:
    FakeCuda(uncapturable=RuntimeError("operation not permitted when stream is capturing")).install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(4, 8, 8, 3), (2, 8, 8, 3)])
    assert [engine.capture(everything), engine.capture(everything)] == [0, 0]  # nor is it tried again
    assert close(engine.run(BATCH), expected, 1e-5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_where_memory_is_short_the_smaller_ones_are_still_captured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: Path, expected: list[np.ndarray]
) -> None:
    device = FakeCuda(uncapturable=torch.OutOfMemoryError("CUDA out of memory"), capturable=2).install(monkeypatch)
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    engine = cuda_engine(program)
    engine.warm_up([(1, 8, 8, 3), (2, 8, 8, 3), (4, 8, 8, 3)])
    assert engine.capture(everything) == 2
    assert close(engine.run(BATCH), expected, 1e-5)
    assert close(engine.run(BATCH[:2]), [output[:2] for output in expected], 1e-5)
    assert {shape[0]: graph.replays for shape, graph in device.graphs.items()} == {2: 1, 1: 0}
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_a_capture_that_breaks_the_device_is_no_warning(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    device = FakeCuda(uncapturable=RuntimeError("CUDA error: unspecified launch failure")).install(monkeypatch)
    engine = cuda_engine(program)
    engine.warm_up([(4, 8, 8, 3)])
    device.answers = False
    with pytest.raises(DeviceLost):
        engine.capture(everything)


def test_a_batch_that_finds_no_memory_says_so_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch, program: Path, expected: list[np.ndarray]
) -> None:
    FakeCuda().install(monkeypatch)
    engine = cuda_engine(program)
    forward = engine._forward

    def full(images: Tensor) -> tuple[Tensor, ...]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(engine, "_forward", full)
    with pytest.raises(OutOfMemory, match=r"2\.00 MiB"):
        engine.run(BATCH)
    monkeypatch.setattr(engine, "_forward", forward)
    assert close(engine.run(BATCH), expected, 1e-5)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_program_runs_on_another_device_at_every_usual_size_and_waits_for_nothing(
    model_store: Path, name: ModelName
) -> None:
    # torch's "meta" device has shapes without values, so whatever reads a value fails on it. Programs are exported on a
    # CPU, and what makes a tensor there would on CUDA be a copy in the middle, which no graph can hold.
    stored = find(name)
    assert stored is not None
    module = engines.module_on(torch.device("meta"), stored.program)
    devices = {node.kwargs["device"] for node in module.graph.nodes if node.kwargs.get("device") is not None}
    assert {torch.device(device).type for device in devices} <= {"meta"}
    assert {tensor.device.type for tensor in [*module.parameters(), *module.buffers()]} == {"meta"}
    for shape in warm_up_shapes(TASKS[name](get_settings().models[name]), stored.card):
        outputs = module(torch.empty(shape, dtype=torch.uint8, device="meta"))
        assert {len(output) for output in (outputs if isinstance(outputs, tuple) else (outputs,))} == {shape[0]}
