"""The backend against the service: its payloads, its retries, and all that its parts read."""

from __future__ import annotations

import re

import httpx
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from models.catalogue import CATALOGUE
from tests.serving.backend import SCHEMAS, Backend
from tests.serving.fake import colour_of, score
from tests.serving.pictures import ROUTES, answer, ask, base64_of, check_error, encoded, marked, plain, ramp
from tests.serving.server import Server

pytestmark = pytest.mark.serve

FRAME = (1280, 720)
GROUND = (60, 60, 200)


@pytest.fixture
def backend(server: Server) -> Backend:
    return Backend(server.url)


def frame_with(box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> Image.Image:
    """A frame that is of one colour in the box."""
    frame = plain(GROUND, FRAME)
    frame.paste(colour, box)
    return frame


# ── the pipeline ──

BOXES = [(900, 200, 1060, 700), (0, 0, 200, 700), (1080, 20, 1280, 720), (700, 400, 760, 460)]


@pytest.mark.parametrize("box", BOXES)
def test_a_crop_with_its_box_in_the_frame_is_looked_at_as_a_whole(
    backend: Backend, box: tuple[int, int, int, int]
) -> None:
    found = colour_of(backend.ask_about("/person-reid", frame_with(box, (200, 100, 40)), box)["embedding"])
    assert max(abs(one - other) for one, other in zip(found, (200, 100, 40), strict=True)) <= 4
    assert backend.ask_about("/pet-classify", frame_with(box, (200, 90, 20)), box)["pet_type"] == "dog"


@pytest.mark.parametrize("box", BOXES)
def test_a_persons_crop_has_its_pose_in_the_crops_pixels(backend: Backend, box: tuple[int, int, int, int]) -> None:
    width, height = box[2] - box[0], box[3] - box[1]
    inside = (box[0] + width // 4, box[1] + height // 8, box[2] - width // 4, box[3] - height // 8)
    frame = frame_with(inside, (70, 255, 0))  # a person for the fake, and a likely one: 0.46
    body = backend.ask_about("/pose-analyze", frame, box)
    assert body["num_people"] == 1
    (person,) = body["persons"]
    middle = (person["bbox"]["x"] + person["bbox"]["width"] / 2, person["bbox"]["y"] + person["bbox"]["height"] / 2)
    assert middle == pytest.approx((width / 2, height / 2), abs=0.1 * max(width, height))
    assert all(0 <= point["x"] <= width and 0 <= point["y"] <= height for point in person["keypoints"])
    assert all(point["confidence"] >= 0.3 for point in person["keypoints"])


def test_the_least_confidence_of_keypoints_is_an_option_of_its_own(backend: Backend) -> None:
    frame = marked((200, 100, 400, 600), FRAME)
    names = {
        least: {point["name"] for point in backend.ask("/pose-analyze", frame, **least_of(least)).json()["keypoints"]}
        for least in (None, 0.05, 0.95)
    }
    assert "left_ear" not in names[None]  # the fake is not sure of it: 0.1
    assert len(names[None]) == 16
    assert names[0.05] == names[None] | {"left_ear"}
    assert names[0.95] == set()


def least_of(confidence: float | None) -> dict[str, float]:
    return {} if confidence is None else {"min_keypoint_confidence": confidence}


def test_the_ids_of_a_request_come_back(backend: Backend) -> None:
    good = backend.ask("/person-reid", plain((1, 2, 3)))
    bad = backend.ask("/person-reid", b"no image")
    for response in (good, bad):
        assert response.headers["x-request-id"] == backend.correlation_id
        assert response.headers["x-correlation-id"] == backend.correlation_id
        assert response.headers["traceparent"] == backend.traceparent
    assert check_error(bad, 400, "invalid_image")["request_id"] == backend.correlation_id


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "mistake",
    [
        {"image": ""},
        {"image": None},
        {"image": "no base64!"},
        {"image": base64_of(b"no image")},
        {"bbox": [5, 5, 1, 1]},
        {"bbox": [5000, 5000, 5001, 5002]},
        {"min_confidence": 30},
    ],
    ids=str,
)
def test_a_mistake_of_the_pipeline_is_final_and_opens_no_circuit(
    backend: Backend, route: str, mistake: dict[str, object]
) -> None:
    response = backend.ask(route, encoded(plain((1, 2, 3))), **mistake)
    assert 400 <= response.status_code < 500
    assert backend.tries == 1


def test_keys_for_the_heavy_service_do_no_harm(backend: Backend) -> None:
    more = {"frames": [1, 2], "options": {"deep": True}, "include_embeddings": True, "vehicle": None}
    assert backend.ask("/threat-detect", plain((1, 2, 3)), **more).status_code == 200


# ── schema files ──


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("image", [plain((0, 0, 0), (320, 240)), marked((100, 40, 200, 230), (320, 240))])
def test_answers_fit_the_backends_schemas(client: httpx.Client, route: str, image: Image.Image) -> None:
    Draft202012Validator(SCHEMAS[route]).validate(answer(client, route, image))
    Draft202012Validator(SCHEMAS[route]).validate(answer(client, route, image, bbox=[90, 30, 220, 235]))


# ── what its newer parts read ──


def test_a_threat_has_its_name_under_each_key(client: httpx.Client) -> None:
    (threat,) = answer(client, "/threat-detect", marked((10, 20, 60, 100), (320, 240)))["threats_detected"]
    assert threat["class_name"] == threat["type"] == threat["class"]
    box = threat["bbox"]
    corners = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    assert tuple(threat["bbox_xyxy"]) == pytest.approx(corners, abs=0.02)
    assert set(box) == {"x", "y", "width", "height"}


def test_an_embedding_says_which_weights_made_it(client: httpx.Client) -> None:
    body = answer(client, "/person-reid", plain((1, 2, 3)))
    assert body["model_id"] == "osnet-x0-25@osnet_x0_25@0123456789ab"


@pytest.mark.parametrize("colour", [(250, 10, 10), (10, 10, 250), (100, 10, 90)])
def test_a_pet_has_a_score_of_each_kind(client: httpx.Client, colour: tuple[int, int, int]) -> None:
    body = answer(client, "/pet-classify", plain(colour))
    assert body["cat_score"] + body["dog_score"] == pytest.approx(1, abs=1e-3)
    assert body[f"{body['pet_type']}_score"] == body["confidence"]


def test_health_has_booleans_under_short_names(client: httpx.Client) -> None:
    models = client.get("/health").json()["models"]
    assert all(models[short] is True for short in ("pose", "threat", "reid", "pet", "depth"))
    assert all(models[name]["state"] == "ready" for name in CATALOGUE)


def test_black_box_probes_read_bodies(client: httpx.Client) -> None:
    assert '"healthy"' in client.get("/health").text
    assert re.search(r'"status":\s?"ready"', client.get("/readyz").text)


def test_the_status_of_all_models(client: httpx.Client) -> None:
    status = client.get("/models/status").json()
    assert {
        "status",
        "vram_total_mb",
        "vram_used_mb",
        "vram_available_mb",
        "vram_budget_mb",
        "loaded_models",
        "pending_loads",
        "uptime_seconds",
    } <= set(status)
    assert {model["name"] for model in status["loaded_models"]} == {spec.weights for spec in CATALOGUE.values()}
    for model in status["loaded_models"]:
        assert {"name", "loaded", "vram_mb", "priority", "last_used"} <= set(model)
        assert model["loaded"] is True


@pytest.mark.parametrize(
    "path", ["/models/preload?model_name=osnet-x0-25", "/models/person_reid/unload", "/models/unload-all"]
)
def test_models_are_managed_only_where_that_is_allowed(client: httpx.Client, path: str) -> None:
    response = client.post(path)
    check_error(response, response.status_code, {403: "forbidden", 404: "not_found"}[response.status_code])


@pytest.mark.parametrize("method", ["center", "mean", "median", "min"])
def test_the_distance_of_an_object(client: httpx.Client, method: str) -> None:
    far, near = (
        ask(client, "/object-distance", ramp((320, 240)), bbox=box, method=method).raise_for_status().json()
        for box in ([0, 0, 40, 240], [280, 0, 320, 240])
    )
    for body in (far, near):
        assert {"estimated_distance_m", "relative_depth", "proximity_label", "inference_time_ms"} <= set(body)
        assert body["estimated_distance_m"] is None  # neither are the weights metric nor is there a calibration
        assert 0 <= body["relative_depth"] <= 1
    assert near["relative_depth"] < 0.2 < 0.8 < far["relative_depth"]
    assert near["proximity_label"] != far["proximity_label"]


def test_a_detection_is_as_sure_as_the_fake_is(backend: Backend) -> None:
    body = backend.ask("/threat-detect", encoded(plain((128, 10, 10)))).json()
    assert body["max_confidence"] == pytest.approx(score(128), abs=0.01)
