"""The content types that a request may have, and what bytes without one look like."""

from __future__ import annotations

import re
from typing import Final

from api.errors import ApiError, printable

FORM_TYPE: Final = "multipart/form-data"
URLENCODED_TYPE: Final = "application/x-www-form-urlencoded"
# Every name that an accepted format has had. The bytes decide which format it is.
IMAGE_TYPES: Final = frozenset(
    f"image/{kind}"
    for kind in (
        *("*", "jpeg", "jpg", "jpe", "jfif", "pjpeg", "x-jpeg", "x-jpg", "x-pjpeg", "x-citrix-jpeg", "mpo"),
        *("png", "x-png", "x-citrix-png", "apng", "vnd.mozilla.apng", "webp", "x-webp", "gif", "x-gif"),
        *("bmp", "x-bmp", "x-ms-bmp", "x-windows-bmp", "tiff", "tif", "x-tiff", "x-tif"),
    )
)
# Types that say nothing about the body. The bytes decide.
UNKNOWN_TYPES: Final = frozenset(
    {"", "*/*", "application/octet-stream", "application/x-octet-stream", "binary/octet-stream"}
)
ACCEPTED_TYPES: Final = (
    f"application/json, {FORM_TYPE}, {URLENCODED_TYPE}, an image type (image/jpeg, image/png, image/webp, image/bmp,"
    " image/gif, image/tiff) or application/octet-stream"
)

_JSON_TYPE: Final = re.compile(r"application/json|text/json|application/[\w.-]+\+json")
# Every image file has such a byte near its start. Base64, numbers and JSON never have one.
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HEAD: Final = 512  # bytes searched
_BEFORE_JSON: Final = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"  # byte order marks, white space, the zeros of UTF-16


def media_type(content_type: str) -> str:
    """Return the bare media type: `image/PNG; x=1` → `image/png`; "" if no type was sent."""
    return content_type.split(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON, or a format written in JSON (`+json`)."""
    return _JSON_TYPE.fullmatch(kind) is not None


def is_accepted(content_type: str) -> bool:
    """Whether a body of this content type can be read at all."""
    kind = media_type(content_type)
    return kind in UNKNOWN_TYPES | IMAGE_TYPES | {FORM_TYPE, URLENCODED_TYPE} or is_json(kind)


def unsupported_type(content_type: str) -> ApiError:
    """Return a 415 for a content type."""
    kind = printable(media_type(content_type))
    return ApiError("unsupported_media_type", f"the content type {kind} is not accepted; send {ACCEPTED_TYPES}")


def is_binary(data: bytes) -> bool:
    """Whether these bytes are a file such as an image, not text."""
    return _BINARY.search(data, 0, _HEAD) is not None


def begins_as_json(data: bytes) -> bool:
    """Whether these bytes begin as a JSON object or list does, in UTF-8, UTF-16 or UTF-32."""
    return data.lstrip(_BEFORE_JSON)[:1] in (b"{", b"[")  # all of it, as the JSON parser skips any number of spaces


def looks_like_json(data: bytes) -> bool:
    """Whether these bytes begin as a JSON object does, in UTF-8, UTF-16 or UTF-32."""
    return data[:_HEAD].lstrip(_BEFORE_JSON).startswith(b"{")
