"""The OpenAPI document: valid, complete, and of one piece with what serves."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel, Field

from api import openapi, state_operations
from api.errors import STATUS, ApiError, ErrorCode
from api.openapi import Operation, document
from api.schemas import DrawnInput, ErrorResponse, ImageInput, MapInput
from models.state import State
from settings import get_settings
from tasks.depth_estimator import DepthResponse
from tasks.person_reid import ReidResponse
from tasks.pet_classifier import PetClassifier, PetResponse
from tasks.pose_estimator import PoseResponse
from tasks.threat_detector import Severity, ThreatResponse
from tests.serving.document import Document
from vision.posture import Alert, Posture

RESPONSES = {
    "pose-analyze": PoseResponse,
    "threat-detect": ThreatResponse,
    "person-reid": ReidResponse,
    "pet-classify": PetResponse,
    "depth-estimate": DepthResponse,
}


class Api:
    """As BentoML keeps a route."""

    doc = "What is to be seen.\n\nMore of it."
    input_spec: type[ImageInput] = ImageInput

    def __init__(self, route: str, output_spec: Any) -> None:
        self.route = f"/{route}"
        self.output_spec = output_spec


APIS = {route.replace("-", "_"): Api(route, model) for route, model in RESPONSES.items()}
OPERATIONS = (*openapi.analysis(APIS), *state_operations.STATE)


@pytest.fixture(scope="module")
def served() -> Document:
    return Document(document(OPERATIONS))


def test_the_document_is_valid_openapi(served: Document) -> None:
    validate(served.content)
    assert json.loads(json.dumps(served.content)) == served.content


def test_it_says_which_version_of_what_it_is_about(served: Document) -> None:
    project = tomllib.loads(openapi.PROJECT.read_text(encoding="utf-8"))["project"]
    info = served.content["info"]
    assert (info["title"], info["version"]) == (project["name"], project["version"])
    assert info["license"]["identifier"] == project["license"]
    assert "contact" not in info or info["contact"]["url"] in project["urls"].values()
    assert "bentoml" not in json.dumps(info).lower().replace(project["description"].lower(), "")
    ours = {key: value for key, value in served.content.items() if key != "paths"}  # examples have the models' pages
    assert "http" not in json.dumps(ours).replace("invalid_http", "")


@pytest.mark.parametrize("urls", [{}, {"Repository": "https://example.org/a"}, {"B": "https://b.example", "C": "x"}])
def test_the_contact_is_the_projects_first_url(
    urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "".join(f"{name} = {url!r}\n" for name, url in urls.items())
    text = openapi.PROJECT.read_text(encoding="utf-8") + ("[project.urls]\n" + table if urls else "")
    monkeypatch.setattr(openapi, "PROJECT", tmp_path / "pyproject.toml")
    openapi.PROJECT.write_text(text, encoding="utf-8")
    monkeypatch.setattr(openapi, "project", openapi.project.__wrapped__)  # not cached
    made = document(OPERATIONS)
    validate(made)
    contact = made["info"].get("contact")
    assert contact == ({"name": "ai-enrichment-light", "url": next(iter(urls.values()))} if urls else None)


def test_every_operation_of_images_takes_every_kind_of_body(served: Document) -> None:
    for name in RESPONSES:
        body = served.resolve(served.content["paths"][f"/{name}"]["post"]["requestBody"])
        assert body["required"] is True
        forms = {"application/json", "multipart/form-data", "application/x-www-form-urlencoded"}
        images = {"image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "image/tiff"}
        assert set(body["content"]) == forms | images | {"application/octet-stream"}


def test_every_option_is_a_parameter_of_the_query_and_a_field_of_each_form(served: Document) -> None:
    options = set(ImageInput.model_fields) - {"image", "image_base64"}
    schemas = served.content["components"]["schemas"]
    for name in RESPONSES:
        parameters = served.content["paths"][f"/{name}"]["post"]["parameters"]
        assert {parameter["name"] for parameter in parameters if parameter.get("in") == "query"} == options
    for body in ("ByImage", "ByImageBase64", "File", "Text"):
        assert options < set(schemas[f"ImageInput{body}"]["properties"])


@pytest.mark.parametrize(
    ("model", "options", "files"),
    [
        (ImageInput, set(), set()),
        (DrawnInput, {"render"}, {"image/jpeg", "image/png"}),
        (MapInput, {"format", "colormap"}, {"image/png", "application/x-npy"}),
    ],
)
def test_a_route_with_pictures_has_their_options_and_media_types(
    model: type[ImageInput], options: set[str], files: set[str]
) -> None:
    api = Api("pose-analyze", PoseResponse)
    api.input_spec = model
    made = Document(document(openapi.analysis({"pose_analyze": api})))
    validate(made.content)
    operation = made.content["paths"]["/pose-analyze"]["post"]
    named = {parameter["name"] for parameter in operation["parameters"] if "name" in parameter}
    assert named - set(ImageInput.model_fields) == options
    assert set(operation["responses"]["200"]["content"]) == {"application/json"} | files
    for body in ("ByImage", "File", "Text"):
        fields = made.content["components"]["schemas"][f"{model.__name__}{body}"]["properties"]
        assert set(fields) - set(ImageInput.model_fields) == options


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"image": "AA=="}, True),
        ({"image_base64": "AA=="}, True),
        ({"image_base64": "AA==", "image": None}, True),
        ({"image": "AA==", "detection_id": 7}, True),
        ({}, False),
        ({"image": "AA==", "image_base64": "AA=="}, False),
        ({"image": None}, False),
        ({"image": ""}, False),
        ({"image": 7}, False),
        ({"bbox": [0, 0, 9, 9]}, False),
    ],
)
def test_exactly_one_image_is_sent(served: Document, body: object, valid: bool) -> None:
    assert served.is_valid("ImageInput", body) is valid


@pytest.mark.parametrize(
    ("box", "valid"),
    [
        ([1, 2, 3.5, 4], True),
        ({"x": 1, "y": 2, "width": 3, "height": 4}, True),
        ({"x1": 1, "y1": 2, "x2": 3, "y2": 4}, True),
        (None, True),
        ([1, 2, 3], False),
        ([1, 2, 3, 4, 5], False),
        (["1", "2", "3", "4"], False),
        ({"x": 1, "y": 2, "width": 0, "height": 4}, False),
        ([-999_999_999, 2, 999_999_999, 4], True),
        ([1, 2, 1e9, 4], False),
        ({"x": 1, "y": 2, "width": 3, "height": 1e9}, False),
        ({"x1": -1e9, "y1": 2, "x2": 3, "y2": 4}, False),
        ({"left": 1}, False),
        (7, False),
    ],
)
def test_a_box_has_three_forms(served: Document, box: object, valid: bool) -> None:
    for key in ("image", "image_base64"):
        assert served.is_valid("ImageInput", {key: "AA==", "bbox": box}) is valid


def test_confidences_are_fractions(served: Document) -> None:
    for option in ("min_confidence", "min_keypoint_confidence"):
        for value, valid in [(0, True), (0.5, True), (1, True), (None, True), (-0.1, False), (1.1, False)]:
            assert served.is_valid("ImageInput", {"image": "AA==", option: value}) is valid


def test_every_error_is_an_example_of_its_status(served: Document) -> None:
    responses = served.content["paths"]["/pose-analyze"]["post"]["responses"]
    for code, status in STATUS.items():
        if str(status) not in responses:
            assert code in {"unauthorized", "not_found", "forbidden"}  # not of these routes
            continue
        described = served.resolve(responses[str(status)])
        content = described["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
        assert served.is_valid("ErrorResponse", content["examples"][code]["value"])
        assert content["examples"][code]["value"]["error"]["code"] == code


def test_every_error_has_its_meaning() -> None:
    assert set(openapi.MEANINGS) == set(STATUS) == set(get_args(ErrorCode))


def test_headers_of_errors_are_those_that_are_sent(served: Document) -> None:
    responses = served.content["paths"]["/pose-analyze"]["post"]["responses"]
    for code, status in STATUS.items():
        if str(status) in responses:
            described = served.resolve(responses[str(status)])["headers"]
            sent = ApiError(code, "").response("id").headers
            assert {"X-Request-ID", "X-Error-Code"} <= set(described)
            assert ("Retry-After" in described) is ("retry-after" in sent)
            assert ("Allow" in described) is (status == 405)


def test_an_answer_has_every_key_but_those_that_may_be_absent(served: Document) -> None:
    schemas = served.content["components"]["schemas"]
    assert set(schemas["PetResponse"]["properties"]) - set(schemas["PetResponse"]["required"]) == {
        "untrained",
        "person_in_view",
    }
    assert schemas["PetResponse"]["properties"]["untrained"]["const"] is True  # absent, never null
    assert {"alert_details", "posture_reason"} <= set(schemas["Person"]["required"])  # sent, whatever their defaults
    assert schemas["ModelHealth"]["properties"]["detail"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert set(schemas["ModelHealth"]["required"]) == set(schemas["ModelHealth"]["properties"])
    assert "class" in schemas["Threat"]["required"]
    assert schemas["State"]["enum"] == [state.value for state in State]


@pytest.mark.parametrize("people", [None, 0, 1])
def test_a_pet_fits_whether_or_not_somebody_could_look(served: Document, people: int | None) -> None:
    pet = {"pet_type": "cat", "breed": "", "confidence": 1.0, "is_household_pet": True, "cat_score": 1.0}
    answer = PetResponse(**pet, dog_score=0.0, probabilities={}, inference_time_ms=1.0)
    task = PetClassifier(get_settings().models.pet_classifier)
    assert served.is_valid("PetResponse", answered(answer))
    seen = PoseResponse(keypoints=[], posture="unknown", alerts=[], num_people=people or 0, persons=[])
    task.after_second_look(answer, None if people is None else seen)
    assert served.is_valid("PetResponse", answered(answer))


def answered(answer: BaseModel) -> Any:
    """The JSON that api/steps.py makes of an answer."""
    return json.loads(answer.model_dump_json(exclude_unset=True))


def test_names_from_a_closed_set_are_enums(served: Document) -> None:
    schemas = served.content["components"]["schemas"]
    for name, values in [("Posture", Posture), ("Alert", Alert), ("State", State)]:
        assert schemas[name]["enum"] == [value.value for value in values]
    assert schemas["Threat"]["properties"]["severity"]["enum"] == list(get_args(Severity))
    for model in ("Person", "PoseResponse"):
        assert schemas[model]["properties"]["posture"] == {"$ref": "#/components/schemas/Posture"}
        assert schemas[model]["properties"]["alerts"]["items"] == {"$ref": "#/components/schemas/Alert"}
    assert schemas["AlertDetail"]["properties"]["alert"] == {"$ref": "#/components/schemas/Alert"}


def test_the_errors_of_the_document_are_the_errors_that_are_served(served: Document) -> None:
    error = ApiError("invalid_request", "wrong", [{"field": "bbox", "message": "wrong"}])
    ErrorResponse.model_validate_json(bytes(error.response("id").body))
    assert served.is_valid("ErrorResponse", json.loads(bytes(error.response("id").body)))
    assert not served.is_valid("ErrorResponse", {"error": "text"})


class Query(BaseModel):
    """Of a route that is not about an image."""

    model_name: str = Field(description="which")
    wait: bool = True


class Loaded(BaseModel):
    loaded: bool


class DistanceInput(ImageInput):
    method: str = "median"


def test_further_routes_are_rows_of_a_table() -> None:
    served = Document(
        document(
            [
                Operation("post", "/models/preload", "preload", "Load", {200: Loaded}, query=Query, errors=["timeout"]),
                Operation("post", "/models/{name}/unload", "unload", "Unload", {200: Loaded}, errors=["not_found"]),
                Operation("post", "/object-distance", "distance", "How far", {200: Loaded}, image=DistanceInput),
            ]
        )
    )
    validate(served.content)
    paths = served.content["paths"]
    (name, *_) = (value for value in paths["/models/preload"]["post"]["parameters"] if value.get("in") == "query")
    assert (name["name"], name["required"], name["schema"]) == ("model_name", True, {"type": "string"})
    wait = paths["/models/preload"]["post"]["parameters"][-1]
    assert (wait["name"], wait["required"], wait["schema"]) == ("wait", False, {"type": "boolean", "default": True})
    assert set(paths["/models/preload"]["post"]["responses"]) == {"200", "405", "500", "504"}
    (place,) = (value for value in paths["/models/{name}/unload"]["post"]["parameters"] if value.get("in") == "path")
    assert (place["name"], place["required"]) == ("name", True)
    assert served.is_valid("DistanceInput", {"image": "AA==", "method": "mean"})
    assert not served.is_valid("DistanceInput", {"method": "mean"})
    assert "ImageInput" not in served.content["components"]["schemas"]


def answer(path: str, status: int, body: Any, method: str = "GET", **headers: str) -> httpx.Response:
    request = httpx.Request(method, f"http://localhost{path}")
    return httpx.Response(status, json=body, headers={"x-request-id": "a", **headers}, request=request)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (answer("/livez", 200, {"status": "dead"}), "was expected"),
        (answer("/livez", 200, {"status": "alive", "more": 1}), "more"),
        (answer("/livez", 200, {}), "required"),
        (answer("/livez", 418, {}), "418, which is not in the document"),
        (answer("/livez", 200, {"status": "alive"}, **{"content-type": "text/html"}), "text/html, which is not"),
        (answer("/nothing", 200, {}), "200, which is not in the document"),
        (answer("/nothing", 404, {"detail": "no"}), "detail"),
        (answer("/pose-analyze", 503, {}, "POST", **{"x-error-code": "timeout"}), "without Retry-After"),
    ],
)
def test_the_judge_of_answers_sees_what_is_wrong(served: Document, wrong: httpx.Response, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        served.check_response(wrong)


def test_the_judge_of_answers_agrees_to_what_is_right(served: Document) -> None:
    served.check_response(answer("/livez", 200, {"status": "alive"}))
    error = {"error": {"code": "not_found", "message": "no", "request_id": "a"}}
    served.check_response(answer("/nothing", 404, error))


OPEN = frozenset({"/health", "/livez", "/readyz"})


def test_where_a_key_is_asked_for_each_closed_route_says_so(served: Document) -> None:
    assert "securitySchemes" not in served.content["components"]
    keyed = document([*openapi.analysis(APIS), *state_operations.state(keyed=True)], OPEN)
    validate(keyed)
    assert set(keyed["components"]["securitySchemes"]) == {"key", "bearer"}
    for path, methods in keyed["paths"].items():
        for operation in methods.values():
            assert ("401" in operation["responses"]) is ("security" in operation) is (path not in OPEN), path
    headers = keyed["components"]["responses"]["Error401"]["headers"]
    assert "WWW-Authenticate" in headers
    answers = Document(keyed)
    assert answers.is_valid("KeyedHealthResponse", {"status": "healthy"})
    assert not answers.is_valid("KeyedHealthResponse", {"uptime_seconds": 1})
