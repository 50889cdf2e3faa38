"""The real networks at their limits: crowds, pictures without a scene, adversarial ones. Sizes are bounded; no NaN."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image

from importing.loaders import load
from models.catalogue import CATALOGUE, ModelName
from tests.serving.server import REAL, SMALL_BATCHES, configuration, serving
from tests.tasks.test_extremes import PERSONS, strict
from vision.arrays import RGB
from vision.boxes import MAX_DETECTIONS
from vision.views import MOST_TILES

pytestmark = [pytest.mark.weights, pytest.mark.serve, pytest.mark.slow]

BOXES: Final = 64
_OF_PERSON, _OF_THREAT, _OF_REST = 3_000, 500, 30_000  # bytes of JSON, at most
_SIDE: Final = 640  # the network's input


@pytest.fixture(scope="module")
def client(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service on the real weights, with as much time as a busy machine may need."""
    folder = tmp_path_factory.mktemp("limits")
    patient = str(configuration(folder, {"limits.request_timeout_s": 1800}))
    environment = {
        **SMALL_BATCHES,
        "BENTOML_HOME": str(model_store),
        "BENTOML_CONFIG": patient,
        "ENRICHMENT_ALLOW_UNTRAINED": "true",
    }
    with serving(folder, environment, REAL) as running, httpx.Client(base_url=running.url, timeout=1900) as open_client:
        yield open_client


@pytest.fixture(scope="module")
def scene(shared: Path) -> RGB:
    with Image.open(shared / "images" / "street_crowd.jpg") as image:
        return np.asarray(image.convert("RGB").resize((_SIDE, 480)))


def adversarial(picture: RGB, model: ModelName, weights: Path, *, more: bool) -> RGB:
    """The picture with values moved by at most 8, so that the model sees as much or as little as it can (PGD)."""
    import torch

    network = load(model, weights)
    start = torch.from_numpy(picture.copy())[None].float()
    moved, classes = start.clone(), slice(4, 4 + len(network.labels))
    for _ in range(4):
        moved.requires_grad_(True)
        (predictions,) = network.original(moved)
        torch.logit(predictions[:, classes].clamp(1e-6, 1 - 1e-6)).sum().backward()  # type: ignore[no-untyped-call]
        assert moved.grad is not None
        step = moved.grad.sign() * (3 if more else -3)
        moved = (moved.detach() + step).clamp(start - 8, start + 8).clamp(0, 255)
    found: RGB = moved[0].round().byte().numpy()
    return found


def mosaic(shared: Path) -> RGB:
    """320 standing people, each in a field of 32 × 64 pixels."""
    people = [Image.open(path).convert("RGB").resize((32, 64)) for path in sorted((shared / "images/reid").iterdir())]
    picture = Image.new("RGB", (32 * 32, 64 * 10))
    for field in range(320):
        picture.paste(people[field % len(people)], (field % 32 * 32, field // 32 * 64))
    return np.asarray(picture)


def enrich(client: httpx.Client, picture: RGB, **fields: Any) -> tuple[dict[str, Any], int]:
    """The answer, which is whole and without NaN, and its size in bytes."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    texts = {name: json.dumps(value) for name, value in fields.items()}
    response = client.post("/enrich", files={"image": file.getvalue()}, data=texts)
    assert response.status_code == 200, response.text[:1000]
    answer: dict[str, Any] = strict(response.text)
    assert answer["errors"] == {}
    return answer, len(response.content)


def check_frame(found: dict[str, Any], size: int, views: int = 1) -> None:
    """Detections are bounded, and lie in the picture; the size is bounded by their number."""
    persons = found["results"]["pose_estimator"]["persons"]
    threats = found["results"]["threat_detector"]["threats_detected"]
    assert max(len(persons), len(threats)) <= MAX_DETECTIONS * views
    assert size < _OF_PERSON * len(persons) + _OF_THREAT * len(threats) + _OF_REST
    width, height = found["image"]["width"], found["image"]["height"]
    for box in (each["bbox"] for each in (*persons, *threats)):
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width + 0.1
        assert 0 <= box["y"] <= box["y"] + box["height"] <= height + 0.1
    embedding = np.array(found["results"]["person_reid"]["embedding"])
    assert abs(np.linalg.norm(embedding) - 1) < 0.01
    assert 0 <= found["results"]["pet_classifier"]["confidence"] <= 1


_DICE: Final = np.random.default_rng(0)
_NOISE: Final = _DICE.integers(0, 256, (480, _SIDE, 3), dtype=np.uint8)
PICTURES: Final[dict[str, RGB]] = {
    "black": np.zeros((480, _SIDE, 3), np.uint8),
    "white": np.full((480, _SIDE, 3), 255, np.uint8),
    "grey": np.full((480, _SIDE, 3), 114, np.uint8),
    "noise": _NOISE,
    "checkers": (np.indices((480, _SIDE)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2),
    "stripes": np.tile(np.array([[[255, 0, 255]], [[0, 255, 0]]], np.uint8), (240, _SIDE, 1)),
    "one pixel": np.full((1, 1, 3), 255, np.uint8),
    "a column": np.full((20_000, 1, 3), 9, np.uint8),
    "a row of noise": np.resize(_NOISE, (2, 30_000, 3)),
    "a panorama of noise": np.resize(_NOISE, (100, 8_000, 3)),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("least", [None, 0])
def test_pictures_without_a_scene(client: httpx.Client, name: str, least: float | None) -> None:
    fields = {} if least is None else {"min_confidence": least}
    found, size = enrich(client, PICTURES[name], **fields)
    check_frame(found, size, views=MOST_TILES)


def test_an_inverted_scene(client: httpx.Client, scene: RGB) -> None:
    check_frame(*enrich(client, 255 - scene))


@pytest.mark.parametrize("model", ["pose_estimator", "threat_detector"])
@pytest.mark.parametrize("more", [True, False])
def test_adversarial_scenes(client: httpx.Client, scene: RGB, zoo: Path, model: ModelName, more: bool) -> None:
    spec = CATALOGUE[model]
    attacked = adversarial(scene, model, zoo / "model-zoo" / spec.weights / spec.file, more=more)
    key, listed = ("persons", "pose_estimator") if model == "pose_estimator" else ("threats_detected", model)
    before, after = (enrich(client, picture, models=list(CATALOGUE)) for picture in (scene, attacked))
    check_frame(*after)
    numbers = [len(found["results"][listed][key]) for found, _ in (before, after)]
    assert numbers[0] < numbers[1] if more else numbers[1] <= numbers[0]  # the attack reaches the served network


def test_a_frame_of_320_people(client: httpx.Client, shared: Path) -> None:
    check_frame(*enrich(client, mosaic(shared)))
    found, size = enrich(client, mosaic(shared), min_confidence=0)
    check_frame(found, size)
    assert found["results"]["pose_estimator"]["num_people"] == MAX_DETECTIONS
    assert len(found["results"]["threat_detector"]["threats_detected"]) == MAX_DETECTIONS


def test_64_boxes_of_a_crowd_for_all_models(client: httpx.Client, shared: Path) -> None:
    """The most that one call can ask: every model looks at every box, and lists whatever it sees."""
    boxes = [[number, 0, 1000 + number % 24, 640] for number in range(BOXES)]
    on = {"pose": {"on": "boxes"}, "threat": {"on": "boxes"}}
    found, size = enrich(client, mosaic(shared), boxes=boxes, options=on, min_confidence=0)
    assert all(times["items"] <= BOXES for times in found["timings"]["models"].values())
    assert len(found["boxes"]) == BOXES
    for box in found["boxes"]:
        results, errors = box["results"], box["errors"]
        assert {*results, *errors} == {*CATALOGUE}
        assert {error["code"] for error in errors.values()} <= {"overloaded", "timeout"}  # of a busy machine
        assert len(results.get("pose_estimator", {}).get("persons", ())) <= PERSONS
        assert len(results.get("threat_detector", {}).get("threats_detected", ())) <= MAX_DETECTIONS
    assert size < BOXES * (PERSONS * (_OF_PERSON + _OF_THREAT) + _OF_REST)
