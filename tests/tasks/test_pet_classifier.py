"""Pets: probabilities, and the second look that rules a household pet out."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from models.card import ModelInput
from runners.loader import warm_up_shapes
from tasks.pet_classifier import PetClassifier
from tasks.pose_estimator import PoseResponse
from tasks.task import Options
from tests.serving.fake import PET_INPUT
from tests.tasks.made import ITEM, MODELS, PET, card, picture


def test_a_pets_probabilities_carry_the_checkpoints_labels_in_its_order() -> None:
    outputs = np.array([1000.0, 1002.0], np.float32), np.zeros(512, np.float32)
    result = PET.interpret(outputs, ITEM, card("pet_classifier"))
    assert result["probabilities"] == pytest.approx({"cats": 0.1192, "dogs": 0.8808}, abs=1e-4)


def test_a_classifier_is_warmed_up_at_the_size_of_its_card() -> None:
    card_of_another = replace(
        card("pet_classifier"), input=cast("ModelInput", {"height": 384, "width": 256, "resample": 3})
    )
    shapes = warm_up_shapes(PET, card_of_another)
    assert {shape[1:] for shape in shapes} == {(384, 256, 3)}


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
    answer = PET.answer([{"probabilities": probabilities}], PET.prepare(picture(64, 64), Options(), PET_INPUT))
    assert (answer.pet_type, answer.is_household_pet) == (kind, pet)
    assert answer.confidence == max(probabilities.values())
    species = {label.lower().rstrip("s"): value for label, value in probabilities.items()}
    assert (answer.cat_score, answer.dog_score) == (species.get("cat", 0), species.get("dog", 0))


@pytest.mark.parametrize(("people", "pet", "in_view"), [(0, True, False), (2, False, True), (None, False, None)])
def test_it_is_a_household_pet_where_somebody_looked_and_saw_nobody(
    people: int | None, pet: bool, in_view: bool | None
) -> None:
    prepared = PET.prepare(picture(64, 64), Options(), PET_INPUT)
    answer = PET.answer([{"probabilities": {"cat": 1.0, "dog": 0.0}}], prepared)
    assert PET.needs_second_look(answer)
    seen = None
    if people is not None:
        seen = PoseResponse(keypoints=[], posture="unknown", alerts=[], num_people=people, persons=[])
    PET.after_second_look(answer, seen)
    assert (answer.is_household_pet, answer.person_in_view) == (pet, in_view)


def test_nobody_looks_where_the_veto_is_off() -> None:
    off = PetClassifier(MODELS.pet_classifier.model_copy(update={"person_veto": 0.0}))
    assert off.second_look() is None
    look = PET.second_look()
    assert look is not None
    assert look.name == "pose_estimator"
    assert look.options.min_confidence == MODELS.pet_classifier.person_veto
