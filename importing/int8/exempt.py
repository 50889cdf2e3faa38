"""What of a graph stays in f32 when the rest is quantized to int8."""

from __future__ import annotations

import re
from typing import Final

import openvino

from engines.parts import BRANCH
from importing.errors import ImportFailure
from models.catalogue import ModelName

_DETECTORS: Final[frozenset[ModelName]] = frozenset({"pose_estimator", "threat_detector"})
# Of a detector's head the arithmetic on its boxes, whose values are pixels, and the last convolution of each branch
# (YOLOv8n-pose's mean OKS is 0.991 instead of 0.989, and of 70 people two are lost instead of three).
_HEAD_ENDS: Final = r"/(cv\d\.\d/cv\d\.\d\.2/|dfl|[A-Z]).*"
# Of ResNet-18 the first and the last layer: 250 pictures a second instead of 300 (78 in f32), and of 65 none gets
# another label instead of three.
_RESNET_ENDS: Final = (r".*/embedder/.*", r".*/classifier/.*")


def exempt(name: ModelName, model: openvino.Model) -> list[str]:
    """Regular expressions for the names of the operations of `model` that stay in f32.

    Raises ImportFailure for a detector in which no head is found: its boxes would be quantized to steps of pixels.
    """
    if name == "pet_classifier":
        return [*_RESNET_ENDS]
    if name not in _DETECTORS:
        return []
    # Where biases are all zero, OpenVINO leaves their addition out, which has the convolution's own name.
    named = (operation.get_friendly_name().removesuffix("/WithoutBiases") for operation in model.get_ordered_ops())
    heads = {branch["head"] for operation in named if (branch := BRANCH.fullmatch(operation))}
    if len(heads) != 1:
        raise ImportFailure(
            f"the graph has {len(heads)} heads by the names of its operations ({BRANCH.pattern}). One is needed, "
            "as ultralytics' Detect or Pose has: its end must not be quantized"
        )
    return [re.escape(heads.pop()) + _HEAD_ENDS]
