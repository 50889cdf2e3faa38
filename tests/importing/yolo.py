"""Untrained networks of the versions of YOLO that are taken, as checkpoints and as graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import torch

from importing.convert import write_graph
from importing.loaders import load
from importing.loaders.network import Network
from models.catalogue import ModelName
from models.store import GRAPH

THREATS: Final = {0: "Gun", 1: "explosion", 2: "grenade", 3: "knife"}
VERSIONS: Final = (
    ("threat_detector", "yolov8n"),
    ("pose_estimator", "yolov8n-pose"),
    ("threat_detector", "yolo11n"),
    pytest.param("pose_estimator", "yolo11n-pose", marks=pytest.mark.slow),
    pytest.param("threat_detector", "yolo12n", marks=pytest.mark.slow),
    pytest.param("pose_estimator", "yolo12n-pose", marks=pytest.mark.slow),
)


def checkpoint_of(version: str, folder: Path) -> Path:
    """A checkpoint of random parameters whose scores lie around one half and differ from place to place."""
    from ultralytics.nn.tasks import DetectionModel, PoseModel

    torch.manual_seed(0)
    names = {0: "person"} if "pose" in version else THREATS
    kind = PoseModel if "pose" in version else DetectionModel
    model: Any = kind(f"{version}.yaml", nc=len(names), verbose=False)
    model.names = names
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # takes the statistics of the noise below
    with torch.no_grad():
        head = model.model[-1]
        for branch in [*head.cv2, *head.cv3, *getattr(head, "cv4", ())]:
            branch[-1].bias.zero_()
            branch[-1].weight.mul_(0.2)
        model.train()
        model(torch.rand(2, 3, 192, 256))
    torch.save({"model": model}, folder / f"{version}.pt")
    return folder / f"{version}.pt"


def network_of(name: ModelName, version: str, folder: Path) -> Network:
    """The same as its loader gives it."""
    return load(name, checkpoint_of(version, folder))


def graph_of(name: ModelName, version: str, folder: Path) -> Path:
    """The same as an ONNX graph."""
    write_graph(network_of(name, version, folder), folder / GRAPH)
    return folder / GRAPH
