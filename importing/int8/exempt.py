"""What of a graph stays in f32 when the rest is quantized to int8."""

from __future__ import annotations

import re
from typing import Final

import openvino

from engines.parts import BRANCH
from importing.errors import ImportFailure
from models.catalogue import Quantization

# Of a detector's head the arithmetic on its boxes, whose values are pixels, and the last convolution of each branch
# (YOLOv8n-pose's mean OKS is 0.991 instead of 0.989, and of 70 people two are lost instead of three).
_HEAD_ENDS: Final = r"/(cv\d\.\d/cv\d\.\d\.2/|dfl|[A-Z]).*"


def exempt(quantization: Quantization, model: openvino.Model) -> list[str]:
    """Regular expressions for the names of the operations of `model` that stay in f32.

    Raises ImportFailure for a detector in which no head is found: its boxes would be quantized to steps of pixels.
    """
    if not quantization.keeps_head:
        return [*quantization.keeps]
    # Where biases are all zero, OpenVINO leaves their addition out, which has the convolution's own name.
    named = (operation.get_friendly_name().removesuffix("/WithoutBiases") for operation in model.get_ordered_ops())
    heads = {branch["head"] for operation in named if (branch := BRANCH.fullmatch(operation))}
    if len(heads) != 1:
        raise ImportFailure(
            f"the graph has {len(heads)} heads by the names of its operations ({BRANCH.pattern}). One is needed, "
            "as ultralytics' Detect or Pose has: its end must not be quantized"
        )
    return [*quantization.keeps, re.escape(heads.pop()) + _HEAD_ENDS]
