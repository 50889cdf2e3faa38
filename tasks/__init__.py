"""The five models' tasks, one file each, in a request's order: settings, prepare, interpret, answer, agreement."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from models.catalogue import ModelName
from tasks.depth_estimator import DepthEstimator
from tasks.person_reid import PersonReid
from tasks.pet_classifier import PetClassifier
from tasks.pose_estimator import PoseEstimator
from tasks.task import Task
from tasks.threat_detector import ThreatDetector

AnyTask: TypeAlias = Task[Any, Any, Any, Any]

TASKS: Final[Mapping[ModelName, type[AnyTask]]] = MappingProxyType(
    {task.name: task for task in (PoseEstimator, ThreatDetector, PersonReid, PetClassifier, DepthEstimator)}
)
