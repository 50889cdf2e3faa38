"""/person-reid/compare and /person-reid/match over HTTP. The fake embedding holds the image's colour."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.pictures import encoded, marked, plain
from tests.serving.server import Server, serving

pytestmark = pytest.mark.serve

RED, DARK_RED, BLUE = (200, 0, 0), (100, 0, 0), (0, 0, 200)
COMPARE, MATCH = "/person-reid/compare", "/person-reid/match"


def image(*colour: int) -> dict[str, Any]:
    return {"image_base64": base64.b64encode(encoded(plain(colour))).decode()}  # type: ignore[arg-type]


def embedding(client: httpx.Client, *colour: int) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/person-reid", json=image(*colour)).raise_for_status().json()
    return found


def test_two_images_and_their_embeddings_compare_alike(client: httpx.Client) -> None:
    first, second = embedding(client, *RED), embedding(client, *BLUE)
    bodies = [
        {"first": image(*RED), "second": image(*BLUE)},
        {"first": first, "second": second},
        {"first": image(*RED), "second": second},
    ]
    answers = [client.post(COMPARE, json=body).raise_for_status().json() for body in bodies]
    assert {answer["model_id"] for answer in answers} == {first["model_id"]}
    cosines = [answer["cosine"] for answer in answers]
    assert cosines == pytest.approx([cosines[0]] * 3, abs=2e-6)
    assert {answer["threshold_source"] for answer in answers} == {"borrowed"}  # the fake store's weights


def test_a_form_of_two_files_says_whether_people_are_in_view(client: httpx.Client) -> None:
    person = encoded(marked((100, 50, 200, 350), (640, 640), (200, 30, 90)))
    files = {"first": person, "second": encoded(plain(BLUE))}
    answer = client.post(COMPARE, files=files, data={"threshold": "0.99"}).raise_for_status().json()
    assert (answer["threshold"], answer["threshold_source"]) == (0.99, "request")
    assert answer["first"] == {"person_in_view": True}
    assert answer["second"] == {"person_in_view": False}


def test_the_nearest_candidate_is_found(client: httpx.Client) -> None:
    candidates = [{"id": name} | embedding(client, *colour) for name, colour in (("blue", BLUE), ("red", RED))]
    for query in (image(*RED), embedding(client, *RED)):
        body = {"query": query, "candidates": candidates, "threshold": 0}
        answer = client.post(MATCH, json=body).raise_for_status().json()
        assert [match["id"] for match in answer["matches"]] == ["red", "blue"]
        assert answer["best"] == answer["matches"][0]
        assert answer["compared"] == 2


def test_embeddings_of_two_models_are_a_422(client: httpx.Client) -> None:
    one, other = embedding(client, *RED), embedding(client, *RED) | {"model_id": "another"}
    for route, body in (
        (COMPARE, {"first": one, "second": other}),
        (COMPARE, {"first": other, "second": image(*RED)}),
        (MATCH, {"query": image(*RED), "candidates": [{"id": "a"} | other]}),
    ):
        refused = client.post(route, json=body)
        assert refused.status_code == 422
        assert one["model_id"] in refused.json()["error"]["message"]
        assert "another" in refused.json()["error"]["message"]


def test_a_fault_names_the_image(client: httpx.Client) -> None:
    refused = client.post(COMPARE, files={"first": encoded(plain(RED)), "second": b"\0no image"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_image")
    assert refused.json()["error"]["message"].startswith("second: ")


def test_engines_in_another_process_compare_alike(client: httpx.Client, shared_server: Server) -> None:
    body = {"first": image(*RED), "second": image(*BLUE)}
    answers = [client.post(COMPARE, json=body), httpx.post(f"{shared_server.url}{COMPARE}", json=body, timeout=30)]
    first, second = (answer.raise_for_status().json() | {"inference_time_ms": 0} for answer in answers)
    assert first == second


def test_a_setting_is_the_threshold_and_nobody_looks_without_the_pose_model(tmp_path: Path) -> None:
    environment = {"ENRICHMENT_REID_SAME_PERSON_THRESHOLD": "0.5", "ENRICHMENT_POSE_SERVICE": "heavy"}
    body = {"first": image(*RED), "second": image(*DARK_RED)}
    with serving(tmp_path, environment) as server:
        answer = httpx.post(f"{server.url}{COMPARE}", json=body, timeout=30).raise_for_status().json()
    assert (answer["threshold"], answer["threshold_source"]) == (0.5, "setting")
    assert answer["first"] == answer["second"] == {"person_in_view": None}
