from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from api.answers import Picture, persons, prepare, severity
from api.schemas import PetResponse
from settings import DEFAULT_FILE, load
from vision.image import letterbox

MODELS = load(DEFAULT_FILE, {}).models
PET_INPUT = {"shortest_edge": 224, "crop_pct": 0.875, "resample": 3}


@pytest.mark.parametrize(
    ("label", "level"),
    [
        ("Gun", "critical"),
        ("handgun", "critical"),
        ("Assault Rifle", "critical"),
        ("grenade", "critical"),
        ("explosion", "critical"),
        ("explosive", "critical"),
        ("knife", "high"),
        ("Kitchen Knives", "high"),
        ("machete", "high"),
        ("baseball bat", "medium"),
        ("class 7", "medium"),
    ],
)
def test_the_severity_goes_by_the_checkpoints_name(label: str, level: str) -> None:
    assert severity(label) == level


def test_the_most_prominent_person_comes_first() -> None:
    picture = Picture.of(np.zeros((640, 640, 3), np.uint8), None)
    boxes = [[0, 0, 100, 100], [0, 0, 300, 300], [200, 200, 500, 500], [600, 600, 600, 600]]
    scores = [0.95, 0.5, 0.4, 0.9]
    found = persons(
        {
            "boxes": np.array(boxes, np.float32),
            "scores": np.array(scores, np.float32),
            "keypoints": np.zeros((4, 17, 3), np.float32),
        },
        letterbox(picture.part, 640, 32),
        picture,
    )
    assert [person.confidence for person in found] == [0.5, 0.4, 0.95, 0.9]  # score × area


def test_what_reaches_beyond_the_part_that_was_asked_for_ends_at_its_edge() -> None:
    picture = Picture.of(np.zeros((480, 640, 3), np.uint8), (100, 50, 420, 370))
    fitted = letterbox(picture.part, 640, 32)
    result: Any = {
        "boxes": np.array([[-20, -20, 700, 330]], np.float32),
        "scores": np.array([0.9], np.float32),
        "keypoints": np.full((1, 17, 3), 0.9, np.float32) * [-50, 2000, 1],
    }
    (person,) = persons(result, fitted, picture)
    assert (person.bbox.x, person.bbox.y, person.bbox.width, person.bbox.height) == (100, 50, 320, 165)
    assert {(point.x, point.y) for point in person.keypoints} == {(100, 370)}


@pytest.mark.parametrize(
    ("probabilities", "kind", "pet"),
    [
        ({"cats": 0.999, "dogs": 0.001}, "cat", True),
        ({"Dog": 0.999, "Cat": 0.001}, "dog", True),
        ({"cat": 0.99, "dog": 0.01}, "cat", False),
        ({"raccoon": 0.999, "cat": 0.001}, "raccoon", False),
    ],
)
def test_a_household_pet_is_a_cat_or_a_dog_beyond_doubt(probabilities: dict[str, float], kind: str, pet: bool) -> None:
    picture = Picture.of(np.zeros((64, 64, 3), np.uint8), None)
    answer = prepare("pet_classifier", picture, None, MODELS, PET_INPUT).answer({"probabilities": probabilities})
    assert isinstance(answer, PetResponse)
    assert (answer.pet_type, answer.is_household_pet) == (kind, pet)
    assert answer.confidence == max(probabilities.values())
