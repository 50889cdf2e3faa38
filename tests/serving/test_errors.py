"""The rows of the contract's error table that need no narrow limits; the others are in test_limits.py."""

from __future__ import annotations

import json

import httpx
import pytest
from PIL import Image

from tests.serving import fake
from tests.serving.pictures import ROUTES, ask, base64_of, check_error, encoded, plain
from tests.vision.decoding.made import png_of_size

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))
JSON = {"content-type": "application/json"}
SECRET = "a-text-that-only-the-body-has"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (f'{{"{SECRET}": ', 400, "invalid_json"),
        ("", 400, "invalid_json"),
        (f'{{"image": "{SECRET}!"}}', 400, "invalid_base64"),
        ('{"image": "B\u00e4r="}', 400, "invalid_base64"),
        (f'{{"image": "{base64_of(SECRET.encode())}"}}', 400, "invalid_image"),
        (f'{{"image": "{base64_of(PNG[:60])}"}}', 400, "invalid_image"),
        (f'{{"image": "{base64_of(encoded(plain((1, 2, 3)), "PPM"))}"}}', 415, "unsupported_media_type"),
        (f'{{"image": "{base64_of(png_of_size(12_000, 12_000))}"}}', 413, "image_too_large"),
        (f'{{"image": "{base64_of(png_of_size(20_000, 20_000))}"}}', 413, "image_too_large"),
    ],
    ids=["json", "nothing", "base64", "not ascii", "no image", "truncated", "format", "pixels", "bomb"],
)
def test_a_body_that_holds_no_picture(client: httpx.Client, route: str, body: str, status: int, code: str) -> None:
    response = client.post(route, content=body.encode(), headers=JSON)
    check_error(response, status, code)
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "image_base64"),
        ({SECRET: SECRET}, "image_base64"),
        ({"image": base64_of(PNG), "image_base64": base64_of(PNG)}, "image_base64"),
        ({"image": {"data": SECRET}}, "image"),
        ({"image": base64_of(PNG), "bbox": [SECRET] * 4}, "bbox"),
        ({"image": base64_of(PNG), "min_confidence": 1.5}, "min_confidence"),
        ({"image": base64_of(PNG), "min_confidence": SECRET}, "min_confidence"),
        ({"image": base64_of(PNG), "min_confidence": True}, "min_confidence"),
    ],
    ids=repr,
)
def test_a_bad_field_is_named_in_the_details(client: httpx.Client, body: object, field: str) -> None:
    response = client.post("/pose-analyze", json=body)
    error = check_error(response, 422, "invalid_request")
    assert [detail["field"] for detail in error["details"]] == [field]
    assert error["details"][0]["message"]
    assert SECRET not in response.text


def test_a_body_that_is_no_object_is_refused(client: httpx.Client) -> None:
    check_error(client.post("/pose-analyze", json=[base64_of(PNG)]), 422, "invalid_request")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", SECRET.encode()),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ncut off'),
        ("multipart/form-data; boundary=x", b""),
    ],
)
def test_a_malformed_form_is_refused(client: httpx.Client, content_type: str, body: bytes) -> None:
    response = client.post("/pose-analyze", content=body, headers={"content-type": content_type})
    check_error(response, 422, "invalid_request")
    assert SECRET not in response.text


def test_a_form_with_two_images_is_refused(client: httpx.Client) -> None:
    twice = [("image", ("a.png", PNG, "image/png")), ("image", ("b.png", PNG, "image/png"))]
    error = check_error(client.post("/pose-analyze", files=twice), 422, "invalid_request")
    assert [detail["field"] for detail in error["details"]] == ["image"]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/csv", "multipart/mixed; boundary=x", "image/svg+xml", "image/heic", "x"],
)
def test_a_content_type_outside_the_list(client: httpx.Client, content_type: str) -> None:
    response = client.post("/pose-analyze", content=PNG, headers={"content-type": content_type})
    error = check_error(response, 415, "unsupported_media_type")
    assert f"the content type {content_type.split(';')[0]} is not accepted; send application/json" in error["message"]


def test_pickles_are_not_accepted(client: httpx.Client) -> None:
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    check_error(client.post("/pose-analyze", content=b"cos\nsystem\n.", headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("form", ["PPM", "ICO", "EPS", "JPEG2000"])
def test_an_image_format_outside_the_list(client: httpx.Client, form: str) -> None:
    response = ask(client, "/pose-analyze", encoded(Image.new("RGB", (32, 32)), form))
    error = check_error(response, 415, "unsupported_media_type")
    assert "JPEG, PNG, WEBP, BMP, GIF, TIFF" in error["message"]


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/readyz", "/metrics", *ROUTES])
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
def test_another_method_is_not_allowed_and_the_right_one_named(client: httpx.Client, path: str, method: str) -> None:
    response = client.request(method, path)
    check_error(response, 405, "method_not_allowed")
    assert ("POST" if path in ROUTES else "GET") in response.headers["allow"]


def test_a_route_of_posts_has_nothing_to_get(client: httpx.Client) -> None:
    check_error(client.get("/pose-analyze"), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/nope", "/pose-analyze/x", "/healthy", "/../etc/passwd", "/assets/x.js"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_not_found(client: httpx.Client, path: str, method: str) -> None:
    check_error(client.request(method, path), 404, "not_found")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("colour", [fake.RAISES, fake.DROPS, fake.ADDS])
def test_an_engine_that_fails_is_an_internal_error(client: httpx.Client, route: str, colour: fake.Colour) -> None:
    check_error(ask(client, route, plain(colour)), 500, "internal")


@pytest.mark.parametrize("route", ["/person-reid", "/depth-estimate"])
def test_an_output_that_makes_no_sense_is_an_internal_error(client: httpx.Client, route: str) -> None:
    check_error(ask(client, route, plain(fake.NOT_FINITE)), 500, "internal")


def test_the_service_goes_on_after_each_of_these(client: httpx.Client) -> None:
    for route in ROUTES:
        assert ask(client, route, PNG).status_code == 200


@pytest.mark.parametrize("sent", ["camera-7:42", "4bf92f3577b34da6a3ce929d0e0e4736"])
def test_the_request_id_is_given_back(client: httpx.Client, sent: str) -> None:
    headers = {"x-request-id": sent, **JSON}
    good = client.post("/person-reid", content=json.dumps({"image": base64_of(PNG)}), headers=headers)
    assert (good.status_code, good.headers["x-request-id"]) == (200, sent)
    bad = client.post("/person-reid", content="{}", headers=headers)
    assert check_error(bad, 422, "invalid_request")["request_id"] == sent
    assert check_error(client.get("/nope", headers=headers), 404, "not_found")["request_id"] == sent


def test_each_request_without_an_id_gets_its_own(client: httpx.Client) -> None:
    ids = {ask(client, "/person-reid", PNG).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
