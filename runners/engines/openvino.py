"""OpenVINO on the CPU: the engine where there is no CUDA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import openvino
from numpy.typing import NDArray

from models.catalogue import CATALOGUE, ModelName
from runners.engines import Shape, processor
from runners.engines.errors import EngineError
from runners.engines.parts import cut

# Of an int8 graph it is what the rest is computed in: bf16 was no faster there and cost more.
_HINT: Final = {
    "f32": openvino.Type.f32,
    "bf16": openvino.Type.bf16,
    "f16": openvino.Type.f16,
    "int8": openvino.Type.f32,
}
_CAPABILITY: Final = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "f32+bf16": "BF16", "int8": "INT8"}
# The models whose bf16 answers stay within the bounds of README "Precision", by the table measured there.
_BF16_WITHIN_BOUNDS: Final[frozenset[ModelName]] = frozenset({"threat_detector", "person_reid", "depth_estimator"})
# Those whose do if the first layers run in f32: the node after which bf16 begins.
_F32_UNTIL: Final[Mapping[ModelName, str]] = MappingProxyType(
    {"pet_classifier": "/resnet/encoder/stages.0/layers.1/activation/Relu"}
)

# The models whose layers are too small to share: a second thread makes OSNet a sixth faster for nearly twice the
# processor time, and waits for the other half of each layer wherever anything else runs.
_ONE_THREAD: Final[frozenset[ModelName]] = frozenset({"person_reid"})

# Images that are computed together: in fours all are faster than one by one, by 7 to 19 %, and in eights no faster than
# in fours; depth gains nothing.
_TOGETHER: Final[Mapping[ModelName, int]] = MappingProxyType(dict.fromkeys(CATALOGUE, 4) | {"depth_estimator": 1})

OwnPrecision = Literal["f32", "bf16", "f16", "f32+bf16", "int8"]


class OpenVinoEngine:
    """A graph, ONNX or OpenVINO's own, compiled for the CPU, in one part or in two of different precision.

    Compiled for single images and, when the first come together, for so many as pay, height and width as they come: a
    graph that gets another batch size than the last time prepares all its layers anew, for longer than OSNet computes.
    """

    name = "openvino"

    def __init__(
        self, graph: Path, precision: OwnPrecision, *, model: ModelName, threads: int, cache: Path | None = None
    ) -> None:
        """Compile `graph`. threads: per call; 0 = as many as pay: all cores, but for small models.

        cache: a folder in which OpenVINO keeps what it compiled; it checks what it finds there, and compiles anew where
        that is of another graph, size, OpenVINO or processor, but takes another precision's for its own (2026.4): so
        each has a folder below it.

        Raises EngineError if the CPU has no instructions for `precision`: OpenVINO itself would quietly compute in f32.
        """
        if _CAPABILITY[precision] not in processor.capabilities():
            raise EngineError(f"this CPU has no {precision} instructions: set ENRICHMENT_PRECISION to auto or f32")
        self.precision: str = precision
        self._graph = graph
        self._until = _F32_UNTIL[model] if precision == "f32+bf16" else None
        self._threads = threads or int(model in _ONE_THREAD)
        self._cache = cache / precision if cache else None
        self._together = _TOGETHER[model]
        self._compiled = {1: self._compile(1)}

    @staticmethod
    def auto_precision(name: ModelName) -> OwnPrecision:
        """What `auto` takes for a model: bf16 where it is faster here and its loss was measured to be within bounds."""
        if not processor.bf16_pays():
            return "f32"
        if name in _F32_UNTIL:
            return "f32+bf16"
        return "bf16" if name in _BF16_WITHIN_BOUNDS else "f32"

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up."""
        for size, rest in dict.fromkeys((size, tuple(rest)) for count, *rest in shapes for size in self._cut(count)):
            self.run(np.zeros((size, *rest), dtype=np.uint8))

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """See Engine.run."""
        outputs, start = [], 0
        for size in self._cut(len(batch)):
            outputs.append(self._infer(batch[start : start + size]))
            start += size
        return (
            outputs[0] if len(outputs) == 1 else tuple(np.concatenate(output) for output in zip(*outputs, strict=True))
        )

    def close(self) -> None:
        """See Engine.close."""
        self._compiled = {}

    def _cut(self, count: int) -> list[int]:
        """The sizes, ascending in cost, in which so many images are computed: as many together as pay, then singly."""
        return [self._together] * (count // self._together) + [1] * (count % self._together)

    def _infer(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        if len(batch) not in self._compiled:
            self._compiled[len(batch)] = self._compile(len(batch))
        results = None
        for request in self._compiled[len(batch)]:
            inputs = [batch] if results is None else [results[index] for index in range(len(results))]
            results = request.infer(inputs, share_inputs=True)
        assert results is not None  # there is a part at least
        return tuple(np.array(results[index]) for index in range(len(results)))

    def _compile(self, size: int) -> list[openvino.InferRequest]:
        """The parts of the graph for batches of one size."""
        config: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._threads:
            config["INFERENCE_NUM_THREADS"] = self._threads
        if self._cache is not None:
            config["CACHE_DIR"] = self._cache
        core = openvino.Core()
        parts = [core.read_model(self._graph)] if self._until is None else cut(self._graph, self._until)
        requests = []
        for part, hint in zip(parts, self.precision.split("+"), strict=True):
            part.reshape({each: [size, *each.partial_shape[1:]] for each in part.inputs})
            compiled = core.compile_model(part, "CPU", config | {"INFERENCE_PRECISION_HINT": _HINT[hint]})
            requests.append(compiled.create_infer_request())
        return requests
