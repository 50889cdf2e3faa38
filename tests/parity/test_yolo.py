"""Pose and threat answers against ultralytics' own predictor, run on the same views as its documentation says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from settings import EngineChoice
from tasks.bounding_box import BoundingBox
from tasks.pipeline import Pipeline
from tasks.pose_estimator import PoseResponse
from tasks.threat_detector import ThreatResponse
from tests.parity.conftest import ENGINES, Make
from vision.arrays import RGB
from vision.posture import KEYPOINT_NAMES
from vision.views import views

F32 = NDArray[np.float32]

pytestmark = pytest.mark.weights

MAX_PX = 1.0
MAX_SCORE = 0.01


@dataclass(frozen=True)
class Official:
    """What ultralytics found in an image, in its pixels: boxes (n, 4), scores (n,), classes (n,), joints (n, k, 3)."""

    boxes: F32
    scores: F32
    classes: F32
    joints: F32


def predict(weights: Path, images: dict[str, RGB]) -> tuple[dict[int, str], dict[str, Official]]:
    """The names of the classes, and each image's detections: ultralytics is shown what the service's network is."""
    from ultralytics import YOLO  # type: ignore[attr-defined]

    model: Any = YOLO(weights)
    return model.names, {name: _shown(model, image) for name, image in images.items()}


def _shown(model: Any, image: RGB) -> Official:
    (view,) = views(image, None, is_crop=False, input_size=640)
    found = model.predict(view.pixels[..., ::-1], verbose=False)[0]  # BGR, as OpenCV reads files
    height, width = image.shape[:2]
    corner, size = np.array(view.corner, np.float32), np.array([width, height], np.float32)
    boxes = (found.boxes.xyxy.numpy().reshape(-1, 2, 2) + corner).clip(0, size).reshape(-1, 4)
    joints = np.zeros((0, 0, 3), np.float32) if found.keypoints is None else found.keypoints.data.numpy().copy()
    joints[..., :2] = (joints[..., :2] + corner).clip(0, size)
    return Official(boxes, found.boxes.conf.numpy(), found.boxes.cls.numpy(), joints)


@pytest.fixture(scope="module")
def official_pose(shared: Path, images: dict[str, RGB]) -> dict[str, Official]:
    return predict(shared / "model-zoo/yolov8n-pose/yolov8n-pose.pt", images)[1]


@pytest.fixture(scope="module")
def official_threats(shared: Path, images: dict[str, RGB]) -> tuple[dict[int, str], dict[str, Official]]:
    return predict(shared / "model-zoo/threat-detection-yolov8n/weights/best.pt", images)


def corners(box: BoundingBox) -> NDArray[np.float64]:
    return np.array([box.x, box.y, box.x + box.width, box.y + box.height])


def answers(pipeline: Pipeline, images: dict[str, RGB]) -> dict[str, Any]:
    return {name: answer for name, (_, answer) in zip(images, pipeline.run(list(images.values())), strict=True)}


@ENGINES
def test_the_same_people_with_the_same_joints(
    engine: EngineChoice, make: Make, images: dict[str, RGB], official_pose: dict[str, Official]
) -> None:
    people = 0
    for name, answer in answers(make("pose_estimator", engine, "f32"), images).items():
        assert isinstance(answer, PoseResponse)
        expected = official_pose[name]
        boxes, scores = expected.boxes, expected.scores
        assert answer.num_people == len(answer.persons) == len(boxes), name
        for person in answer.persons:
            people += 1
            match = int(np.abs(boxes - corners(person.bbox)).max(axis=1).argmin())
            assert np.abs(boxes[match] - corners(person.bbox)).max() <= MAX_PX, name
            assert abs(scores[match] - person.confidence) <= MAX_SCORE, name
            joints = expected.joints[match]
            assert {joint.name for joint in person.keypoints} == {
                joint for joint, (_, _, confidence) in zip(KEYPOINT_NAMES, joints, strict=True) if confidence >= 0.5
            }
            for joint in person.keypoints:
                x, y, confidence = joints[KEYPOINT_NAMES.index(joint.name)]
                assert max(abs(x - joint.x), abs(y - joint.y)) <= MAX_PX, (name, joint.name)
                assert abs(confidence - joint.confidence) <= MAX_SCORE, (name, joint.name)
    assert people >= 60  # or the loop above proved nothing


@ENGINES
def test_the_same_threats_under_the_checkpoints_names(
    engine: EngineChoice,
    make: Make,
    images: dict[str, RGB],
    official_threats: tuple[dict[int, str], dict[str, Official]],
) -> None:
    names, official = official_threats
    threats = 0
    for name, answer in answers(make("threat_detector", engine, "f32"), images).items():
        assert isinstance(answer, ThreatResponse)
        expected = official[name]
        assert len(answer.threats_detected) == len(expected.boxes), name
        for threat, box, score, index in zip(
            answer.threats_detected, expected.boxes, expected.scores, expected.classes, strict=True
        ):
            threats += 1
            assert threat.label == names[int(index)]
            assert np.abs(box - corners(threat.bbox)).max() <= MAX_PX, name
            assert abs(score - threat.confidence) <= MAX_SCORE, name
    assert threats >= 2


def test_a_gun_is_called_a_gun(make: Make, shared: Path, images: dict[str, RGB], tmp_path: Path) -> None:
    """The checkpoint numbers its classes 0 Gun … 3 knife: a table of ids would call the pistol a knife."""
    from engines.openvino import OpenVinoEngine
    from engines.traits import Traits
    from importing.convert import write_graph
    from importing.loaders import load

    weights = shared / "model-zoo/threat-detection-yolov8n/weights/best_gun_tuned.pt"
    network = load("threat_detector", weights)
    write_graph(network, tmp_path / "graph.onnx")
    usual = make("threat_detector", "openvino", "f32")
    assert usual.card.labels == network.labels == ("Gun", "explosion", "grenade", "knife")
    tuned = Pipeline(usual.task, usual.card, OpenVinoEngine(tmp_path / "graph.onnx", "f32", Traits(), threads=0))
    ((_, answer),) = tuned.run([images["gun_pistol_1.jpg"]])
    assert isinstance(answer, ThreatResponse)
    assert answer.is_threat
    assert (answer.threats_detected[0].label, answer.threats_detected[0].severity) == ("Gun", "critical")
