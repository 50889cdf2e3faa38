from __future__ import annotations

import base64
import io
import json
import math
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import pytest
from PIL import Image

from api.errors import ErrorCode
from api.request import ImageRequest, Received, parse
from tests.api.bodies import (
    BASE64,
    IMAGE,
    LIMIT,
    SECRET,
    as_form,
    as_json,
    as_raw,
    as_urlencoded,
    read,
    refusal,
    refused_field,
)

IMAGE_TYPES = ("jpeg", "jpg", "pjpeg", "png", "webp", "bmp", "x-ms-bmp", "gif", "tiff", "*")
# An image whose base64 has `+` and `/` in it, as that of every larger one.
LARGER = bytes([251, 255, 190, 0, *range(256)])
PLUS = base64.b64encode(LARGER).decode()


def as_text(body: dict[str, Any], encoding: str, content_type: str = "application/json") -> Received:
    return Received(content_type, json.dumps(body).encode(encoding), {})


@pytest.mark.parametrize("key", ["image", "image_base64"])
@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        f"data:image/jpeg;base64,{BASE64}",
        f"DATA:IMAGE/svg+xml;BASE64,{BASE64}",
        base64.encodebytes(IMAGE).decode(),
        base64.urlsafe_b64encode(IMAGE).decode().rstrip("="),
        f"  {BASE64[:100]}\r\n\t{BASE64[100:]}\n",
    ],
    ids=["plain", "data prefix", "any case", "line breaks", "URL-safe", "white space"],
)
def test_the_image_of_a_json_body(key: str, text: str) -> None:
    assert read(as_json({key: text})) == ImageRequest(IMAGE, None, None, None)


@pytest.mark.parametrize(
    "received",
    [
        as_form(("image", IMAGE)),
        as_form(("image_base64", BASE64)),
        as_form(("image", BASE64)),
        as_form(("other", "x"), ("image", IMAGE), ("note", b"file of another name")),
        as_form(("picture", IMAGE)),
        as_form(("image", "null"), ("image_base64", BASE64), ("bbox", "null"), ("min_confidence", "None")),
        as_raw(),
        *(as_raw(content_type=f"image/{kind}") for kind in IMAGE_TYPES),
        as_raw(content_type="IMAGE/PNG; charset=x"),
        *(as_raw(content_type=kind) for kind in ("", "application/octet-stream", "binary/octet-stream", "*/*")),
        as_json({"image": BASE64, "image_base64": None}),
        as_json({"image": "", "image_base64": BASE64}),
        as_json({"image": BASE64, "image_base64": ""}),
        as_json({"image": "null", "image_base64": BASE64}),
        as_json({"image": BASE64, "detections": [1], "camera": {"id": 3}, "bbox": None, "min_confidence": None}),
        *(as_text({"image": BASE64}, "utf-8", kind) for kind in ("", "application/json; charset=utf-8", "text/json")),
        *(as_text({"image": BASE64}, "utf-8", f"application/{kind}") for kind in ("problem+json", "octet-stream")),
        as_text({"image": BASE64}, "utf-8", "application/x-www-form-urlencoded"),
        *(as_text({"image": BASE64}, encoding) for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32")),
        *(as_text({"image": BASE64}, encoding, "") for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32")),
        Received("application/json", b'{"image": "%s", "other": NaN, "other": 1}' % BASE64.encode(), {}),
    ],
)
def test_the_image_of_any_accepted_body(received: Received) -> None:
    assert read(received) == ImageRequest(IMAGE, None, None, None)


# ── urlencoded forms ──


@pytest.mark.parametrize(
    "value",
    [
        quote_plus(PLUS),
        quote(PLUS),
        PLUS,
        PLUS.replace("=", "%3D"),
        "data:image/jpeg;base64," + PLUS,
        quote_plus("data:image/jpeg;base64," + PLUS),
        quote_plus("data:image/jpeg;base64,") + PLUS,
        quote_plus(" ".join([PLUS[:40], PLUS[40:]])),
        quote_plus(base64.encodebytes(LARGER)),
        quote_plus(f'"{PLUS}"'),
        quote_plus(LARGER),
        quote(LARGER, safe=""),
        quote_plus(base64.urlsafe_b64encode(LARGER)),
    ],
    ids=[
        *("escaped", "escaped but /", "not escaped", "padding escaped", "data URL", "escaped data URL"),
        *("escaped head", "a space", "line breaks", "quotation marks", "bytes", "bytes with %20", "URL-safe"),
    ],
)
@pytest.mark.parametrize("key", ["image", "image_base64"])
def test_the_image_of_a_urlencoded_form(key: str, value: str) -> None:
    assert "+" in PLUS
    assert "/" in PLUS
    asked = read(as_urlencoded(f"camera=T%C3%BCr+1&{key}={value}&bbox=1%2C2%2C30%2C40&min_confidence=0.5&flag"))
    assert asked == ImageRequest(LARGER, (1, 2, 30, 40), 0.5, None)


@pytest.mark.parametrize("image", [BASE64, f"data:image/png;base64,{BASE64}", f" {BASE64}\n"])
@pytest.mark.parametrize("box", [[1, 2, 30, 40], {"x": 1, "y": 2, "width": 29, "height": 38}, "1,2,30,40"])
def test_a_form_of_bentomls_client(image: str, box: object) -> None:
    # It writes each value as JSON where the schema has a file.
    fields = {"image_base64": image, "image": None, "bbox": box, "min_confidence": None}
    texts = {name: json.dumps(value) for name, value in fields.items()}
    asked = ImageRequest(IMAGE, (1, 2, 30, 40), None, None)
    assert read(as_urlencoded(urlencode(texts))) == asked
    sent = httpx.Request("POST", "http://test", data=texts)
    assert read(Received(sent.headers["content-type"], sent.read(), {})) == asked
    with_file = httpx.Request("POST", "http://test", data=texts, files={"other": ("note.txt", b"x", "text/plain")})
    assert read(Received(with_file.headers["content-type"], with_file.read(), {})) == asked


def picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((20, 20), 60).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_that_curl_sends_as_a_form(form: str) -> None:
    body = picture(form)
    assert parse(as_urlencoded(body), 10_000).image == body  # curl --data-binary @FILE
    stripped = body.translate(None, b"\0\r\n")  # curl -d @FILE
    error = refusal(as_urlencoded(stripped))
    assert (error.code, error.status) == ("invalid_image", 400)
    assert "`curl -d` damages files: send -F image=@FILE, or --data-binary @FILE" in error.message


def test_a_form_of_very_many_fields_is_refused() -> None:
    error = refusal(as_urlencoded("&" * 1_000_000))
    assert (error.code, error.message) == (
        "invalid_request",
        "the form has over 1000 fields; at most these are accepted",
    )


# ── options ──


def test_a_member_of_thousands_of_digits_is_refused() -> None:
    member = {f"bbox[{'1' * 5000}]": "1"}  # int() raises ValueError for so many
    for received in (as_urlencoded(urlencode({"image": BASE64, **member})), Received("image/png", IMAGE, member)):
        field, message = refused_field(received)
        assert (field, message.endswith("send bbox as one field")) == ("bbox", True)


MEMBERS = [
    {"bbox[0]": "1", "bbox[1]": "2", "bbox[2]": "30", "bbox[3]": "40"},  # PHP's http_build_query, qs
    {"bbox[3]": "40", "bbox[0]": "1", "bbox[2]": "30", "bbox[1]": "2"},
    {"bbox[x]": "1", "bbox[y]": "2", "bbox[width]": "29", "bbox[height]": "38"},  # jQuery, axios
    {"bbox[x1]": "1", "bbox[y1]": "2", "bbox[x2]": "30", "bbox[y2]": "40"},
]


@pytest.mark.parametrize("members", MEMBERS)
def test_a_box_may_come_in_parts(members: dict[str, str]) -> None:
    for received in (
        as_form(("image", IMAGE), *members.items()),
        as_urlencoded(urlencode({"image": BASE64, **members})),
        Received("image/png", IMAGE, members),
    ):
        assert read(received).box == (1, 2, 30, 40)


def test_an_image_may_have_a_number_and_its_other_members_are_unknown_fields() -> None:
    assert read(as_form(("image[0]", IMAGE))).image == IMAGE
    assert read(as_form(("image", IMAGE), ("image[width]", "300"))).image == IMAGE
    assert read(as_form(("photo", IMAGE), ("image[width]", "300"))).image == IMAGE
    assert refused_field(as_form(("image[0]", IMAGE), ("image[1]", IMAGE)))[0] == "image"


@pytest.mark.parametrize(
    ("members", "field", "said"),
    [
        ([("bbox[0]", "1"), ("bbox[0]", "2")], "bbox", "bbox[0] was received twice"),
        ([("bbox[0]", "1"), ("bbox", "1,2,3,4")], "bbox", "received 2 times"),
        ([("bbox[0]", "1"), ("bbox[x]", "1")], "bbox", "too few of the known keys"),
        ([("bbox[0][0]", "1")], "bbox", "bbox[0][0] was received; send bbox as one field"),
        ([("bbox[0", "1")], "bbox", "bbox[0 was received"),
        ([("min_confidence[0]", "1")], "min_confidence", "send min_confidence as one field"),
    ],
)
def test_other_parts_of_an_option_are_refused(members: list[tuple[str, str]], field: str, said: str) -> None:
    found, message = refused_field(as_form(("image", IMAGE), *members))
    assert (found, said in message) == (field, True), message


OPTIONS = [
    ({"min_confidence": 0.5}, ImageRequest(IMAGE, None, 0.5, None)),
    ({"min_keypoint_confidence": 0.3}, ImageRequest(IMAGE, None, None, 0.3)),
    ({"min_confidence": 0, "min_keypoint_confidence": 1}, ImageRequest(IMAGE, None, 0, 1)),
    ({"min_confidence": "5e-1", "min_keypoint_confidence": " .25 "}, ImageRequest(IMAGE, None, 0.5, 0.25)),
    ({"bbox": "1,2,30,40", "min_keypoint_confidence": "null"}, ImageRequest(IMAGE, (1, 2, 30, 40), None, None)),
    ({"min_confidence": "", "min_keypoint_confidence": "None"}, ImageRequest(IMAGE, None, None, None)),
]


@pytest.mark.parametrize(("options", "asked"), OPTIONS)
def test_options_of_each_kind_of_body_and_of_the_query(options: dict[str, Any], asked: ImageRequest) -> None:
    texts = {name: str(value) for name, value in options.items()}
    assert read(as_json({"image": BASE64, **options})) == asked
    assert read(as_form(("image", IMAGE), *texts.items())) == asked
    assert read(as_urlencoded(urlencode({"image": BASE64, **texts}))) == asked
    assert read(Received("image/png", IMAGE, texts)) == asked
    assert read(as_json({"image": BASE64}, **texts)) == asked
    assert read(as_form(("image", IMAGE), **texts)) == asked
    assert read(as_urlencoded(urlencode({"image": BASE64}), **texts)) == asked


@pytest.mark.parametrize("name", ["min_confidence", "min_keypoint_confidence"])
@pytest.mark.parametrize("value", [-0.1, 1.1, 50, math.nan, "high", "nan", "50%", True, [0.5], {}, 10**400, "0_1"])
def test_a_bad_fraction_is_refused_with_its_name(name: str, value: object) -> None:
    field, message = refused_field(as_json({"image": BASE64, name: value}))
    assert field == name
    assert message.startswith("must be a number from 0 to 1; ")
    assert " was received" in message


def test_percent_are_explained() -> None:
    _, message = refused_field(as_raw(min_confidence="50"))
    assert message == "must be a number from 0 to 1; 50 was received; 50 percent are 0.5"


@pytest.mark.parametrize(
    ("in_query", "in_body"),
    [
        ({"bbox": "1,2,30,40"}, {"bbox": "1, 2, 30, 40.0"}),
        ({"bbox": "1,2,30,40"}, {"bbox": '{"x": 1, "y": 2, "width": 29, "height": 38}'}),
        ({"bbox": "1,2,30,40", "min_confidence": "0.5"}, {"bbox": "1,2,30,40", "min_confidence": ".50"}),
        ({"bbox": ["1", "2", "30", "40"]}, {"bbox": "null"}),
    ],
)
def test_the_same_option_may_stand_in_query_and_body(in_query: dict[str, Any], in_body: dict[str, str]) -> None:
    for received in (
        as_form(("image", IMAGE), *in_body.items(), **in_query),
        as_json({"image": BASE64, **in_body}, **in_query),
        as_urlencoded(urlencode({"image": BASE64, **in_body}), **in_query),
    ):
        assert read(received).box == (1, 2, 30, 40)


@pytest.mark.parametrize(
    ("name", "in_query", "in_body", "said"),
    [
        ("bbox", "1,2,30,41", "1,2,30,40", "the body says [1, 2, 30, 40], the query string [1, 2, 30, 41]"),
        ("min_confidence", "0.4", "0", "the body says 0, the query string 0.4"),
        ("min_keypoint_confidence", "0.4", "0.5", "the body says 0.5, the query string 0.4"),
    ],
)
def test_a_contradiction_of_query_and_body_is_refused(name: str, in_query: str, in_body: str, said: str) -> None:
    for received in (
        as_form(("image", IMAGE), (name, in_body), **{name: in_query}),
        as_json({"image": BASE64, name: in_body}, **{name: in_query}),
    ):
        field, message = refused_field(received)
        assert field == name
        assert said in message


def test_a_bad_option_of_the_query_is_refused_beside_a_body() -> None:
    assert refused_field(as_form(("image", IMAGE), min_confidence="2"))[0] == "min_confidence"
    assert refused_field(as_json({"image": BASE64, "bbox": [1, 2, 30, 40]}, bbox="0,0,1,1"))[0] == "bbox"
    assert refused_field(as_raw(min_confidence=["0.4", "0.5"])) == (
        "min_confidence",
        "received 2 times; send exactly one",
    )


@pytest.mark.parametrize("received", [as_raw(image_base64=BASE64), as_json({}, image=BASE64), as_raw(b"", image="x")])
def test_no_image_in_the_query(received: Received) -> None:
    assert refused_field(received)[1] == "received in the query string; send the image in the body"


# ── refusals ──


@pytest.mark.parametrize(
    ("received", "field", "said"),
    [
        (as_json({}), "image_base64", "missing"),
        (as_json({"image": None}), "image_base64", "missing"),
        (as_json({"image": "", "image_base64": ""}), "image_base64", "missing"),
        (as_json({"image": " \n"}), "image_base64", "missing"),
        (as_json({"image": BASE64, "image_base64": BASE64}), "image_base64", "received beside `image`"),
        (as_json({"image": 5}), "image", "must be a text of base64; 5 was received"),
        (as_json({"image": False}), "image", "must be a text of base64; false was received"),
        (as_json({"image": list(IMAGE)}), "image", "a list of length 256 was received"),
        (as_json({"image_base64": [BASE64]}), "image_base64", "a list of length 1 was received"),
        (as_json({"image_base64": {"data": BASE64}}), "image_base64", "an object of size 1 was received"),
        (as_json({"image": {"type": "Buffer", "data": [1, 2]}}), "image", "an object of size 2 was received"),
        (as_json({"image": "data:image/png;base64,"}), "image", "holds no bytes"),
        (Received("", b'{"image": "QUJD", "image": "QUJD"}', {}), "image", "received 2 times"),
        (Received("", b'{"image": "QUJD", "bbox": [1, 2, 3, 4], "bbox": [5, 6, 7, 8]}', {}), "bbox", "received 2"),
        (as_form(("image", IMAGE), ("image", IMAGE)), "image", "received 2 times"),
        (as_form(("image", IMAGE), ("image", BASE64)), "image", "received 2 times"),
        (as_form(("image", IMAGE), ("image_base64", BASE64)), "image_base64", "received beside `image`"),
        (as_form(("image", b"")), "image_base64", "missing"),
        (as_form(("image", IMAGE), ("min_confidence", b"0.5\0")), "min_confidence", "a file of 4 bytes was received"),
        (as_form(), "image_base64", "missing"),
        (as_urlencoded(""), "image_base64", "missing"),
        (as_urlencoded(f"image={quote_plus(BASE64)}&image={quote_plus(BASE64)}"), "image", "received 2 times"),
        (as_raw(b""), "image_base64", "missing"),
        (as_raw(b"", "application/octet-stream"), "image_base64", "missing"),
    ],
)
def test_a_missing_doubled_or_odd_field_is_named(received: Received, field: str, said: str) -> None:
    name, message = refused_field(received)
    assert name == field
    assert said in message


@pytest.mark.parametrize(
    ("received", "code", "said"),
    [
        (Received("application/json", b"", {}), "invalid_json", "the body is empty; send"),
        (Received("", b"", {}), "invalid_json", "the body is empty; send"),
        (Received("application/json", b"{", {}), "invalid_json", "position 1"),
        (Received("application/json", f'{{"image": "{SECRET}"'.encode(), {}), "invalid_json", 'send {"image_base64"'),
        (Received("", b"image=abc", {}), "invalid_json", "the body of 9 bytes is not JSON"),
        (Received("application/json", b"\xff\xfe\xfd", {}), "invalid_json", "not JSON in UTF-8"),
        (Received("application/json", picture("JPEG"), {}), "invalid_json", "binary data: send an image with"),
        (Received("application/json", b'{"image": "\xff"}', {}), "invalid_json", "byte 11"),
        (Received("application/json", b"[" * 15_000, {}), "invalid_json", "is not JSON"),
        (Received("application/json", b"[" * 100_000, {}), "invalid_request", "100000 commas and brackets"),
        (Received("application/json", b'{"bbox": ' + b"9" * 5000 + b"}", {}), "invalid_json", "is not JSON"),
        (as_json([BASE64]), "invalid_request", "must be a JSON object; a list of length 1 was received"),
        (as_json(SECRET), "invalid_request", f"must be a JSON object; a text of length {len(SECRET)}"),
        (as_json(None), "invalid_request", "must be a JSON object; null was received"),
        (as_json({"image": "not base64!"}), "invalid_base64", "a punctuation mark was received as character 11"),
        (as_json({"image": "abcde"}), "invalid_base64", "one over a multiple of four"),
        (as_json({"image": "Bär="}), "invalid_base64", "outside ASCII"),
        (as_json({"image": f"data:text/plain;base64,{BASE64}"}), "unsupported_media_type", "text/plain"),
        (as_json({"image": f"http://{SECRET}/a.jpg"}), "invalid_base64", "the service fetches nothing"),
        (as_form(("image", f"{SECRET}!")), "invalid_base64", "a punctuation mark"),
        (as_raw(bytes(LIMIT + 1)), "payload_too_large", "the image has 1001 bytes; at most 1000"),
        (as_raw(bytes(LIMIT + 1), ""), "payload_too_large", "1001"),
        (as_json({"image": base64.b64encode(bytes(LIMIT + 1)).decode()}), "payload_too_large", "1001"),
        (as_form(("image", bytes(LIMIT + 1))), "payload_too_large", "1001"),
        (as_raw(content_type="image/svg+xml"), "unsupported_media_type", "image/svg+xml is not accepted; send app"),
        (as_raw(content_type="text/plain"), "unsupported_media_type", "text/plain is not accepted; send app"),
        (Received("image/png", IMAGE, {}, "br"), "unsupported_media_type", "send gzip, deflate or none"),
    ],
)
def test_a_body_that_cannot_be_read(received: Received, code: ErrorCode, said: str) -> None:
    error = refusal(received)
    assert error.code == code
    assert said in error.message


def test_an_image_of_just_the_limit_is_taken() -> None:
    image = bytes(LIMIT)
    text = base64.b64encode(image).decode()
    for received in (
        as_raw(image),
        as_form(("image", image)),
        as_json({"image": text}),
        as_urlencoded(f"image={text}"),
    ):
        assert len(read(received).image) == LIMIT


@pytest.mark.parametrize(
    "received",
    [
        Received("application/json", f'{{"image": "c2VjcmV0", {SECRET}'.encode(), {}),
        as_json({"image": f"{SECRET} {SECRET}!"}),
        as_json({"image": BASE64, "bbox": [SECRET] * 4}),
        as_json({"image": BASE64, "bbox": {SECRET: [SECRET]}}),
        as_json({"image": BASE64, "min_confidence": SECRET}),
        as_json({"image": BASE64, "min_confidence": {SECRET: 1}}),
        as_json({"image": {SECRET: SECRET}}),
        as_form(("image", f"{SECRET}!")),
        as_form(("image", IMAGE), ("bbox", SECRET)),
        as_urlencoded(f"image={SECRET}!"),
        Received("multipart/form-data; boundary=edge", SECRET.encode() * 100, {}),
        as_raw(bbox=SECRET),
    ],
)
def test_nothing_of_the_body_is_echoed(received: Received) -> None:
    assert refusal(received).message
