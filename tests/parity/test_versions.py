"""What the service computes with YOLOv8, YOLO11 and YOLO12 against ultralytics' own networks, untrained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.openvino import OpenVinoEngine
from engines.parts import detector
from importing.convert import write_graph
from models.catalogue import CATALOGUE, ModelName
from models.store import GRAPH
from tests.importing.yolo import VERSIONS, network_of


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_openvino_gives_what_ultralytics_gives_and_leaves_out_only_what_does_not_count(
    name: ModelName, version: str, tmp_path: Path
) -> None:
    network = network_of(name, version, tmp_path)
    write_graph(network, tmp_path / GRAPH)
    image = np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    with torch.inference_mode():
        (official,) = network.original(torch.from_numpy(image[None].copy()))
    engine = OpenVinoEngine(tmp_path / GRAPH, "f32", CATALOGUE[name].traits, threads=1)
    whole = np.asarray(engine.run([image])[0][0])
    figures = network.compare((official,), (torch.from_numpy(whole[None]),))
    assert all(value <= network.limits[metric] for metric, value in figures.items()), figures

    assert detector(tmp_path / GRAPH) is not None  # the engine above runs it in parts
    scores = whole[4 : 4 + len(network.labels)].max(axis=0)
    assert float(scores.std()) > 0.01
    for least in np.quantile(scores, [0.5, 0.9, 0.99]).tolist():
        found = np.asarray(engine.run([image], least)[0][0])
        counting = scores > least
        assert counting.any()
        np.testing.assert_array_equal(found[:, counting], whole[:, counting])
