"""OpenVINO on the CPU: the engine where there is no CUDA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import openvino
from numpy.typing import NDArray

from models.catalogue import ModelName
from runners.engines import Shape
from runners.engines.errors import EngineError
from runners.engines.parts import cut

_HINT: Final = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16, "f16": openvino.Type.f16}
_CAPABILITY: Final = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "f32+bf16": "BF16"}
# The models whose bf16 answers stay within the bounds of README "Precision", by the table measured there.
_BF16_WITHIN_BOUNDS: Final[frozenset[ModelName]] = frozenset({"threat_detector", "person_reid", "depth_estimator"})
# Those whose do if the first layers run in f32: the node after which bf16 begins.
_F32_UNTIL: Final[Mapping[ModelName, str]] = MappingProxyType(
    {"pet_classifier": "/resnet/encoder/stages.0/layers.1/activation/Relu"}
)

# The models whose layers are too small to share: a second thread makes OSNet a sixth faster for nearly twice the
# processor time, and waits for the other half of each layer wherever anything else runs.
_ONE_THREAD: Final[frozenset[ModelName]] = frozenset({"person_reid"})

OwnPrecision = Literal["f32", "bf16", "f16", "f32+bf16"]


class OpenVinoEngine:
    """An ONNX graph compiled for the CPU, in one part or in two of different precision.

    One graph with dynamic batch, height and width: measured as fast as one compiled for a fixed shape, without a copy
    of the weights for each.
    """

    name = "openvino"

    def __init__(self, graph: Path, precision: OwnPrecision, *, model: ModelName, threads: int) -> None:
        """Compile `graph`. threads: per call; 0 = as many as pay: all cores, but for small models.

        Raises EngineError if the CPU has no instructions for `precision`: OpenVINO itself would quietly compute in f32.
        """
        if _CAPABILITY[precision] not in _capabilities():
            raise EngineError(f"this CPU has no {precision} instructions: set ENRICHMENT_PRECISION to auto or f32")
        self.precision: str = precision
        threads = threads or int(model in _ONE_THREAD)
        parts: list[tuple[Path | openvino.Model, openvino.Type]]
        if precision == "f32+bf16":
            first, rest = cut(graph, _F32_UNTIL[model])
            parts = [(first, openvino.Type.f32), (rest, openvino.Type.bf16)]
        else:
            parts = [(graph, _HINT[precision])]
        self._requests = [_request(part, hint, threads) for part, hint in parts]

    @staticmethod
    def auto_precision(name: ModelName) -> OwnPrecision:
        """What `auto` takes for a model: bf16 where this CPU has it and its loss was measured to be within bounds."""
        if "BF16" not in _capabilities():
            return "f32"
        if name in _F32_UNTIL:
            return "f32+bf16"
        return "bf16" if name in _BF16_WITHIN_BOUNDS else "f32"

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up."""
        for shape in shapes:
            self.run(np.zeros(shape, dtype=np.uint8))

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """See Engine.run."""
        results = None
        for request in self._requests:
            inputs = [batch] if results is None else [results[index] for index in range(len(results))]
            results = request.infer(inputs, share_inputs=True)
        assert results is not None  # nobody has an engine that was closed
        return tuple(np.array(results[index]) for index in range(len(results)))

    def close(self) -> None:
        """See Engine.close."""
        self._requests = []


def _request(model: Path | openvino.Model, hint: openvino.Type, threads: int) -> openvino.InferRequest:
    config: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(model, "CPU", config).create_infer_request()


def _capabilities() -> list[str]:
    capabilities: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capabilities
