from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from api.errors import ApiError, ErrorCode
from api.request import ImageRequest, Received, is_accepted, media_type, parse

LIMIT = 1000
IMAGE = bytes(range(256))
BASE64 = base64.b64encode(IMAGE).decode()
IMAGE_TYPES = ("jpeg", "jpg", "pjpeg", "png", "webp", "bmp", "x-ms-bmp", "gif", "tiff")


def as_json(body: object) -> Received:
    return Received("application/json", json.dumps(body).encode(), {})


def as_form(*parts: tuple[str, str | bytes]) -> Received:
    """multipart/form-data: text fields for str values, file parts for bytes."""
    body = b""
    for name, value in parts:
        file = '; filename="x.bin"\r\nContent-Type: application/octet-stream' if isinstance(value, bytes) else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return Received("multipart/form-data; boundary=edge", body + b"--edge--\r\n", {})


def as_raw(body: bytes = IMAGE, content_type: str = "image/png", **query: str) -> Received:
    return Received(content_type, body, query)


def box_of(value: object) -> Any:
    return parse(as_json({"image": BASE64, "bbox": value}), LIMIT).box


def refusal(received: Received) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(received, LIMIT)
    return caught.value


@pytest.mark.parametrize("key", ["image", "image_base64"])
@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        f"data:image/jpeg;base64,{BASE64}",
        f"DATA:IMAGE/svg+xml;BASE64,{BASE64}",
        base64.encodebytes(IMAGE).decode(),
        f"  {BASE64[:100]}\r\n\t{BASE64[100:]}\n",
    ],
    ids=["plain", "data prefix", "any case", "line breaks", "white space"],
)
def test_the_image_of_a_json_body(key: str, text: str) -> None:
    assert parse(as_json({key: text}), LIMIT) == ImageRequest(IMAGE, None, None)


@pytest.mark.parametrize(
    "received",
    [
        as_form(("image", IMAGE)),
        as_form(("image_base64", BASE64)),
        as_form(("image", BASE64)),
        as_form(("other", "x"), ("image", IMAGE), ("note", b"file of another name")),
        as_raw(),
        *(as_raw(content_type=f"image/{kind}") for kind in IMAGE_TYPES),
        as_raw(content_type="IMAGE/PNG; charset=x"),
        Received("", json.dumps({"image": BASE64}).encode(), {}),
        Received("application/json; charset=utf-8", json.dumps({"image": BASE64}).encode(), {}),
        Received("application/json", json.dumps({"image": BASE64}).encode("utf-16"), {}),
        as_json({"image": BASE64, "image_base64": None}),
        as_json({"image": "", "image_base64": BASE64}),
        as_json({"image": BASE64, "detections": [1], "camera": {"id": 3}, "bbox": None, "min_confidence": None}),
    ],
)
def test_the_image_of_any_accepted_body(received: Received) -> None:
    assert parse(received, LIMIT) == ImageRequest(IMAGE, None, None)


@pytest.mark.parametrize(
    ("value", "box"),
    [
        ([1, 2, 30, 40], (1, 2, 30, 40)),
        ([1.5, 2, 30.25, 40], (1.5, 2, 30.25, 40)),
        ([-5, -5, 1e8, 1e8], (-5, -5, 1e8, 1e8)),
        ({"x": 1, "y": 2, "width": 29, "height": 38}, (1, 2, 30, 40)),
        ({"x1": 1, "y1": 2, "x2": 30, "y2": 40}, (1, 2, 30, 40)),
        ({"x": 1, "y": 2, "width": 3, "height": 4, "confidence": 0.9}, (1, 2, 4, 6)),
        (None, None),
    ],
)
def test_a_box_in_each_of_its_forms(value: object, box: tuple[float, ...] | None) -> None:
    assert box_of(value) == box


@pytest.mark.parametrize(
    "text", ["1,2,30,40", " 1, 2, 30, 40 ", "[1, 2, 30, 40]", '{"x1": 1, "y1": 2, "x2": 30, "y2": 40}']
)
def test_a_box_and_options_as_text(text: str) -> None:
    asked = ImageRequest(IMAGE, (1, 2, 30, 40), 0.5)
    assert parse(as_form(("image", IMAGE), ("bbox", text), ("min_confidence", "0.5")), LIMIT) == asked
    assert parse(as_raw(bbox=text, min_confidence="5e-1"), LIMIT) == asked


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_option_of_a_form_is_none(text: str) -> None:
    assert parse(as_form(("image", IMAGE), ("bbox", text), ("min_confidence", "")), LIMIT).box is None


@pytest.mark.parametrize("value", [0, 1, 0.25])
def test_min_confidence(value: float) -> None:
    assert parse(as_json({"image": BASE64, "min_confidence": value}), LIMIT).min_confidence == value


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [],
        {},
        7,
        True,
        "1,2,3",
        "left",
        "[1,2,3",
        "nan,nan,nan,nan",
        ["1", "2", "30", "40"],
        [1, 2, None, 40],
        [True, 2, 30, 40],
        [math.nan, 2, 30, 40],
        [1, 2, math.inf, 40],
        [1, 2, 10**10, 40],
        [1, 2, 10**400, 40],
        [1, 2, 1, 40],
        [30, 2, 1, 40],
        [1, 40, 30, 2],
        [[1], 2, 30, 40],
        {"x": 1, "y": 2, "width": 0, "height": 4},
        {"x": 1, "y": 2, "width": -3, "height": 4},
        {"x": 1, "y": 2, "width": "3", "height": 4},
        {"x": 1, "y": 2, "width": [3], "height": 4},
        {"x": 1, "y": 2, "width": 10**400, "height": 4},
        {"x1": 1, "y1": 2, "x2": 30},
        {"x": 1, "y": 2},
    ],
    ids=repr,
)
def test_a_bad_box_is_refused_with_its_name(value: object) -> None:
    error = refusal(as_json({"image": BASE64, "bbox": value}))
    assert (error.code, error.status) == ("invalid_request", 422)
    assert [detail["field"] for detail in error.details] == ["bbox"]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "high", "nan", True, [0.5], {}, 10**400])
def test_a_bad_min_confidence_is_refused_with_its_name(value: object) -> None:
    error = refusal(as_json({"image": BASE64, "min_confidence": value}))
    assert (error.code, error.status) == ("invalid_request", 422)
    assert [detail["field"] for detail in error.details] == ["min_confidence"]


@pytest.mark.parametrize(
    ("received", "field"),
    [
        (as_json({}), "image_base64"),
        (as_json({"image": None}), "image_base64"),
        (as_json({"image": "", "image_base64": ""}), "image_base64"),
        (as_json({"image": BASE64, "image_base64": BASE64}), "image_base64"),
        (as_json({"image": 5}), "image"),
        (as_json({"image_base64": [BASE64]}), "image_base64"),
        (as_json({"image_base64": {"data": BASE64}}), "image_base64"),
        (as_json({"image": " \n"}), "image"),
        (as_json({"image": "data:image/png;base64,"}), "image"),
        (as_form(("picture", IMAGE)), "image_base64"),
        (as_form(("image", IMAGE), ("image", IMAGE)), "image"),
        (as_form(("image", IMAGE), ("image", BASE64)), "image"),
        (as_form(("image", IMAGE), ("image_base64", BASE64)), "image_base64"),
        (as_form(("image", b"")), "image_base64"),
        (as_form(("image", IMAGE), ("bbox", b"1,2,30,40")), "bbox"),
        (as_form(("image", IMAGE), ("min_confidence", b"0.5")), "min_confidence"),
        (as_form(), "image_base64"),
        (as_raw(b""), "image_base64"),
        (as_raw(image_base64=BASE64), "image_base64"),
    ],
)
def test_a_missing_doubled_or_odd_field_is_named(received: Received, field: str) -> None:
    error = refusal(received)
    assert (error.code, error.status) == ("invalid_request", 422)
    assert [detail["field"] for detail in error.details] == [field]
    assert all(detail["message"] for detail in error.details)


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (Received("application/json", b"", {}), "invalid_json"),
        (Received("application/json", b"{", {}), "invalid_json"),
        (Received("application/json", b"\xff\xfe\xfd", {}), "invalid_json"),
        (Received("application/json", b'{"image": "\xff"}', {}), "invalid_json"),
        (Received("application/json", b"[" * 100_000, {}), "invalid_json"),
        (Received("application/json", b'{"bbox": ' + b"9" * 5000 + b"}", {}), "invalid_json"),
        (as_json([BASE64]), "invalid_request"),
        (as_json("text"), "invalid_request"),
        (as_json(None), "invalid_request"),
        (as_json({"image": "not base64!"}), "invalid_base64"),
        (as_json({"image": "abc"}), "invalid_base64"),
        (as_json({"image": "QUJD="}), "invalid_base64"),
        (as_json({"image": "Bär="}), "invalid_base64"),
        (as_json({"image": "\ud800"}), "invalid_base64"),
        (as_json({"image": f"data:text/plain;base64,{BASE64}"}), "invalid_base64"),
        (as_form(("image", "not base64!")), "invalid_base64"),
        (as_raw(bytes(LIMIT + 1)), "payload_too_large"),
        (as_json({"image": base64.b64encode(bytes(LIMIT + 1)).decode()}), "payload_too_large"),
        (as_form(("image", bytes(LIMIT + 1))), "payload_too_large"),
        (Received("multipart/form-data", b"--edge", {}), "invalid_request"),
        (Received("multipart/form-data; boundary=edge", b"no boundary here", {}), "invalid_request"),
        (Received("multipart/form-data; boundary=edge", b"--edge\r\nno header\r\n", {}), "invalid_request"),
        (Received("multipart/form-data; boundary=edge", as_form(("image", IMAGE)).body[:-40], {}), "invalid_request"),
        (as_raw(content_type="image/svg+xml"), "unsupported_media_type"),
        (as_raw(content_type="text/plain"), "unsupported_media_type"),
    ],
)
def test_a_body_that_cannot_be_read(received: Received, code: ErrorCode) -> None:
    assert refusal(received).code == code


def test_an_image_of_just_the_limit_is_taken() -> None:
    assert len(parse(as_raw(bytes(LIMIT)), LIMIT).image) == LIMIT
    assert len(parse(as_json({"image": base64.b64encode(bytes(LIMIT)).decode()}), LIMIT).image) == LIMIT


@pytest.mark.parametrize(
    "received",
    [
        Received("application/json", b'{"image": "c2VjcmV0", secret', {}),
        as_json({"image": "secret secret!"}),
        as_json({"image": BASE64, "bbox": ["secret"] * 4}),
        as_json({"image": BASE64, "min_confidence": "secret"}),
        as_form(("image", "secret!")),
        Received("multipart/form-data; boundary=edge", b"secret" * 100, {}),
        as_raw(bbox="secret"),
    ],
)
def test_nothing_of_the_body_is_echoed(received: Received) -> None:
    error = refusal(received)
    assert "secret" not in f"{error.message}{error.details}"


@pytest.mark.parametrize(
    ("content_type", "kind", "accepted"),
    [
        ("", "application/json", True),
        ("Application/JSON ; charset=utf-8", "application/json", True),
        ("multipart/form-data; boundary=x", "multipart/form-data", True),
        ("image/webp", "image/webp", True),
        ("image/svg+xml", "image/svg+xml", False),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded", False),
        ("application/vnd.bentoml+pickle", "application/vnd.bentoml+pickle", False),
        ("application/octet-stream", "application/octet-stream", False),
    ],
)
def test_content_types(content_type: str, kind: str, accepted: bool) -> None:
    assert media_type(content_type) == kind
    assert is_accepted(content_type) is accepted


def test_the_query_of_a_json_body_is_no_option() -> None:
    query: Mapping[str, str] = {"bbox": "1,2,30,40"}
    assert parse(Received("application/json", json.dumps({"image": BASE64}).encode(), query), LIMIT).box is None
