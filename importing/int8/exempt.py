"""Selects the operations that stay in f32 when a graph is quantized to int8."""

from __future__ import annotations

import re
from typing import Final

import openvino

from engines.parts import BRANCH
from importing.errors import ImportFailure
from models.catalogue import Quantization

# The end of a detector's head: the arithmetic on boxes in pixels, and the last convolution of each branch.
_HEAD_ENDS: Final = r"/(cv\d\.\d/cv\d\.\d\.2/|dfl|[A-Z]).*"


def exempt(quantization: Quantization, model: openvino.Model) -> list[str]:
    """Return regular expressions for the names of the operations of `model` that stay in f32.

    Raises ImportFailure if a detector's head can't be found: its boxes would be quantized to steps of several pixels.
    """
    if not quantization.keeps_head:
        return [*quantization.keeps]
    # A convolution's name belongs to the addition of its biases. OpenVINO drops the addition if all biases are zero.
    named = (operation.get_friendly_name().removesuffix("/WithoutBiases") for operation in model.get_ordered_ops())
    heads = {branch["head"] for operation in named if (branch := BRANCH.fullmatch(operation))}
    if len(heads) != 1:
        raise ImportFailure(
            f"the graph has {len(heads)} heads by the names of its operations ({BRANCH.pattern}). One is needed, "
            "as ultralytics' Detect or Pose has: its end must not be quantized"
        )
    return [*quantization.keeps, re.escape(heads.pop()) + _HEAD_ENDS]
