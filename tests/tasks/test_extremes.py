"""The limits of the models: crowds, heads of garbage, and pictures without a scene. Sizes are bounded; no NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from models.catalogue import CATALOGUE, ModelName
from tasks import TASKS
from tasks.picture import Picture
from tasks.pipeline import Pipeline
from tasks.task import Options
from tests.serving.fake import FakeEngine
from tests.tasks.made import ITEM, MODELS, POSE, THREAT, card, picture
from vision.arrays import F32, RGB
from vision.boxes import MAX_DETECTIONS

PERSONS: Final = 300
_LONGEST_ANSWER: Final = 2_500 * PERSONS  # bytes of JSON


def strict(text: str) -> Any:
    """Parse JSON as RFC 8259 has it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} stands in an answer")

    return json.loads(text, parse_constant=refuse)


def crowd(count: int, classes: int, extras: int) -> F32:
    """A head's output with `count` boxes beside each other."""
    head = np.zeros((4 + classes + extras, count), np.float32)
    dice = np.random.default_rng(count)
    head[0], head[1] = np.arange(count) % 40 * 16 + 8, np.arange(count) // 40 * 40 + 20
    head[2], head[3], head[4] = 14, 38, dice.uniform(0.6, 0.9, count)
    head[4 + classes :] = dice.uniform(0, 640, (extras, count))
    head[4 + classes + 2 :: 3] = dice.uniform(0, 1, head[4 + classes + 2 :: 3].shape)
    return head


@pytest.mark.parametrize("count", [PERSONS, 8400])
def test_a_crowd_is_answered_with_at_most_300_people(count: int) -> None:
    result = POSE.interpret((crowd(count, 1, 51),), ITEM, card("pose_estimator"))
    answer = POSE.answer([result], POSE.prepare(picture(640, 640), Options()))
    assert 200 < answer.num_people <= MAX_DETECTIONS
    text = answer.model_dump_json()
    assert len(strict(text)["persons"]) == answer.num_people
    assert len(text) < _LONGEST_ANSWER


def test_a_picture_full_of_threats_is_answered_with_at_most_300() -> None:
    result = THREAT.interpret((crowd(8400, 4, 0),), ITEM, card("threat_detector"))
    answer = THREAT.answer([result], THREAT.prepare(picture(640, 640), Options()))
    assert 200 < len(answer.threats_detected) <= MAX_DETECTIONS
    strict(answer.model_dump_json())
    entry = THREAT.audit(answer)
    assert entry is not None
    assert entry.count(" at [") == 20
    assert entry.endswith(f"; and {len(answer.threats_detected) - 20} more")
    assert len(entry) < 2000


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e5])
def test_a_head_of_garbage_gives_boxes_of_the_image(scale: float) -> None:
    dice = np.random.default_rng(1)
    head = (dice.normal(size=(56, 8400)) * scale).astype(np.float32)
    head[2:4] = np.abs(head[2:4])  # a head adds up distances to the sides, which are no less than 0
    head[4] = dice.uniform(0, 1, 8400)
    result = POSE.interpret((head,), ITEM, card("pose_estimator"))
    answer = POSE.answer([result], POSE.prepare(picture(640, 480), Options()))
    for person in strict(answer.model_dump_json())["persons"]:
        box = person["bbox"]
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 640.01
        assert 0 <= box["y"] <= box["y"] + box["height"] <= 480.01


def _noise() -> RGB:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


PICTURES: Final[dict[str, Callable[[], RGB]]] = {
    "black": lambda: np.zeros((120, 160, 3), np.uint8),
    "white": lambda: np.full((120, 160, 3), 255, np.uint8),
    "grey": lambda: np.full((480, 640, 3), 128, np.uint8),
    "noise": _noise,
    "inverted noise": lambda: 255 - _noise(),
    "checkers": lambda: (np.indices((120, 160)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2),
    "one pixel": lambda: np.full((1, 1, 3), 255, np.uint8),
    "a column": lambda: np.full((2000, 1, 3), 9, np.uint8),
}


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("scene", PICTURES)
def test_pictures_without_a_scene_have_finite_answers(scene: str, name: ModelName) -> None:
    pipeline = Pipeline(TASKS[name](MODELS[name]), card(name), FakeEngine(name))
    ((result, answer),) = pipeline.run([PICTURES[scene]()])
    strict(answer.model_dump_json())
    for value in result.values():
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all()


def test_a_map_of_equal_depths_is_finite() -> None:
    task = TASKS["depth_estimator"](MODELS["depth_estimator"])
    for level in (0.0, 1e-30, -3e38, 3e38):
        result = task.interpret((np.full((14, 14), level, np.float32),), ITEM, card("depth_estimator"))
        answer = task.answer([result], task.prepare(Picture.of(np.zeros((9, 9, 3), np.uint8), None), Options(), None))
        found = strict(answer.model_dump_json())
        assert 0 <= found["min_depth"] <= found["mean_depth"] <= found["max_depth"] <= 1
