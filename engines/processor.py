"""What OpenVINO can compute on this CPU, and what of it pays."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final

import numpy as np
import openvino
from openvino import opset13 as operations

# One convolution after another, as large as one in the middle of YOLOv8n: 2 ms in f32 on one core.
_CHANNELS: Final = 64
_SIZE: Final = 40
_LAYERS: Final = 3
_TRIES: Final = 10
# Far from both: where bf16 is good for something it takes not much more than half the time of f32.
_FASTER: Final = 0.9


def capabilities() -> list[str]:
    """OpenVINO's names of the precisions for which this CPU has instructions."""
    names: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return names


@lru_cache(maxsize=1)
def bf16_pays() -> bool:
    """Whether bf16 is faster than f32 here; found out once a process, in a tenth of a second.

    Instructions alone do not say so: on an AMD EPYC pose was 1.8 times as fast in bf16; on an Intel Xeon that has
    AVX-512's bf16 alone, in a virtual machine without AMX, OpenVINO took 1.3 to 1.8 times as long as in f32.
    """
    if "BF16" not in capabilities():
        return False
    image = np.zeros((1, _CHANNELS, _SIZE, _SIZE), dtype=np.float32)
    requests = {hint: _compiled(hint) for hint in (openvino.Type.f32, openvino.Type.bf16)}
    seconds = dict.fromkeys(requests, float("inf"))
    for _ in range(_TRIES):  # in turns, and the best of each: whatever else runs here hits both
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
