from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from api.media import is_accepted, is_binary, looks_like_json, media_type, unsupported_type


@pytest.mark.parametrize(
    ("content_type", "kind", "accepted"),
    [
        ("", "", True),
        ("*/*", "*/*", True),
        ("Application/JSON ; charset=utf-8", "application/json", True),
        ("application/vnd.api+json", "application/vnd.api+json", True),
        ("text/json", "text/json", True),
        ("multipart/form-data; boundary=x", "multipart/form-data", True),
        ("application/x-www-form-urlencoded;charset=UTF-8", "application/x-www-form-urlencoded", True),
        ("application/octet-stream", "application/octet-stream", True),
        ("binary/octet-stream", "binary/octet-stream", True),
        *((f"image/{kind}", f"image/{kind}", True) for kind in ("*", "jpeg", "jpg", "pjpeg", "jfif", "png", "x-png")),
        *((f"image/{kind}", f"image/{kind}", True) for kind in ("webp", "bmp", "x-ms-bmp", "gif", "tiff", "tif")),
        *(
            (f"image/{kind}", f"image/{kind}", True)
            for kind in ("x-jpeg", "x-citrix-jpeg", "mpo", "x-windows-bmp", "x-tif")
        ),
        ("image/svg+xml", "image/svg+xml", False),
        ("image/heic", "image/heic", False),
        ("text/plain", "text/plain", False),
        ("text/csv", "text/csv", False),
        ("multipart/mixed; boundary=x", "multipart/mixed", False),
        ("application/vnd.bentoml+pickle", "application/vnd.bentoml+pickle", False),
        ("application/jsonish", "application/jsonish", False),
        ("image/jpeg, image/jpeg", "image/jpeg, image/jpeg", False),
    ],
)
def test_content_types(content_type: str, kind: str, accepted: bool) -> None:
    assert media_type(content_type) == kind
    assert is_accepted(content_type) is accepted


def test_the_refusal_of_a_content_type_names_it_and_what_is_accepted() -> None:
    error = unsupported_type("Text/CSV; header=present")
    assert (error.code, error.status) == ("unsupported_media_type", 415)
    assert error.message.startswith("the content type text/csv is not accepted; send application/json, multipart/form")
    for kind in ("application/x-www-form-urlencoded", "image/jpeg", "application/octet-stream"):
        assert kind in error.message


def test_the_refusal_of_a_content_type_stays_short_and_printable() -> None:
    message = unsupported_type("x\x1b[31m\x85" * 1000).message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "ICO"])
@pytest.mark.parametrize("size", [(1, 1), (300, 200), (1000, 777)])
def test_image_files_are_binary(form: str, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.effect_noise(size, 60).save(file, form)
    assert is_binary(file.getvalue())
    assert not looks_like_json(file.getvalue())


@pytest.mark.parametrize("text", ["", "1,2,3,4", "iVBORw0KGgo=\r\n\t\f", "Tür", '{"a": "b"}'])
def test_text_is_not_binary(text: str) -> None:
    assert not is_binary(text.encode())
    assert not is_binary(text.encode("latin-1"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_is_known_in_each_encoding(encoding: str) -> None:
    assert looks_like_json(("\n " + json.dumps({"image": "x"})).encode(encoding))
    assert not looks_like_json("image=x".encode(encoding))
