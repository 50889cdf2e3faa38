"""The routes of DeepStack and CodeProject.AI, over models whose answers are written down."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import numpy as np
import pytest
from openapi_spec_validator import validate
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from api.application import inference_routes
from api.deepstack_shapes import ASKED
from api.front import Front
from api.gate import Gate
from api.keys import KeyCheck
from api.pages import pages
from api.queue import _Group
from models.catalogue import CATALOGUE, ModelName
from settings import DEFAULT_FILE, load
from tests.api import asgi
from tests.api.answered import Runner, answering_of
from tests.serving.document import Document
from tests.serving.pictures import encoded, plain

ON: Final = load(DEFAULT_FILE, {"ENRICHMENT_DEEPSTACK": "true"})
OFF: Final = load(DEFAULT_FILE, {})
SIZE: Final = (80, 60)
IMAGE: Final = encoded(plain((9, 8, 7), SIZE))
DETECTION: Final = "/v1/vision/detection"
THREAT, POSE, PET = (f"/v1/vision/custom/{name}" for name in ("threat", "pose", "pet"))
# What typed clients read, with the types that they insist on.
KEYS: Final[Mapping[str, type]] = {
    "success": bool,
    "message": str,
    "count": int,
    "predictions": list,
    "inferenceMs": int,
    "processMs": int,
    "analysisRoundTripMs": int,
    "moduleId": str,
    "moduleName": str,
    "command": str,
    "executionProvider": str,
    "canUseGPU": bool,
    "timestampUTC": str,
}


class Scene(Runner):
    """Detectors that see people and threats of these confidences."""

    def __init__(self, people: Sequence[float] = (), threats: Sequence[tuple[str, float]] = (), gpu: int | None = None):
        super().__init__()
        self.seen = {"pose_estimator": [("person", score) for score in people], "threat_detector": list(threats)}
        self.gpu = gpu

    def status(self) -> Any:
        status = super().status()
        return {**status, "device": {**status["device"], "index": self.gpu}}

    def infer(self, name: ModelName, items: Any, **options: Any) -> Any:
        if name not in self.seen:
            return super().infer(name, items, **options)
        self.calls.append((name, len(items)))
        self.items += items
        seen, n = self.seen[name], len(self.seen[name])
        times = dict.fromkeys(("taken", "loaded", "forwarded", "interpreted"), time.monotonic_ns())
        boxes = np.array([[40 * i, 5, 40 * i + 30.4, 55.7] for i in range(n)], "f").reshape(n, 4)
        found = {
            "boxes": boxes,
            "scores": np.array([score for _, score in seen], "f"),
            "timing": {**times, "engine": "openvino", "batch": 1},
        }
        labels, joints = [label for label, _ in seen], np.zeros((n, 17, 3), "f")
        return [{**found, **({"labels": labels} if name == "threat_detector" else {"keypoints": joints})}] * len(items)


def app_of(runner: Runner, settings: Any = ON, without: Sequence[ModelName] = ()) -> ASGIApp:
    """The app with the front and the gate, as api/application.py puts them together."""
    inner = pages(dict, settings)
    answering = answering_of(runner, without, settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await front({**scope, "app": inner}, receive, send)

    gate = Gate(inner, frozenset())
    front = Front(gate, inference_routes(settings), settings.limits, lambda: answering, outermost=False)
    return app


async def post(app: ASGIApp, route: str = DETECTION, **fields: str) -> httpx.Response:
    """Ask as deepstack-python does: a form with a file without a content type."""
    return await asgi.ask(app, "POST", route, headers={}, files={"image": ("image", IMAGE, "")}, data=fields)


async def predictions(app: ASGIApp, route: str = DETECTION, **fields: str) -> list[dict[str, Any]]:
    response = await post(app, route, **fields)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["predictions"]
    return found


def error_of(response: httpx.Response) -> str:
    """The text of an error, which has no other key."""
    body = response.json()
    assert set(body) == {"success", "error"}
    assert body["success"] is False
    assert response.headers["x-request-id"]
    assert isinstance(body["error"], str)
    return body["error"]


# ── predictions ──


async def test_an_answer_has_the_keys_and_types_that_clients_insist_on() -> None:
    response = await post(app_of(Scene([0.8], [("knife", 0.9)])), api_key="any", min_confidence="0.45")
    body = response.json()
    assert {key: type(value) for key, value in body.items()} == KEYS
    assert (body["success"], body["count"], body["message"]) == (True, 2, "Found knife, person")
    assert (body["command"], body["executionProvider"], body["canUseGPU"]) == ("detect", "openvino", False)
    assert 0 <= body["inferenceMs"] <= body["processMs"] <= body["analysisRoundTripMs"]
    assert parsedate_to_datetime(body["timestampUTC"]).utcoffset() is not None
    for prediction in body["predictions"]:
        kinds = {key: type(value) for key, value in prediction.items()}
        assert kinds == {"label": str, "confidence": float} | dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), int)
        assert 0 <= prediction["x_min"] < prediction["x_max"] <= SIZE[0]
        assert 0 <= prediction["y_min"] < prediction["y_max"] <= SIZE[1]
    document = Document(json.loads((await asgi.ask(app_of(Scene()), "GET", "/openapi.json")).content))
    assert document.is_valid("DetectionResponse", body)


async def test_both_models_are_asked_and_the_most_confident_comes_first() -> None:
    runner = Scene([0.95, 0.5], [("Gun", 0.7), ("knife", 0.41)])
    found = await predictions(app_of(runner))
    assert [(each["label"], each["confidence"]) for each in found] == [
        ("person", 0.95),
        ("Gun", 0.7),
        ("person", 0.5),
        ("knife", 0.41),
    ]
    assert sorted(runner.calls) == [("pose_estimator", 1), ("threat_detector", 1)]


@pytest.mark.parametrize(("route", "labels"), [(THREAT, ["Gun"]), (POSE, ["person"]), (DETECTION, ["person", "Gun"])])
async def test_a_custom_model_answers_alone(route: str, labels: list[str]) -> None:
    app = app_of(Scene([0.8], [("Gun", 0.7)]))
    assert [each["label"] for each in await predictions(app, route)] == labels
    assert (await post(app, route)).json()["command"] == ("detect" if route == DETECTION else "custom")


async def test_the_most_confident_twenty_are_given() -> None:
    scores = [round(0.41 + number / 100, 2) for number in range(30)]
    found = await predictions(app_of(Scene(scores, [("knife", score) for score in scores])))
    assert [each["confidence"] for each in found] == sorted([*scores, *scores], reverse=True)[:20]


async def test_nothing_found_is_an_answer() -> None:
    body = (await post(app_of(Scene()))).json()
    assert (body["success"], body["count"], body["predictions"]) == (True, 0, [])


@pytest.mark.parametrize(
    ("sent", "least"), [({}, 0.4), ({"min_confidence": "0.05"}, 0.05), ({"min_confidence": ""}, 0.4)]
)
async def test_the_least_confidence_is_deepstacks_own_or_the_callers(sent: dict[str, str], least: float) -> None:
    runner = Scene([0.9])
    await predictions(app_of(runner), **sent)
    assert [item["min_confidence"] for item in runner.items] == [least, least]


async def test_boxes_are_those_of_our_own_routes_in_whole_pixels() -> None:
    runner = Scene([], [("knife", 0.9), ("Gun", 0.8)])
    found = await predictions(app_of(runner), THREAT)
    own = await asgi.ask(app_of(runner), "POST", "/threat-detect", content=IMAGE)
    boxes = [threat["bbox_xyxy"] for threat in own.json()["threats_detected"]]
    assert [[each[key] for key in ("x_min", "y_min", "x_max", "y_max")] for each in found] == [
        [round(value) for value in box] for box in boxes
    ]


@pytest.mark.parametrize(
    ("sent", "box"), [({}, (0, 0, *SIZE)), ({"bbox": "10,5,40.6,50"}, (10, 5, 41, 50)), ({"bbox": "-9,5,500,50"}, None)]
)
async def test_a_pet_is_a_label_with_the_box_asked(sent: dict[str, str], box: tuple[int, ...] | None) -> None:
    (found,) = await predictions(app_of(Runner()), PET, **sent)
    asked = box or (0, 5, SIZE[0], 50)
    assert found == {"label": "dog", "confidence": 1.0} | dict(
        zip(("x_min", "y_min", "x_max", "y_max"), asked, strict=True)
    )


async def test_what_is_no_household_pet_has_no_label() -> None:
    assert await predictions(app_of(Runner(people=1)), PET) == []


async def test_a_gpu_is_said() -> None:
    assert (await post(app_of(Scene(gpu=1)))).json()["canUseGPU"] is True


# ── what Home Assistant and Frigate do with them ──


def frigate(body: dict[str, Any], labels: Sequence[str]) -> list[str]:
    """Return the labels that Frigate's plugin keeps: it stops at a low confidence or a label that it does not know."""
    room = np.zeros((20, 6), np.float32)
    kept = []
    for number, prediction in enumerate(body["predictions"]):
        if prediction["confidence"] < 0.4 or prediction["label"] not in labels:
            break
        places = zip(("y_min", "x_min", "y_max", "x_max"), SIZE[::-1] * 2, strict=True)
        corners = (prediction[key] / side for key, side in places)
        room[number] = [labels.index(prediction["label"]), prediction["confidence"], *corners]
        kept.append(prediction["label"])
    assert room[:, 2:].min() >= 0
    assert room[:, 2:].max() <= 1
    return kept


async def test_frigate_keeps_every_person() -> None:
    app = app_of(Scene([0.9] * 30, [("Gun", 0.95)]))
    coco = ["person", "bicycle", "car", "knife"]
    assert frigate((await post(app, POSE, min_confidence="0")).json(), coco) == ["person"] * 20
    mixed = (await post(app)).json()
    assert frigate(mixed, coco) == []  # why docs/use/nvr.md names the route of the pose model for Frigate
    assert frigate(mixed, [*coco, "Gun"]) == ["Gun", *["person"] * 19]


async def test_home_assistant_counts_targets_and_their_places() -> None:
    found = await predictions(app_of(Scene([0.876], [("knife", 0.6)])))
    objects = []
    for each in found:
        width, height = (each["x_max"] - each["x_min"]) / SIZE[0], (each["y_max"] - each["y_min"]) / SIZE[1]
        centre = each["x_min"] / SIZE[0] + width / 2, each["y_min"] / SIZE[1] + height / 2
        objects.append((each["label"].lower(), round(each["confidence"] * 100, 3)))
        assert 0 < width * height <= 1
        assert all(0 < place < 1 for place in centre)
    assert objects == [("person", 87.6), ("knife", 60.0)]


# ── errors ──


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"min_confidence": "40"}, "min_confidence"),
        ({"min_confidence": "high"}, "min_confidence"),
        ({"bbox": "900,0,950,9"}, "outside"),
    ],
)
async def test_a_wrong_option_is_a_400(sent: dict[str, str], said: str) -> None:
    response = await post(app_of(Scene()), **sent)
    assert response.status_code == 400
    assert said in error_of(response)


@pytest.mark.parametrize("route", ASKED)
@pytest.mark.parametrize(
    "request_",
    [
        {"files": {"image": ("image", b"\x89PNG\r\n\x1a\nno", "")}},
        {"files": {"image": ("image", b"%PDF-1.7 \0", "")}},
        {"data": {"min_confidence": "0.5"}},
        {"content": b"x", "headers": {"content-type": "text/html"}},
        {"content": b"x" * (14 * 2**20 + 2**20), "headers": {"content-type": "image/png"}},
        {"content": encoded(plain((1, 2, 3), (8000, 7000))), "headers": {"content-type": "image/png"}},
    ],
    ids=["damaged", "PDF", "none", "content type", "too many bytes", "too many pixels"],
)
async def test_a_wrong_image_is_a_400(route: str, request_: dict[str, Any]) -> None:
    response = await asgi.ask(app_of(Scene()), "POST", route, **{"headers": {}, **request_})
    assert response.status_code == 400
    assert error_of(response)


@pytest.mark.parametrize(("pose", "status", "code"), [("raising", 500, "internal"), ("slow", 500, "timeout")])
async def test_a_model_that_fails_is_no_empty_answer(pose: str, status: int, code: str) -> None:
    limits = ON.limits.model_copy(update={"request_timeout_s": 1.5})
    response = await post(app_of(Runner(pose=pose), ON.model_copy(update={"limits": limits})))
    assert (response.status_code, response.headers["x-error-code"]) == (status, code)
    assert "bug" not in error_of(response)


async def test_a_model_that_is_absent_is_left_out_and_named() -> None:
    body = (await post(app_of(Runner(pose="failing")))).json()
    assert [each["label"] for each in body["predictions"]] == ["knife"]
    assert "without pose_estimator" in body["message"]
    alone = await post(app_of(Runner(pose="failing")), POSE)
    assert (alone.status_code, alone.headers["retry-after"]) == (503, "60")
    assert error_of(alone)


async def test_a_model_that_is_served_elsewhere_is_an_endpoint_that_is_off() -> None:
    app = app_of(Scene([0.9], [("knife", 0.8)]), without=["pose_estimator"])
    response = await post(app, POSE)
    assert response.status_code == 403
    assert "ENRICHMENT_POSE_SERVICE" in error_of(response)
    assert [each["label"] for each in await predictions(app)] == ["knife"]


async def test_an_overload_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = answering_of(Scene(), settings=ON)
    queue = answering._queues["pose_estimator"]
    for measured, value in (("_takes_s", 100), ("_between_s", 100), ("_free", 0)):
        monkeypatch.setattr(queue, measured, value)
    queue._working[_Group((), time.monotonic())] = asyncio.get_running_loop().create_future()
    front = Front(app_of(Scene()), inference_routes(ON), ON.limits, lambda: answering, outermost=False)
    for route in (DETECTION, POSE):
        response = await post(front, route)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 100
        assert error_of(response)
    assert (await post(front, THREAT)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_another_method_or_path_has_the_same_shape(method: str) -> None:
    response = await asgi.ask(app_of(Scene()), method, DETECTION)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert error_of(response)
    unknown = await asgi.ask(app_of(Scene()), method, "/v1/vision/custom/ipcam-general")
    assert unknown.status_code == 404
    assert error_of(unknown)


async def test_our_own_routes_keep_their_shape() -> None:
    response = await asgi.ask(app_of(Scene()), "POST", "/threat-detect", content=b"x")
    assert asgi.error_of(response)["code"] == "invalid_image"


async def test_only_known_paths_become_labels() -> None:
    app = app_of(Scene([0.9]))
    await post(app, POSE)
    await post(app, "/v1/vision/custom/nobody-has-this")
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    endpoints = {sample.labels["endpoint"] for sample in samples if "endpoint" in sample.labels}
    assert POSE in endpoints
    assert not any("nobody" in endpoint for endpoint in endpoints)


# ── the other routes ──


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_list_has_the_custom_models_that_are_served(method: str) -> None:
    listed = (await asgi.ask(app_of(Scene()), method, "/v1/vision/custom/list")).json()
    assert listed == {"success": True, "models": ["pose", "threat", "pet"]}
    for name in listed["models"]:
        assert (await post(app_of(Scene([0.9])), f"/v1/vision/custom/{name}")).status_code == 200
    heavy = load(DEFAULT_FILE, {"ENRICHMENT_DEEPSTACK": "true", "ENRICHMENT_POSE_SERVICE": "heavy"})
    fewer = await asgi.ask(app_of(Scene(), heavy, ["pose_estimator"]), method, "/v1/vision/custom/list")
    assert fewer.json()["models"] == ["threat", "pet"]


@pytest.mark.parametrize("prefix", ["/v1/status", "/v1/server/status"])
async def test_the_status_is_told(prefix: str) -> None:
    ping = (await asgi.ask(app_of(Scene()), "GET", f"{prefix}/ping")).json()
    assert {key: type(value) for key, value in ping.items()} == {
        "success": bool,
        "code": int,
        "message": str,
        "version": str,
        "hostname": str,
    }
    assert (ping["success"], ping["code"], ping["hostname"]) == (True, 200, "ai-enrichment-light")
    update = (await asgi.ask(app_of(Scene()), "GET", f"{prefix}/updateavailable")).json()
    assert (update["success"], update["updateAvailable"], update["version"]) == (True, False, ping["version"])


@pytest.mark.parametrize(
    "route", ["face", "face/recognize", "face/register", "face/list", "face/delete", "face/match", "scene"]
)
async def test_faces_and_scenes_are_refused(route: str) -> None:
    response = await post(app_of(Scene()), f"/v1/vision/{route}")
    assert response.status_code == 403
    assert DETECTION in error_of(response)


@pytest.mark.parametrize(
    ("method", "route"),
    [*(("POST", route) for route in ASKED), ("POST", "/v1/vision/face"), ("GET", "/v1/status/ping"), ("GET", "/v1/x")],
)
async def test_without_the_setting_every_route_is_off(method: str, route: str) -> None:
    runner = Scene([0.9])
    response = await asgi.ask(app_of(runner, OFF), method, route, content=IMAGE)
    assert response.status_code == 403
    assert "ENRICHMENT_DEEPSTACK=true" in error_of(response)
    assert runner.calls == []


async def test_the_document_has_the_routes_that_are_on() -> None:
    on = (await asgi.ask(app_of(Scene()), "GET", "/openapi.json")).json()
    off = (await asgi.ask(app_of(Scene(), OFF), "GET", "/openapi.json")).json()
    validate(on)
    assert set(ASKED) | {"/v1/vision/custom/list", "/v1/status/ping"} <= set(on["paths"])
    assert not any(path.startswith("/v1/") for path in off["paths"])
    assert "deepstack" not in json.dumps(off).lower()
    operations = [operation["operationId"] for path in on["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))


def test_every_model_of_a_route_is_in_the_catalogue() -> None:
    assert set(ASKED) == {DETECTION, POSE, THREAT, PET}
    assert {name for names in ASKED.values() for name in names} < set(CATALOGUE)


@pytest.mark.parametrize(
    ("field", "header", "status"),
    [("right", "", 200), ("", "right", 200), ("wrong", "right", 200), ("wrong", "", 401), ("", "", 401)],
)
async def test_a_key_comes_in_the_form_or_in_a_header(field: str, header: str, status: int) -> None:
    keyed = load(DEFAULT_FILE, {"ENRICHMENT_DEEPSTACK": "true", "ENRICHMENT_API_KEY": "right"})
    app = KeyCheck(app_of(Runner(), keyed), Starlette(), keyed.server, frozenset(), frozenset({DETECTION}))
    sent, headers = {"api_key": field} if field else {}, {"X-API-Key": header} if header else {}
    files = {"image": ("image", IMAGE, "")}
    response = await asgi.ask(app, "POST", DETECTION, headers=headers, files=files, data=sent)
    assert response.status_code == status
    if status == 401:
        assert response.json()["success"] is False
        assert "api_key" in response.json()["error"]
