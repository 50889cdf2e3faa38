"""Which precisions OpenVINO supports on this CPU, and whether bf16 is faster."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final

import numpy as np
import openvino
from openvino import opset13 as operations

# A chain of convolutions, as large as those in the middle of YOLOv8n.
_CHANNELS: Final = 64
_SIZE: Final = 40
_LAYERS: Final = 3
_TRIES: Final = 10
_FASTER: Final = 0.9  # of f32's time; where bf16 is faster at all, it takes little more than half


def capabilities() -> list[str]:
    """OpenVINO's names of the precisions for which this CPU has instructions."""
    names: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return names


@lru_cache(maxsize=1)
def bf16_pays() -> bool:
    """Whether bf16 is faster than f32 on this CPU. Measured once per process, in about 0.1 s.

    The instruction set alone does not tell. With AVX-512's bf16 but without AMX, OpenVINO can be slower than in f32.
    """
    if "BF16" not in capabilities():
        return False
    image = np.zeros((1, _CHANNELS, _SIZE, _SIZE), dtype=np.float32)
    requests = {hint: _compiled(hint) for hint in (openvino.Type.f32, openvino.Type.bf16)}
    seconds = dict.fromkeys(requests, float("inf"))
    for _ in range(_TRIES):  # alternating, and the best of each: other load then affects both alike
        for hint, request in requests.items():
            began = time.perf_counter()
            request.infer([image])
            seconds[hint] = min(seconds[hint], time.perf_counter() - began)
    return seconds[openvino.Type.bf16] < _FASTER * seconds[openvino.Type.f32]


def _compiled(hint: openvino.Type) -> openvino.InferRequest:
    image = operations.parameter([1, _CHANNELS, _SIZE, _SIZE], openvino.Type.f32)
    weights = np.full((_CHANNELS, _CHANNELS, 3, 3), 1 / (9 * _CHANNELS), dtype=np.float32)
    ones = [1, 1]  # strides, padding before and after, dilations
    node = image
    for _ in range(_LAYERS):
        node = operations.relu(operations.convolution(node, operations.constant(weights), ones, ones, ones, ones))
    config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1}
    return openvino.Core().compile_model(openvino.Model([node], [image]), "CPU", config).create_infer_request()
