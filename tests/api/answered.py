"""The API's steps on models whose answers are written down."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from api.answering import Answering
from api.embedded import EmbeddedLink
from api.link import Link
from api.tracing import Spans
from engines.deadline import Abandoned, Deadline
from models.catalogue import CATALOGUE, ModelName
from models.state import State
from runners.contract import Failure
from settings import DEFAULT_FILE, Settings, load
from tasks.task import Item
from tests.serving.fake import PET_INPUT

SETTINGS = load(DEFAULT_FILE, {})
DOG = {"cats": 0.0, "dogs": 1.0}


class Runner:
    """Runners in this process, whose answers are written down."""

    def __init__(self, *, people: int = 0, pose: str = "ready") -> None:
        self.people = people
        self.pose = pose
        self.calls: list[tuple[ModelName, int]] = []  # how many items at a time
        self.items: list[Item] = []
        self.hold = threading.Event()
        self.hold.set()

    def status(self) -> Any:
        model = {"state": State.READY, "input": PET_INPUT, "untrained": False, "detail": None}
        device = {"name": "CPU", "index": None, "memory_gb": None, "driver": None}
        return {"models": dict.fromkeys(CATALOGUE, model), "device": device}

    def infer(
        self, name: ModelName, items: Sequence[Item], *, alone: bool | None, deadline: Deadline | None
    ) -> Sequence[Any]:
        self.calls.append((name, len(items)))
        self.items += items
        assert self.hold.wait(10)
        match name:
            case "pet_classifier":
                return [{"probabilities": DOG} for _ in items]
            case "pose_estimator" if self.pose == "failing":
                return [Failure(error="model_unavailable", message="pose_estimator has failed")] * len(items)
            case "pose_estimator" if self.pose == "raising":
                raise RuntimeError("a bug in the pose estimator")
            case "pose_estimator" if self.pose == "slow":
                assert deadline is not None
                time.sleep(deadline.left_s)
                raise Abandoned
            case "pose_estimator":
                n = self.people
                return [
                    {"boxes": np.zeros((n, 4), "f"), "scores": np.ones(n, "f"), "keypoints": np.zeros((n, 17, 3), "f")}
                    for _ in items
                ]
            case "threat_detector":
                boxes = np.array([[1, 2, 30, 40]], "f")
                return [{"boxes": boxes, "scores": np.array([0.9], "f"), "labels": ["knife"]} for _ in items]
            case "person_reid":
                return [
                    Failure(error="internal", message="this one")
                    if tuple(item["image"][0, 0]) == (255, 0, 0)
                    else {"embedding": np.full(4, item["image"][0, 0, 0], "f"), "model_id": "m"}
                    for item in items
                ]
            case _:
                return [{"depth": np.zeros(item["image"].shape[:2], "f")} for item in items]

    def load(self, name: ModelName) -> Any: ...

    def unload(self, name: ModelName) -> Any: ...


def answering_of(runner: Runner, without: Sequence[ModelName] = (), settings: Settings = SETTINGS) -> Answering:
    link = EmbeddedLink("runners", [name for name in CATALOGUE if name not in without], cast(Any, runner), [])
    links: Mapping[ModelName, Link] = dict.fromkeys(link.models, link)
    return Answering(settings, links, Spans.of(settings.tracing))
