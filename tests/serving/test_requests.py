"""What comes in: every kind of body, box and picture that the contract accepts."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving.fake import colour_of
from tests.serving.pictures import ROUTES, answer, ask, base64_of, check_error, encoded, marked, plain

pytestmark = pytest.mark.serve

COLOUR = (200, 100, 50)
PNG = encoded(plain(COLOUR))


def colour_seen(response: httpx.Response) -> tuple[int, int, int]:
    assert response.status_code == 200, response.text
    return colour_of(response.json()["embedding"])


def seen(client: httpx.Client, image: Image.Image | bytes, **options: Any) -> tuple[int, int, int]:
    return colour_seen(ask(client, "/person-reid", image, **options))


def close(one: tuple[int, ...], other: tuple[int, ...], tolerance: int) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("key", ["image", "image_base64"])
def test_every_route_takes_both_keys(client: httpx.Client, route: str, key: str) -> None:
    response = client.post(route, json={key: base64_of(PNG)})
    assert response.status_code == 200, response.text
    assert response.json()["inference_time_ms"] > 0


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{base64_of(PNG)}",
        f"data:;name=a.png;base64,{quote(base64_of(PNG), safe='')}",
        f"data:image/png,{quote(PNG, safe='')}",
        base64.encodebytes(PNG).decode(),
        base64_of(PNG) + "\n",
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
    ],
    ids=["data prefix", "percent-encoded", "no base64", "line breaks", "trailing line break", "URL-safe"],
)
def test_base64_as_clients_send_it(client: httpx.Client, text: str) -> None:
    assert colour_seen(client.post("/person-reid", json={"image": text})) == COLOUR


def test_unknown_keys_are_ignored(client: httpx.Client) -> None:
    # The backend sends keys that are meant for the heavy service.
    extra = {"detection_id": 7, "options": {"deep": [1, 2]}, "bbox": None, "frames": []}
    assert seen(client, PNG, **extra) == COLOUR


def test_json_without_a_content_type_is_json(client: httpx.Client) -> None:
    response = client.post("/person-reid", content=json.dumps({"image": base64_of(PNG)}).encode())
    assert "content-type" not in response.request.headers
    assert colour_seen(response) == COLOUR


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_takes_a_file_of_a_form(client: httpx.Client, route: str) -> None:
    response = client.post(route, files={"image": ("camera.png", PNG, "image/png")}, data={"camera": "door"})
    assert response.status_code == 200, response.text


def test_the_options_of_a_form_are_text_fields(client: httpx.Client) -> None:
    image = encoded(halves())
    for box in ("[0, 0, 30, 48]", "0,0,30,48", '{"x": 0, "y": 0, "width": 30, "height": 48}'):
        response = client.post("/person-reid", files={"image": image}, data={"bbox": box, "min_confidence": "0.5"})
        assert colour_seen(response) == LEFT


def test_a_form_may_hold_base64_text(client: httpx.Client) -> None:
    note = {"note": ("note.txt", b"of no interest")}
    response = client.post("/person-reid", data={"image_base64": base64_of(PNG)}, files=note)
    assert colour_seen(response) == COLOUR


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_takes_the_image_itself(client: httpx.Client, route: str) -> None:
    response = client.post(route, content=PNG, headers={"content-type": "image/png"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_image_itself_with_options_in_the_query(client: httpx.Client, form: str) -> None:
    headers = {"content-type": f"image/{form.lower()}"}
    body = encoded(halves(), form)
    response = client.post("/person-reid?bbox=34,0,64,48&min_confidence=0.5", content=body, headers=headers)
    assert close(colour_seen(response), RIGHT, 12)


def test_the_content_type_of_an_image_need_not_be_its_format(client: httpx.Client) -> None:
    response = client.post("/person-reid", content=PNG, headers={"content-type": "image/jpeg"})
    assert colour_seen(response) == COLOUR


# ── what real callers send ──


@pytest.mark.parametrize("content_type", ["application/octet-stream", "binary/octet-stream", "image/*", None])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_image_itself_without_a_type_that_says_so(
    client: httpx.Client, content_type: str | None, form: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = client.post("/person-reid?bbox=34,0,64,48", content=encoded(halves(), form), headers=headers)
    assert close(colour_seen(response), RIGHT, 12)


URLENCODED = {"content-type": "application/x-www-form-urlencoded"}


def test_a_urlencoded_form(client: httpx.Client) -> None:
    text = base64_of(encoded(halves()))
    assert "+" in text
    options = {"bbox": "0,0,30,48", "min_confidence": "null", "min_keypoint_confidence": "0.5", "image": "null"}
    assert colour_seen(client.post("/person-reid", data={"image_base64": text, **options})) == LEFT
    assert colour_seen(client.post("/person-reid", data={"image": json.dumps(text), "bbox": [34, 0, 64, 48]})) == RIGHT
    unescaped = f"bbox=0,0,30,48&image={text}"
    assert colour_seen(client.post("/person-reid", content=unescaped, headers=URLENCODED)) == LEFT


def test_what_curl_sends_as_a_form_without_being_told_a_type(client: httpx.Client) -> None:
    body = json.dumps({"image": base64_of(PNG)})
    assert colour_seen(client.post("/person-reid", content=body, headers=URLENCODED)) == COLOUR
    assert colour_seen(client.post("/person-reid", content=PNG, headers=URLENCODED)) == COLOUR
    stripped = client.post("/person-reid", content=PNG.translate(None, b"\0\r\n"), headers=URLENCODED)
    assert "--data-binary" in check_error(stripped, 400, "invalid_image")["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body(client: httpx.Client, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    body = compress(json.dumps({"image": base64_of(PNG)}).encode())
    assert colour_seen(client.post("/person-reid", content=body, headers=headers)) == COLOUR
    check_error(client.post("/person-reid", content=body[:-9], headers=headers), 400, "invalid_encoding")


def test_a_compressed_bomb_is_refused_and_other_codings_are_named(client: httpx.Client) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    bomb = gzip.compress(bytes(200_000_000), 9)
    check_error(client.post("/person-reid", content=bomb, headers=headers), 413, "payload_too_large")
    response = client.post("/person-reid", content=PNG, headers={"content-encoding": "br"})
    assert "send gzip, deflate or none" in check_error(response, 415, "unsupported_media_type")["message"]


FORM = {"content-type": 'multipart/form-data; boundary="a b"'}
PART = b'--a b\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: image/png\r\n\r\n' + PNG


@pytest.mark.parametrize(
    "body",
    [
        PART + b"\r\n--a b--\r\n",
        PART,
        PART.replace(b'name="image"', b'name="upload"; filename="a.png"') + b"\r\n--a b--",
        b"A preamble.\r\n" + PART + b"\r\n--a b--\r\nAn epilogue.",
        PART[: -len(PNG)].replace(b"\r\n", b"\n") + PNG + b"\n--a b--\n",
        PART[: -len(PNG)].removesuffix(b"\r\n")
        + b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(PNG)
        + b"--a b--",
    ],
    ids=["no file name", "no closing boundary", "another name", "preamble", "LF", "base64"],
)
def test_forms_as_real_clients_write_them(client: httpx.Client, body: bytes) -> None:
    assert colour_seen(client.post("/person-reid", content=body, headers=FORM)) == COLOUR


def test_a_form_whose_image_is_cut_off_is_an_invalid_image(client: httpx.Client) -> None:
    noise = encoded(Image.effect_noise((64, 48), 80))
    body = PART.removesuffix(PNG) + noise[: len(noise) // 2]
    check_error(client.post("/person-reid", content=body, headers=FORM), 400, "invalid_image")


def test_several_files_are_refused_by_name(client: httpx.Client) -> None:
    response = client.post("/person-reid", files={"left": ("a.png", PNG), "right": ("b.png", PNG)})
    assert "(left, right)" in check_error(response, 422, "invalid_request")["message"]


def test_options_of_the_query_beside_a_form_and_json(client: httpx.Client) -> None:
    image = encoded(halves())
    for box in ("0,0,30,48", "[0, 0, 30, 48]"):
        route = f"/person-reid?bbox={box}&min_confidence=0.5"
        assert colour_seen(client.post(route, files={"image": image})) == LEFT
        assert colour_seen(client.post(route, json={"image": base64_of(image), "bbox": [0, 0, 30, 48]})) == LEFT
        contradiction = client.post(route, json={"image": base64_of(image), "bbox": [0, 0, 31, 48]})
        error = check_error(contradiction, 422, "invalid_request")
        assert "the body says [0, 0, 31, 48], the query string [0, 0, 30, 48]" in error["message"]
    repeated = {"bbox": [34, 0, 64, 48]}
    assert colour_seen(client.post("/person-reid", params=repeated, files={"image": image})) == RIGHT


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
def test_json_in_other_encodings(client: httpx.Client, encoding: str, headers: dict[str, str]) -> None:
    body = json.dumps({"image": base64_of(PNG)}).encode(encoding)
    assert colour_seen(client.post("/person-reid", content=body, headers=headers)) == COLOUR


# ── boxes ──

LEFT, RIGHT = (250, 20, 20), (20, 20, 250)


def halves() -> Image.Image:
    """64×48: left half of one colour, right half of another."""
    image = plain(LEFT)
    image.paste(RIGHT, (32, 0, 64, 48))
    return image


@pytest.mark.parametrize(
    ("box", "colour"),
    [
        ([0, 0, 32, 48], LEFT),
        ([32.0, 0.5, 64, 47.5], RIGHT),
        ({"x": 40, "y": 4, "width": 10, "height": 10}, RIGHT),
        ({"x1": 4, "y1": 4, "x2": 10, "y2": 10}, LEFT),
        ([-100, -100, 20, 20], LEFT),
        ([40, -5, 1e6, 1e6], RIGHT),
        ([63.5, 47.5, 70, 70], RIGHT),
        ("0,0,32,48", LEFT),
        (["0", "0", "32", "48"], LEFT),
        ({"left": 40, "top": 4, "width": 10, "height": 10}, RIGHT),
        ({"x_min": 4, "y_min": 4, "x_max": 10, "y_max": 10}, LEFT),
    ],
)
def test_a_box_is_what_is_looked_at(client: httpx.Client, box: object, colour: tuple[int, int, int]) -> None:
    assert seen(client, halves(), bbox=box) == colour


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "box", ["[64, 0, 70, 48]", "[0, -10, 64, 0]", "[500, 500, 600, 600]"], ids=["beside", "above", "far off"]
)
def test_a_box_outside_is_refused_on_every_route(client: httpx.Client, route: str, box: str) -> None:
    error = check_error(ask(client, route, halves(), bbox=json.loads(box)), 422, "invalid_request")
    assert [detail["field"] for detail in error["details"]] == ["bbox"]


@pytest.mark.parametrize(
    "box",
    [
        "[30, 0, 10, 48]",
        "[0, 40, 64, 10]",
        "[5, 5, 5, 5]",
        "[0, 0, 64]",
        '["x1", "y1", "x2", "y2"]',
        "[[0, 0, 64, 48]]",
        "[0.1, 0.1, 0.9, 0.9]",
        '{"x": 0, "y": 0, "width": 1, "height": 1}',
        "[true, 0, 64, 48]",
        "[NaN, 0, 64, 48]",
        "[0, 0, Infinity, 48]",
        "[0, 0, 1e400, 48]",
        f"[0, 0, {'9' * 400}, 48]",
        '{"x": 0, "y": 0, "width": -4, "height": 4}',
        '{"left": 0}',
        '"left"',
        "7",
        "false",
    ],
)
def test_a_bad_box_is_refused_and_named(client: httpx.Client, box: str) -> None:
    body = f'{{"image": "{base64_of(PNG)}", "bbox": {box}}}'
    response = client.post("/person-reid", content=body, headers={"content-type": "application/json"})
    error = check_error(response, 422, "invalid_request")
    assert [detail["field"] for detail in error["details"]] == ["bbox"]


def test_a_box_is_in_pixels_of_the_upright_image(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter: what is left in the file is above when upright
    image = encoded(halves(), exif=exif)
    assert seen(client, image, bbox=[0, 0, 48, 32]) == LEFT
    assert seen(client, image, bbox=[0, 32, 48, 64]) == RIGHT


# ── pictures ──


@pytest.mark.parametrize(
    ("image", "form", "colour", "tolerance"),
    [
        (plain(COLOUR), "JPEG", COLOUR, 3),
        (plain(COLOUR), "WEBP", COLOUR, 6),
        (plain(COLOUR), "BMP", COLOUR, 0),
        (plain(COLOUR), "GIF", COLOUR, 0),
        (plain(COLOUR), "TIFF", COLOUR, 0),
        (Image.new("L", (64, 48), 90), "PNG", (90, 90, 90), 0),
        (Image.new("L", (64, 48), 90), "JPEG", (90, 90, 90), 1),
        (Image.new("LA", (64, 48), (90, 51)), "PNG", (222, 222, 222), 0),  # a fifth of 90 on white
        (Image.new("RGBA", (64, 48), (*COLOUR, 0)), "PNG", (255, 255, 255), 0),
        (plain(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", COLOUR, 0),
        (Image.new("1", (64, 48), 1), "PNG", (255, 255, 255), 0),
        (Image.new("CMYK", (64, 48), (255, 0, 0, 0)), "JPEG", (0, 255, 255), 2),
        (Image.fromarray(np.full((48, 64), 0x4000, np.uint16)), "PNG", (64, 64, 64), 0),
        (Image.fromarray(np.full((48, 64), 0x4000, np.uint16)), "TIFF", (64, 64, 64), 0),
        (plain(COLOUR, (1, 1)), "PNG", COLOUR, 0),
        (plain(COLOUR, (1, 3000)), "PNG", COLOUR, 0),
        (plain(COLOUR, (3000, 1)), "PNG", COLOUR, 0),
    ],
    ids=lambda value: f"{value.mode}{value.size}" if isinstance(value, Image.Image) else str(value),
)
def test_every_format_and_mode_has_its_right_colours(
    client: httpx.Client, image: Image.Image, form: str, colour: tuple[int, int, int], tolerance: int
) -> None:
    found = seen(client, encoded(image, form))
    assert close(found, colour, tolerance), found


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 1), (4000, 31)])
def test_every_route_answers_on_extreme_shapes(client: httpx.Client, route: str, size: tuple[int, int]) -> None:
    body = answer(client, route, plain(COLOUR, size))
    assert body["inference_time_ms"] < 20_000


def test_exif_orientation_is_applied(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = encoded(marked((10, 20, 60, 100), (320, 240)), exif=exif)
    (person,) = answer(client, "/pose-analyze", sideways)["persons"]
    # Turned clockwise by a quarter: x = 240 - y, y = x.
    assert person["bbox"] == pytest.approx({"x": 140, "y": 10, "width": 80, "height": 50}, abs=1.5)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file_is_an_invalid_image(client: httpx.Client, form: str) -> None:
    whole = encoded(Image.effect_noise((64, 48), 80), form)
    check_error(ask(client, "/person-reid", whole[: len(whole) // 2]), 400, "invalid_image")
