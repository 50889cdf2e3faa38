"""The OpenVINO engine: runs graphs on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal, TypeVar

import numpy as np
import openvino
from numpy.typing import NDArray

from engines import processor
from engines.batched import BatchLane
from engines.batches import batch_sizes
from engines.cores import cores, side_by_side
from engines.deadline import Deadline
from engines.engine import Images, Rows, Shape
from engines.errors import EngineError
from engines.lanes import Chain, DetectorLane, Lane, Stoppable
from engines.marks import carried
from engines.parts import cut, detector
from engines.shaped import SideBySide
from engines.traits import Traits

# For an int8 graph: the precision of the layers that are not quantized. bf16 was no faster there and less accurate.
_HINT: Final = {
    "f32": openvino.Type.f32,
    "bf16": openvino.Type.bf16,
    "f16": openvino.Type.f16,
    "int8": openvino.Type.f32,
}
_CAPABILITY: Final = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "f32+bf16": "BF16", "int8": "INT8"}
_WARM_UP_S: Final = 60.0  # the limit for starting all threads of a model; generous for slow machines

T = TypeVar("T")
MakeLane = Callable[[Sequence[openvino.CompiledModel]], Lane]
OwnPrecision = Literal["f32", "bf16", "f16", "f32+bf16", "int8"]


class OpenVinoEngine:
    """A graph, ONNX or OpenVINO IR, compiled for the CPU, whole or in parts (engines/parts.py).

    A single image gets all threads. Concurrent images are computed side by side, each on a lane with its share of the
    threads. Threads that share an image would wait for the slowest after each layer. Only small graphs gain from
    batches (engines/batched.py).

    Lanes that share one compiled graph share its weights. A lane with its own compiled graph computes on the calling
    thread. Height and width are free.
    """

    name = "openvino"

    def __init__(
        self,
        graph: Path,
        precision: OwnPrecision,
        traits: Traits,
        *,
        threads: int,
        cache: Path | None = None,
        verify: Callable[[], None] = lambda: None,
    ) -> None:
        """Compile `graph`.

        traits: how the graph is computed best.

        threads: of all images together; 0 = one for each core that the process may use.

        cache: OpenVINO's folder for compiled graphs. OpenVINO compiles again if the graph, its size, OpenVINO or the
        processor changed. It confuses precisions (2026.4), so each precision has a subfolder.

        verify: called before each read of the graph's files. Raises RuntimeError if they are not the imported files.

        Raises EngineError if the CPU has no instructions for `precision`; OpenVINO itself would silently use f32.
        """
        if _CAPABILITY[precision] not in processor.capabilities():
            raise EngineError(f"this CPU has no {precision} instructions: set ENRICHMENT_PRECISION to auto or f32")
        verify()
        self._verify = verify
        self.precision: str = precision
        self._config: dict[str, object] = {} if cache is None else {"CACHE_DIR": cache / precision}
        self._traits = traits
        self._read_parts = partial(_cut_graph, graph, precision, traits)
        self._threads = threads
        self._batch_lanes: SimpleQueue[BatchLane] | None = None
        self._undivided: Lane | None = None
        self._side_by_side: SideBySide | None = None
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        count = side_by_side(threads)
        if traits.batch > 1:
            self._batch_lanes = SimpleQueue()
            for _ in range(count):
                self._batch_lanes.put(self._make_batch_lane())
            if count > 1:
                make, parts = self._read_parts()
                self._undivided = make(self._compile(parts, threads))
        else:
            self._make_lanes(count)
        self._count = (self._lanes if self._batch_lanes is None else self._batch_lanes).qsize()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane")

    def _make_lanes(self, count: int) -> None:
        make, parts = self._read_parts()
        if count == 1:
            lanes = [make(self._compile(parts, self._threads))]
        elif self._traits.by_shape:
            self._undivided = Stoppable(*self._compile(parts, self._threads))
            self._side_by_side = SideBySide(self._compile_shape, count)
            lanes = [self._undivided]
        else:
            self._undivided = make(self._compile(parts, self._threads))
            if make is DetectorLane:  # with pinning, all lanes would run on the first core
                shares = _threads_per_lane(self._threads)
                lanes = [make(self._compile(parts, share, ENABLE_CPU_PINNING=False)) for share in shares]
            else:
                lanes = self._lanes_on_streams(make, parts, count)
        for lane in lanes:
            self._lanes.put(lane)

    @staticmethod
    def auto_precision(traits: Traits) -> OwnPrecision:
        """The precision for `auto`: bf16 if it is faster on this CPU and its measured loss is within the bounds."""
        if not processor.bf16_pays():
            return "f32"
        if traits.f32_until is not None:
            return "f32+bf16"
        return "bf16" if traits.bf16 else "f32"

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up. Raises BrokenBarrierError if not all threads start in time."""
        together = threading.Barrier(self._count, timeout=_WARM_UP_S)

        def run(image: NDArray[np.uint8]) -> None:
            together.wait()  # so that each thread takes a different lane
            with _borrowed(self._lanes) as lane:
                _warm_up(lane, image)

        for number, rest in enumerate(dict.fromkeys(tuple(rest) for _, *rest in shapes)):
            image = np.zeros(rest, dtype=np.uint8)
            if self._undivided is not None:
                # On one thread, and first: OpenVINO's binding (2026.4) hung when two threads made a process's first
                # tensor at the same time.
                _warm_up(self._undivided, image)
            if self._batch_lanes is not None:
                for _ in range(self._count):
                    with _borrowed(self._batch_lanes) as batch_lane:
                        batch_lane.warm_up(rest)
            # Only the largest shape: the others are hardly slower the first time.
            elif self._undivided is None or (number == 0 and self._side_by_side is None):
                list(self._pool.map(run, [image] * self._count))

    def run(
        self, images: Images, min_confidence: float = 0, *, alone: bool = True, deadline: Deadline | None = None
    ) -> tuple[Rows, ...]:
        """See Engine.run."""
        outputs: Sequence[tuple[NDArray[np.float32], ...]]
        if alone and len(images) == 1 and (whole := self._all_threads(images[0], min_confidence, deadline)):
            outputs = [whole]
        elif self._batch_lanes is not None:
            with _borrowed(self._batch_lanes) as batch_lane:
                outputs = batch_lane.infer(images)
        elif len(images) == 1:
            outputs = [self._on_a_lane(images[0], min_confidence, deadline)]
        else:
            run = carried(partial(self._on_a_lane, min_confidence=min_confidence, deadline=deadline))
            outputs = list(self._pool.map(run, images))
        return tuple(zip(*outputs, strict=True))

    def close(self) -> None:
        """See Engine.close."""
        self._pool.shutdown()
        if self._side_by_side is not None:
            self._side_by_side.close()
        self._lanes, self._batch_lanes, self._undivided = SimpleQueue(), None, None

    def _all_threads(
        self, image: NDArray[np.uint8], min_confidence: float, deadline: Deadline | None
    ) -> tuple[NDArray[np.float32], ...]:
        """The outputs of an image that gets all threads; empty if another image is being computed."""
        if self._undivided is None:
            return ()
        lanes: SimpleQueue[Any] = self._lanes if self._batch_lanes is None else self._batch_lanes
        taken: list[Any] = []
        try:
            while len(taken) < self._count:
                taken.append(lanes.get_nowait())
            return _infer(self._undivided, image, min_confidence, deadline)
        except Empty:
            return ()
        finally:
            for lane in taken:
                lanes.put(lane)

    def _on_a_lane(
        self, image: NDArray[np.uint8], min_confidence: float, deadline: Deadline | None
    ) -> tuple[NDArray[np.float32], ...]:
        by_shape = None if self._side_by_side is None else self._side_by_side.lanes(image.shape)
        with _borrowed(self._lanes if by_shape is None else by_shape) as lane:
            return _infer(lane, image, min_confidence, deadline)

    def _compile(
        self, parts: Sequence[openvino.Model], threads: int, size: int = 1, **config: object
    ) -> list[openvino.CompiledModel]:
        """Compile the parts of the graph. threads: 0 = OpenVINO's choice. size: images in a batch."""
        core = openvino.Core()
        config = {"PERFORMANCE_HINT": "LATENCY"} | self._config | config
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        precisions = self.precision.split("+")
        if len(precisions) == 1:
            precisions *= len(parts)
        compiled = []
        for part, precision in zip(parts, precisions, strict=True):
            part.reshape({each: [size, *each.partial_shape[1:]] for each in part.inputs})
            compiled.append(core.compile_model(part, "CPU", config | {"INFERENCE_PRECISION_HINT": _HINT[precision]}))
        return compiled

    def _lanes_on_streams(self, make: MakeLane, parts: Sequence[openvino.Model], count: int) -> list[Lane]:
        """Make lanes that share their weights, with one OpenVINO stream each."""
        streams = {"NUM_STREAMS": count, "ENABLE_CPU_PINNING": False}
        compiled = self._compile(parts, cores(self._threads), **streams)
        return [make(compiled) for _ in range(count)]

    def _compile_shape(self, shape: tuple[int, ...], count: int) -> list[Lane]:
        """Compile the graph for images of one shape, and make lanes for it."""
        self._verify()
        _, (graph,) = self._read_parts()
        graph.reshape({graph.inputs[0]: [1, *shape]})
        return self._lanes_on_streams(lambda compiled: Stoppable(*compiled), [graph], count)

    def _make_batch_lane(self) -> BatchLane:
        """Make a batch lane with one thread."""
        requests = {}
        for size in reversed(batch_sizes(self._traits.batch)):
            _, (graph,) = self._read_parts()
            (compiled,) = self._compile([graph], 1, size=size, ENABLE_CPU_PINNING=False)
            requests[size] = compiled.create_infer_request()
        return BatchLane(requests)


@contextmanager
def _borrowed(lanes: SimpleQueue[T]) -> Iterator[T]:
    lane = lanes.get()
    try:
        yield lane
    finally:
        lanes.put(lane)


def _threads_per_lane(threads: int) -> list[int]:
    """The thread count of each separately compiled lane. threads: of all together; 0 = one for each core.

    OpenVINO's streams would hand each part of an image to another thread and back, and the cores would idle meanwhile.
    """
    count, threads = side_by_side(threads), cores(threads)
    return [threads // count + (lane < threads % count) for lane in range(count)]


def _cut_graph(graph: Path, precision: OwnPrecision, traits: Traits) -> tuple[MakeLane, Sequence[openvino.Model]]:
    """Cut the graph for its precision; return the kind of lane and its parts."""
    if precision == "f32+bf16":
        assert traits.f32_until is not None
        return Chain, cut(graph, traits.f32_until)
    # In int8 the parts would exchange f32 tensors, which costs more time than the skipped scales save.
    if precision != "int8" and (found := detector(graph)) is not None:
        return DetectorLane, [found.trunk, *found.rests]
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # mapped weights would end the process if their file is cut
    return Chain, [core.read_model(graph)]


def _warm_up(lane: Lane, image: NDArray[np.uint8]) -> None:
    lane.warm_up(image[None])


def _infer(
    lane: Lane, image: NDArray[np.uint8], min_confidence: float, deadline: Deadline | None
) -> tuple[NDArray[np.float32], ...]:
    """Run one image (h, w, 3) on a lane; return copies of its outputs. Raises Abandoned if its deadline is over."""
    if deadline is not None:
        deadline.check()
    outputs = lane.infer(np.ascontiguousarray(image)[None], min_confidence, deadline)
    return tuple(np.array(row) for (row,) in outputs)
