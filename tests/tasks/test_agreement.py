from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.card import Loss
from models.catalogue import ModelName
from tasks import TASKS
from tasks.agreement import iou, loss, oks
from tasks.depth_estimator import DepthResponse
from tasks.person_reid import ReidResponse
from tasks.pet_classifier import PetResponse
from tasks.pose_estimator import PoseResponse
from tasks.threat_detector import ThreatResponse

Seen = tuple[Any, Any]


def person(x: float = 0, *, posture: str = "standing", people: int = 1) -> Seen:
    """Somebody in a box of 100 × 200 pixels at x, all joints at (50, 100)."""
    box = np.array([[x, 0, x + 100, 200]] * people, dtype=np.float32)
    joints = np.tile(np.array([50, 100, 0.9], dtype=np.float32), (people, 17, 1))
    answer = PoseResponse(keypoints=[], posture=posture, alerts=[], num_people=people, persons=[])
    return {"boxes": box, "scores": np.full(people, 0.9, np.float32), "keypoints": joints}, answer


def threat(*labels: str, x: float = 0, score: float = 0.9) -> Seen:
    boxes = np.array([[x, 0, x + 100, 200]] * len(labels), dtype=np.float32).reshape(-1, 4)
    scores = np.full(len(labels), score, np.float32)
    answer = ThreatResponse(threats_detected=[], is_threat=bool(labels), max_confidence=0)
    return {"boxes": boxes, "scores": scores, "labels": list(labels)}, answer


def embedding(*values: float) -> Seen:
    vector = np.array(values, dtype=np.float32)
    answer = ReidResponse(embedding=[], embedding_dim=0, embedding_dimension=0, model_id="")
    return {"embedding": vector / np.linalg.norm(vector), "model_id": ""}, answer


def pet(cat: float, *, household: bool = False) -> Seen:
    kind = "cat" if cat > 0.5 else "dog"
    probabilities = {"cat": cat, "dog": 1 - cat}
    answer = PetResponse(
        pet_type=kind,
        breed="unknown",
        confidence=0,
        is_household_pet=household,
        cat_score=cat,
        dog_score=1 - cat,
        probabilities=probabilities,
    )
    return {"probabilities": probabilities}, answer


def depth(*values: float) -> Seen:
    answer = DepthResponse(depth_map_base64="", min_depth=0, max_depth=1, mean_depth=0)
    return {"depth": np.array([values], dtype=np.float32)}, answer


@pytest.mark.parametrize(
    ("name", "reference", "other", "figures", "broken"),
    [
        ("pose_estimator", [person()], [person()], {"people": 1, "OKS min": 1, "box IoU min": 1}, set()),
        ("pose_estimator", [person()], [person(2)], {"box IoU min": 98 / 102}, set()),
        ("pose_estimator", [person()], [person(4)], {"box IoU min": 96 / 104}, {"box IoU min"}),
        ("pose_estimator", [person()], [person(90)], {"people lost or added": 1}, {"people lost or added"}),
        (
            "pose_estimator",
            [person()] * 2,
            [person(people=2), person(people=0)],
            {"people lost or added": 2},
            {"people lost or added"},
        ),
        ("pose_estimator", [person()], [person(posture="lying_down")], {"postures flipped": 1}, {"postures flipped"}),
        ("pose_estimator", [person(people=0)], [person(people=0)], {"people": 0}, {"people"}),
        ("threat_detector", [threat("gun")], [threat("gun", score=0.8)], {"score ±": 0.1, "threats flipped": 0}, set()),
        ("threat_detector", [threat("gun")], [threat("gun", x=4)], {"box IoU min": 96 / 104}, {"box IoU min"}),
        ("threat_detector", [threat("gun")], [threat("knife")], {"threats flipped": 1}, {"threats flipped"}),
        ("threat_detector", [threat("gun")], [threat()], {"threats flipped": 1}, {"threats flipped"}),
        (
            "threat_detector",
            [threat()],
            [threat("gun")],
            {"threats flipped": 1},
            {"threats flipped", "pictures with a threat"},
        ),
        ("threat_detector", [threat()], [threat()], {"threats flipped": 0}, {"pictures with a threat"}),
        (
            "person_reid",
            [embedding(1, 0), embedding(0, 1)],
            [embedding(1, 0.05), embedding(0.05, 1)],
            {"cosine min": 0.99875},
            set(),
        ),
        ("person_reid", [embedding(1, 0), embedding(0, 1)], [embedding(1, 0.2)] * 2, {}, {"cosine min"}),
        (
            "person_reid",
            [embedding(1, 0, 0), embedding(1, 0.010, 0), embedding(1, 0, 0.011)],
            [embedding(1, 0, 0.005), embedding(1, 0.01, 0), embedding(1, 0, 0.011)],
            {"nearest flipped": 1},
            {"nearest flipped"},
        ),
        ("pet_classifier", [pet(0.9)], [pet(0.92)], {"probability ±": 0.02, "labels flipped": 0}, set()),
        ("pet_classifier", [pet(0.9)], [pet(0.8)], {"probability ±": 0.1}, {"probability ±"}),
        ("pet_classifier", [pet(0.51)], [pet(0.49)], {"labels flipped": 1}, {"labels flipped"}),
        (
            "pet_classifier",
            [pet(0.99, household=True)],
            [pet(0.99)],
            {"is_household_pet flipped": 1},
            {"is_household_pet flipped"},
        ),
        ("depth_estimator", [depth(0, 0.5, 1)], [depth(0, 0.52, 1)], {"depth ±": 0.02}, set()),
        ("depth_estimator", [depth(0, 0.5, 1)], [depth(0, 1, 0.5)], {"correlation min": 0.5}, {"correlation min"}),
    ],
)
def test_what_is_lost_and_whether_it_is_too_much(
    name: ModelName, reference: list[Seen], other: list[Seen], figures: dict[str, Any], broken: set[str]
) -> None:
    found = loss(len(reference), TASKS[name].agreement(reference, other))
    assert found.pictures == len(reference)
    assert {figure: found.figures[figure] for figure in figures} == pytest.approx(figures, abs=1e-5)
    assert set(found.broken) == broken


def test_keypoints_that_moved_cost_similarity_and_those_that_were_not_seen_do_not() -> None:
    here = np.tile(np.array([50, 100, 0.9], dtype=np.float32), (17, 1))
    moved, unseen = here.copy(), here.copy()
    moved[:, 0] += 10
    unseen[:, 2] = 0.1
    assert oks(here, here, 20_000) == 1
    # exp(-10² / (2 · 20 000 · (2 · 0.107)²)) for a hip, less for a face
    assert 0.5 < oks(here, moved, 20_000) < 0.95
    assert oks(unseen, moved, 20_000) == 1


def test_intersection_over_union_of_half_a_box() -> None:
    box = np.array([0, 0, 10, 10], dtype=np.float32)
    assert iou(box, np.array([[0, 0, 10, 5], [20, 20, 30, 30]], dtype=np.float32)) == pytest.approx([0.5, 0])


def test_a_loss_is_told_with_what_breaks_a_bound_in_bold() -> None:
    assert str(Loss(3, {"people": 2, "OKS min": 0.9}, ("OKS min",))) == "people 2, OKS min **0.900**"
