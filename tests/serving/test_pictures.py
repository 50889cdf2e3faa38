"""Annotated pictures and depth maps as files, with the engines in the API process and in one of their own."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving.pictures import base64_of, check_error, encoded, marked, plain, ramp
from tests.serving.server import Server

pytestmark = pytest.mark.serve
DRAWN = ("/pose-analyze", "/threat-detect", "/pet-classify")
PICTURE = encoded(marked((200, 100, 400, 400), (640, 480)))


@pytest.fixture(params=["embedded", "shared"])
def asked(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    if request.param == "embedded":
        yield request.getfixturevalue("client")
        return
    server: Server = request.getfixturevalue("shared_server")
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def opened(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert int(response.headers["content-length"]) == len(response.content)
    return Image.open(io.BytesIO(response.content))


@pytest.mark.parametrize("route", DRAWN)
def test_the_option_and_the_header_give_the_annotated_picture(asked: httpx.Client, route: str) -> None:
    headers = {"x-request-id": "mine", "x-correlation-id": "theirs"}
    by_option = asked.post(f"{route}?render=overlay", files={"image": PICTURE}, headers=headers)
    assert by_option.headers["content-type"] == "image/jpeg"
    assert (by_option.headers["x-request-id"], by_option.headers["x-correlation-id"]) == ("mine", "theirs")
    image = opened(by_option)
    assert (image.format, image.size) == ("JPEG", (640, 480))
    json_body = {"image_base64": base64_of(PICTURE), "render": "overlay"}
    assert opened(asked.post(route, json=json_body)).format == "JPEG"
    by_header = asked.post(route, content=PICTURE, headers={"accept": "image/png"})
    assert by_header.headers["content-type"] == "image/png"
    image = opened(by_header)
    before = np.asarray(Image.open(io.BytesIO(PICTURE)).convert("RGB"))
    assert image.size == (640, 480)
    assert 100 < (np.asarray(image) != before).any(axis=-1).sum() < 640 * 480 / 2
    said, answer = json.loads(image.info["Comment"]), asked.post(route, content=PICTURE).json()
    for each in (said, answer):
        each.pop("inference_time_ms")
    assert said == answer


def test_the_picture_is_upright(asked: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    turned = encoded(plain((9, 8, 7), (640, 480)), "JPEG", exif=exif)
    image = opened(asked.post("/threat-detect?render=overlay", content=turned, headers={"content-type": "image/jpeg"}))
    assert image.size == (480, 640)
    assert 0x0112 not in image.getexif()


def test_a_depth_map_is_a_picture_or_an_array(asked: httpx.Client) -> None:
    picture, route = encoded(ramp((640, 480))), "/depth-estimate"
    answer = asked.post(route, content=picture, headers={"accept": "*/*"}).json()
    png8 = asked.post(f"{route}?format=png8", content=picture)
    assert base64_of(png8.content) == answer["depth_map_base64"]
    assert asked.post(route, content=picture, headers={"accept": "image/png"}).content == png8.content
    npy = asked.post(f"{route}?format=npy", content=picture)
    assert npy.headers["content-type"] == "application/x-npy"
    floats = np.load(io.BytesIO(npy.content), allow_pickle=False)
    assert (floats.dtype, floats.shape) == (np.float32, (480, 640))
    png16 = np.asarray(opened(asked.post(route, json={"image": base64_of(picture), "format": "png16"})))
    assert np.abs(png16 / 65_535 - floats).max() <= 1 / 65_535
    coloured = opened(asked.post(route, files={"image": picture}, data={"colormap": "inferno", "bbox": "600,0,640,48"}))
    assert (coloured.mode, coloured.size) == ("RGB", (40, 48))


def test_errors_stay_json_whatever_is_accepted(asked: httpx.Client) -> None:
    headers = {"accept": "image/png"}
    wrong = asked.post("/pose-analyze?render=boxes", content=PICTURE, headers=headers)
    assert "overlay" in check_error(wrong, 422, "invalid_request")["message"]
    check_error(asked.post("/pose-analyze", content=b"\x89PNG\r\n\x1a\nno", headers=headers), 400, "invalid_image")
    check_error(asked.post("/person-reid?render=overlay", content=PICTURE), 422, "invalid_request")
    mixed = asked.post("/depth-estimate?format=npy&colormap=turbo", content=PICTURE)
    check_error(mixed, 422, "invalid_request")
