"""A request body, of any accepted kind → the image's bytes and the options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pybase64
from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from api.errors import ApiError, invalid_field
from vision.image import Box

JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "multipart/form-data"
IMAGE_TYPES: Final = frozenset(
    f"image/{kind}" for kind in ("jpeg", "jpg", "pjpeg", "png", "webp", "bmp", "x-ms-bmp", "gif", "tiff")
)
_IMAGE_KEYS: Final = ("image_base64", "image")
_DATA_PREFIX: Final = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


@dataclass(frozen=True)
class Received:
    """A request as it came: content type with its parameters ("" where none was sent), query string decoded."""

    content_type: str
    body: bytes
    query: Mapping[str, str]


@dataclass(frozen=True)
class ImageRequest:
    """What a caller asks. image: the encoded file. box: pixels of the upright image, x2 > x1 and y2 > y1."""

    image: bytes
    box: Box | None
    min_confidence: float | None
    min_keypoint_confidence: float | None = None


def media_type(content_type: str) -> str:
    """`image/PNG; x=1` → `image/png`; JSON where no type was sent."""
    return content_type.split(";")[0].strip().lower() or JSON_TYPE


def is_accepted(content_type: str) -> bool:
    """Whether a body of this content type can be read at all."""
    kind = media_type(content_type)
    return kind in {JSON_TYPE, FORM_TYPE} or kind in IMAGE_TYPES


def parse(received: Received, max_image_bytes: int) -> ImageRequest:
    """Read a body: JSON, multipart, or the image itself with options in the query string.

    Raises ApiError: invalid_json, invalid_base64, invalid_request, payload_too_large or unsupported_media_type.
    """
    kind = media_type(received.content_type)
    if kind == JSON_TYPE:
        fields = _json_fields(received.body)
    elif kind == FORM_TYPE:
        fields = _form_fields(received)
    elif kind in IMAGE_TYPES:
        fields = {**received.query, "image": received.body}
    else:
        raise ApiError("unsupported_media_type", f"the content type {kind} is not accepted")
    image = _image(fields)
    if len(image) > max_image_bytes:
        raise ApiError("payload_too_large", f"the image has {len(image)} bytes; at most {max_image_bytes} are accepted")
    confidences = (_fraction(option, fields.get(option)) for option in ("min_confidence", "min_keypoint_confidence"))
    return ImageRequest(image, _box(fields.get("bbox")), *confidences)


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:  # what json says never holds more of the body than a position
        position = f" ({error.msg}, position {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError("invalid_json", f"the body is not JSON{position}") from None
    if not isinstance(fields, dict):
        raise ApiError("invalid_request", "the body must be a JSON object")
    return fields


def _form_fields(received: Received) -> dict[str, Any]:
    fields: dict[str, Any] = {}

    def add(name: bytes | None, value: Any) -> None:
        key = (name or b"").decode("utf-8", "replace")
        if key in fields and key in _IMAGE_KEYS:
            raise invalid_field(key, "more than one was sent; send exactly one image")
        fields[key] = value

    def on_field(field: Field) -> None:
        add(field.field_name, (field.value or b"").decode("utf-8", "replace"))

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        add(file.field_name, file.file_object.read())

    headers = {"Content-Type": received.content_type.encode("latin-1", "replace")}
    # The body is in memory already and bounded by the limit: no part of it goes to a temporary file.
    config = {"MAX_MEMORY_FILE_SIZE": len(received.body) + 1}
    try:
        parser = create_form_parser(headers, on_field, on_file, config=config)
        parser.write(received.body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise ApiError("invalid_request", f"the multipart body can't be read: {error}") from None
    return fields


def _image(fields: Mapping[str, Any]) -> bytes:
    sent = {key: fields[key] for key in _IMAGE_KEYS if fields.get(key) not in (None, "", b"")}
    if not sent:
        raise invalid_field("image_base64", "missing: send the image's base64 here or under `image`")
    if len(sent) > 1:
        raise invalid_field("image_base64", "sent beside `image`: send exactly one of the two")
    ((key, value),) = sent.items()
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise invalid_field(key, "must be a string of base64")
    return _from_base64(key, value)


def _from_base64(key: str, text: str) -> bytes:
    prefix = _DATA_PREFIX.match(text)
    if prefix:
        text = text[prefix.end() :]
    if "\n" in text or " " in text:
        text = "".join(text.split())  # line breaks are what `base64` prints
    try:
        image = pybase64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one, and so is what non-ASCII text raises
        raise ApiError("invalid_base64", f"{key} is not base64") from None
    if not image:
        raise invalid_field(key, "holds no bytes")
    return image


def _box(value: Any) -> Box | None:
    if isinstance(value, str):
        value = _box_text(value)
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = _box_corners(value)
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(number) for number in value):
        raise invalid_field("bbox", "must be [x1, y1, x2, y2], {x, y, width, height} or {x1, y1, x2, y2}, in numbers")
    left, top, right, bottom = (float(number) for number in value)
    if right <= left or bottom <= top:
        raise invalid_field("bbox", "must have x2 > x1 and y2 > y1 (a width and a height over 0)")
    return left, top, right, bottom


def _box_text(text: str) -> Any:
    """A box from a form field or a query string: JSON, or four numbers with commas."""
    if not text.strip():
        return None
    try:
        return json.loads(text if text.lstrip().startswith(("[", "{")) else f"[{text}]")
    except (ValueError, RecursionError):
        return text  # not a box: refused where the others are


def _box_corners(box: Mapping[str, Any]) -> Any:
    if {"x", "y", "width", "height"} <= box.keys():
        left, top, width, height = sides = [box[key] for key in ("x", "y", "width", "height")]
        return [left, top, left + width, top + height] if all(map(_is_number, sides)) else sides
    return [box.get(key) for key in ("x1", "y1", "x2", "y2")]


def _fraction(field: str, value: Any) -> float | None:
    if value in (None, ""):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise invalid_field(field, "must be a number from 0 to 1") from None
    if not _is_number(value) or not 0 <= value <= 1:
        raise invalid_field(field, "must be a number from 0 to 1")
    return float(value)


def _is_number(value: Any) -> bool:
    # A box farther out than 10⁹ pixels is a mistake. The comparison also refuses NaN, infinity and an integer of 400
    # digits, which math.isfinite would raise on.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
