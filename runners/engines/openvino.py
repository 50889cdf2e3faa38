"""OpenVINO on the CPU: the engine where there is no CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import openvino
from numpy.typing import NDArray

from models.catalogue import ModelName
from runners.engines import Shape
from runners.engines.errors import EngineError

_HINT: Final = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16, "f16": openvino.Type.f16}
_CAPABILITY: Final = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
# The models whose bf16 answers stay within the bounds of README "Precision", by the table measured there.
_BF16_WITHIN_BOUNDS: Final[frozenset[ModelName]] = frozenset({"threat_detector", "person_reid", "depth_estimator"})


class OpenVinoEngine:
    """An ONNX graph compiled for the CPU.

    One graph with dynamic batch, height and width: measured as fast as one compiled for a fixed shape, without a copy
    of the weights for each.
    """

    name = "openvino"

    def __init__(self, graph: Path, precision: Literal["f32", "bf16", "f16"], *, threads: int) -> None:
        """Compile `graph`. threads: per call; 0 = all cores.

        Raises EngineError if the CPU has no instructions for `precision`: OpenVINO itself would quietly compute in f32.
        """
        if _CAPABILITY[precision] not in _capabilities():
            raise EngineError(f"this CPU has no {precision} instructions: set ENRICHMENT_PRECISION to auto or f32")
        self.precision = precision
        config: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINT[precision]}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        model = openvino.Core().compile_model(graph, "CPU", config)
        self._request: openvino.InferRequest | None = model.create_infer_request()

    @staticmethod
    def auto_precision(name: ModelName) -> Literal["f32", "bf16"]:
        """What `auto` takes for a model: bf16 where this CPU has it and its loss was measured to be within bounds."""
        return "bf16" if name in _BF16_WITHIN_BOUNDS and "BF16" in _capabilities() else "f32"

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """See Engine.warm_up."""
        for shape in shapes:
            self.run(np.zeros(shape, dtype=np.uint8))

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """See Engine.run."""
        assert self._request is not None  # nobody has an engine that was closed
        results = self._request.infer([batch], share_inputs=True)
        return tuple(np.array(results[index]) for index in range(len(results)))

    def close(self) -> None:
        """See Engine.close."""
        self._request = None


def _capabilities() -> list[str]:
    capabilities: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capabilities
