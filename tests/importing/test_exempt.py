"""Which operations int8 leaves in f32, on graphs of untrained networks of each version that is taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import openvino
import pytest
from openvino import opset13 as operations

from importing.errors import ImportFailure
from importing.int8.exempt import exempt
from models.catalogue import CATALOGUE, ModelName
from tests.importing.yolo import VERSIONS, graph_of

BRANCHES: Final[dict[ModelName, int]] = {"pose_estimator": 3, "threat_detector": 2}
SCALES: Final = 3


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_of_every_version_of_yolo_the_head_s_end_stays_and_nothing_else(
    name: ModelName, version: str, tmp_path: Path
) -> None:
    model = openvino.convert_model(graph_of(name, version, tmp_path))
    (pattern,) = exempt(CATALOGUE[name].quantization, model)
    names = [operation.get_friendly_name() for operation in model.get_ordered_ops()]
    kept = [each for each in names if re.fullmatch(pattern, each)]
    ends = [each for each in kept if each.endswith(".2/Conv/WithoutBiases")]
    assert len(ends) == SCALES * BRANCHES[name]
    (head,) = {end.split("/cv")[0] for end in ends}
    assert all(each.startswith(f"{head}/") for each in kept)
    assert f"{head}/dfl/Softmax" in kept
    assert any(each.startswith(f"{head}/Concat") for each in kept)
    inner = [each for each in names if each.startswith(f"{head}/cv") and "/conv/Conv" in each]
    assert inner
    assert not set(inner) & set(kept)


def test_a_detector_without_a_known_head_is_not_quantized() -> None:
    image = operations.parameter([1, 8, 8, 3], openvino.Type.f32)
    model = openvino.Model([operations.relu(image)], [image])
    with pytest.raises(ImportFailure, match="the graph has 0 heads by the names of its operations"):
        exempt(CATALOGUE["threat_detector"].quantization, model)
    assert exempt(CATALOGUE["depth_estimator"].quantization, model) == []
