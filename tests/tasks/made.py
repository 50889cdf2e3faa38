"""Tasks under the delivered settings, and pictures for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.card import ModelCard
from models.catalogue import ModelName
from settings import DEFAULT_FILE, load
from tasks import AnyTask
from tasks.depth_estimator import DepthEstimator
from tasks.person_reid import PersonReid
from tasks.pet_classifier import PetClassifier
from tasks.picture import Picture
from tasks.pose_estimator import PoseEstimator
from tasks.task import Item, Options
from tasks.threat_detector import ThreatDetector
from tests.serving import fake
from vision.arrays import RGB, Box

MODELS = load(DEFAULT_FILE, {}).models
POSE, THREAT = PoseEstimator(MODELS.pose_estimator), ThreatDetector(MODELS.threat_detector)
REID, PET = PersonReid(MODELS.person_reid), PetClassifier(MODELS.pet_classifier)
DEPTH = DepthEstimator(MODELS.depth_estimator)
ITEM: Item = {"image": np.zeros((1, 1, 3), np.uint8)}


def shape_of(task: AnyTask, image: RGB, model_input: Any = None) -> tuple[int, ...]:
    """The shape of the input that a task makes of a picture."""
    prepared = task.prepare(Picture.of(image, None), Options(), model_input)
    (item,) = prepared.items[:1]
    return item["image"].shape


def card(name: ModelName) -> ModelCard:
    stored = fake.find(name)
    assert stored is not None
    return stored.card


def picture(width: int, height: int, box: Box | None = None) -> Picture:
    return Picture.of(np.zeros((height, width, 3), np.uint8), box)
