"""What goes out: the contract's shapes, in pixels of the image as sent."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.serving.fake import FIGURE, LEFT_EAR, score
from tests.serving.pictures import Corners, answer, marked, plain, ramp
from vision.posture import KEYPOINT_NAMES

pytestmark = pytest.mark.serve


def corners(box: dict[str, float]) -> tuple[float, ...]:
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


# An image's size, the marker in it (left, top, right, bottom) and the box asked for, which has all of the marker.
SCENES: list[tuple[tuple[int, int], Corners, list[int] | None]] = [
    ((640, 640), (100, 50, 200, 350), None),
    ((1920, 1080), (300, 200, 600, 1000), None),
    ((1080, 1920), (10, 1500, 200, 1900), None),
    ((333, 641), (100, 100, 200, 300), None),
    ((100, 80), (40, 20, 60, 70), None),
    ((1920, 1080), (1200, 500, 1300, 800), [1100, 400, 1400, 900]),
    ((640, 480), (300, 200, 340, 300), [280, 180, 5000, 5000]),
    ((640, 480), (11, 13, 31, 73), [-50, -50, 101, 97]),
]


@pytest.mark.parametrize(("size", "marker", "box"), SCENES)
def test_people_are_where_they_are_in_the_image_as_sent(
    client: httpx.Client, size: tuple[int, int], marker: Corners, box: list[int] | None
) -> None:
    body = answer(client, "/pose-analyze", marked(marker, size), bbox=box)
    (person,) = body["persons"]  # seen twice by the network: the other one is suppressed
    tolerance = max(1.5, 1.5 * max(size) / 640)  # a pixel of the network's input, in pixels of the image
    assert corners(person["bbox"]) == pytest.approx(marker, abs=tolerance)
    left, top, right, bottom = marker
    expected = {
        name: (left + x * (right - left), top + y * (bottom - top))
        for index, (name, (x, y)) in enumerate(zip(KEYPOINT_NAMES, FIGURE, strict=True))
        if index != LEFT_EAR
    }
    assert [point["name"] for point in person["keypoints"]] == list(expected)  # COCO's order, visible ones only
    for point in person["keypoints"]:
        assert (point["x"], point["y"]) == pytest.approx(expected[point["name"]], abs=tolerance)
        assert point["confidence"] == pytest.approx(0.9)


@pytest.mark.parametrize(("size", "marker", "box"), SCENES)
def test_threats_are_where_they_are_in_the_image_as_sent(
    client: httpx.Client, size: tuple[int, int], marker: Corners, box: list[int] | None
) -> None:
    (threat,) = answer(client, "/threat-detect", marked(marker, size), bbox=box)["threats_detected"]
    assert corners(threat["bbox"]) == pytest.approx(marker, abs=max(1.5, 1.5 * max(size) / 640))


def test_the_shape_of_a_pose(client: httpx.Client) -> None:
    body = answer(client, "/pose-analyze", marked((100, 50, 200, 350), (640, 640)))
    assert set(body) == {
        "keypoints",
        "posture",
        "alerts",
        "alert_details",
        "num_people",
        "persons",
        "inference_time_ms",
    }
    assert body["num_people"] == len(body["persons"]) == 1
    assert set(body["persons"][0]) == {
        "keypoints",
        "posture",
        "posture_reason",
        "alerts",
        "alert_details",
        "bbox",
        "confidence",
    }
    for key in ("keypoints", "posture", "alerts", "alert_details"):
        assert body[key] == body["persons"][0][key]
    assert body["posture"] == "standing"
    assert body["alerts"] == []


def test_nobody_is_an_empty_answer(client: httpx.Client) -> None:
    body = answer(client, "/pose-analyze", plain((0, 0, 0)))
    assert body.pop("inference_time_ms") > 0
    assert body == {
        "keypoints": [],
        "posture": "unknown",
        "alerts": [],
        "alert_details": [],
        "num_people": 0,
        "persons": [],
    }


@pytest.mark.parametrize(
    ("blue", "name", "severity"),
    [(0, "Gun", "critical"), (70, "explosion", "critical"), (140, "grenade", "critical"), (255, "knife", "high")],
)
def test_threats_have_the_names_of_the_checkpoint(client: httpx.Client, blue: int, name: str, severity: str) -> None:
    body = answer(client, "/threat-detect", plain((200, 10, blue)))
    (threat,) = body["threats_detected"]
    assert set(threat) == {"class", "class_name", "type", "confidence", "bbox", "bbox_xyxy", "severity"}
    assert threat["class"] == threat["class_name"] == threat["type"]
    assert (threat["class"], threat["severity"]) == (name, severity)
    assert threat["confidence"] == body["max_confidence"] == pytest.approx(score(200), abs=1e-4)
    assert set(body) == {"threats_detected", "is_threat", "max_confidence", "inference_time_ms"}
    assert body["is_threat"] is True


def test_no_threat_is_none(client: httpx.Client) -> None:
    body = answer(client, "/threat-detect", plain((0, 0, 0)))
    assert body.pop("inference_time_ms") > 0
    assert body == {"threats_detected": [], "is_threat": False, "max_confidence": 0.0}


@pytest.mark.parametrize(("route", "key"), [("/pose-analyze", "persons"), ("/threat-detect", "threats_detected")])
def test_min_confidence_decides_what_is_listed(client: httpx.Client, route: str, key: str) -> None:
    image = plain((128, 1, 1))
    for limit, count in ((0, 1), (score(128) - 0.02, 1), (score(128) + 0.02, 0), (1, 0)):
        assert len(answer(client, route, image, min_confidence=limit)[key]) == count


def test_an_embedding_is_of_length_one(client: httpx.Client) -> None:
    body = answer(client, "/person-reid", plain((10, 200, 30)))
    assert set(body) == {"embedding", "embedding_dim", "embedding_dimension", "model_id", "inference_time_ms"}
    assert body["model_id"] == "osnet-x0-25@osnet_x0_25@0123456789ab"
    assert body["embedding_dim"] == body["embedding_dimension"] == len(body["embedding"]) == 512
    assert np.linalg.norm(body["embedding"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("colour", "kind", "person"),
    [
        ((0, 0, 255), "cat", False),  # red is what the detectors score by: a blue picture shows nobody
        ((255, 0, 0), "dog", True),
    ],
)
def test_a_pet_is_no_household_pet_beside_a_person(
    client: httpx.Client, colour: tuple[int, int, int], kind: str, person: bool
) -> None:
    body = answer(client, "/pet-classify", plain(colour))
    assert body.pop("inference_time_ms") > 0
    assert body == {
        "pet_type": kind,
        "breed": "unknown",
        "confidence": 1.0,
        "is_household_pet": not person,
        "cat_score": float(kind == "cat"),
        "dog_score": float(kind == "dog"),
        "probabilities": {"cat": float(kind == "cat"), "dog": float(kind == "dog")},
        "person_in_view": person,
    }


def test_an_uncertain_pet_is_no_household_pet(client: httpx.Client) -> None:
    body = answer(client, "/pet-classify", plain((100, 0, 120)))
    assert body["pet_type"] == "cat"
    assert 0.5 < body["confidence"] < 0.99
    assert body["is_household_pet"] is False
    assert "person_in_view" not in body  # nobody had to look


# ── depth ──


def map_of(body: dict[str, Any]) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(base64.b64decode(body["depth_map_base64"])))
    assert (image.format, image.mode) == ("PNG", "L")
    return np.asarray(image)


@pytest.mark.parametrize("size", [(640, 360), (300, 400), (64, 64), (1000, 31)])
def test_the_depth_map_has_the_images_size_and_whole_range(client: httpx.Client, size: tuple[int, int]) -> None:
    body = answer(client, "/depth-estimate", ramp(size))
    assert set(body) == {"depth_map_base64", "min_depth", "max_depth", "mean_depth", "inference_time_ms"}
    grey = map_of(body)
    assert grey.shape == (size[1], size[0])
    assert (body["min_depth"], body["max_depth"]) == pytest.approx((0, 1), abs=0.005)  # the map is resized to the image
    assert body["mean_depth"] == pytest.approx(0.5, abs=0.01)
    expected = np.linspace(0, 255, size[0])
    assert np.abs(grey.astype(float) - expected).max() <= 4


@pytest.mark.parametrize(
    ("box", "region"),
    [
        ([320, 100, 640, 300], (320, 100, 640, 300)),
        ([0, 0, 64, 360], (0, 0, 64, 360)),
        ([600, -10, 1000, 1000], (600, 0, 640, 360)),
        ([100.2, 50.7, 110.9, 60.1], (100, 50, 111, 61)),
        ([200, 100, 201, 101], (200, 100, 201, 101)),
    ],
)
def test_a_box_says_how_near_its_object_is_within_the_scene(
    client: httpx.Client, box: list[float], region: Corners
) -> None:
    whole = map_of(answer(client, "/depth-estimate", ramp((640, 360))))
    body = answer(client, "/depth-estimate", ramp((640, 360)), bbox=box)
    left, top, right, bottom = region
    part = map_of(body)
    assert part.shape == (bottom - top, right - left)
    np.testing.assert_allclose(part.astype(int), whole[top:bottom, left:right].astype(int), atol=1)
    assert body["min_depth"] == pytest.approx(left / 639, abs=0.01)
    assert body["max_depth"] == pytest.approx((right - 1) / 639, abs=0.01)
    assert body["mean_depth"] == pytest.approx((left + right - 1) / 2 / 639, abs=0.01)


def test_a_picture_without_any_depth_is_all_far(client: httpx.Client) -> None:
    body = answer(client, "/depth-estimate", plain((90, 90, 90)))
    assert (body["min_depth"], body["max_depth"], body["mean_depth"]) == (0, 0, 0)
    assert not map_of(body).any()
