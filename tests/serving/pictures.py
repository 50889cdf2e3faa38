"""Encoded pictures for the fake engine, and requests of them."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.serving.fake import MARKER, Colour

ROUTES = ("/pose-analyze", "/threat-detect", "/person-reid", "/pet-classify", "/depth-estimate")
Corners = tuple[int, int, int, int]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def plain(colour: Colour, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, colour)


def marked(box: Corners, size: tuple[int, int], ground: Colour = (30, 30, 90)) -> Image.Image:
    """A picture in which the fake detectors see what lies inside box (left, top, right, bottom)."""
    image = plain(ground, size)
    image.paste(MARKER, box)
    return image


def ramp(size: tuple[int, int]) -> Image.Image:
    """Dark at the left, bright at the right: near at the right, for the fake depth."""
    width, height = size
    grey = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    return Image.fromarray(grey).convert("RGB")


def base64_of(image: Image.Image | bytes) -> str:
    return base64.b64encode(image if isinstance(image, bytes) else encoded(image)).decode()


def ask(client: httpx.Client, route: str, image: Image.Image | bytes, **options: Any) -> httpx.Response:
    return client.post(route, json={"image_base64": base64_of(image)} | options)


def answer(client: httpx.Client, route: str, image: Image.Image | bytes, **options: Any) -> dict[str, Any]:
    """The answer to a request that has to succeed."""
    response = ask(client, route, image, **options)
    assert response.status_code == 200, response.text
    body = response.json()
    assert isinstance(body, dict)
    return body


def check_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check an error against the contract's one shape, and that it gives nothing away; returns what is in it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert isinstance(error, dict)
    assert {"code", "message", "request_id"} <= set(error) <= {"code", "message", "request_id", "details"}
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) is (status in (429, 503))
    for leak in ("Traceback", "/work", "/tmp", "/home", "/secret", "site-packages", ".py", "0x"):
        assert leak not in response.text
    return error
