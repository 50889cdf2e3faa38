"""Parses a received request into the image's bytes and the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from api import box, encoded
from api.body import IMAGE_KEYS, OPTIONS, gather, max_body_bytes, read_fields
from api.coding import inflate
from api.errors import ApiError, describe, invalid_field
from api.numbers import fraction, number
from api.pictures import RENDERS, Render, depth_file
from tasks.distance import METHODS, Calibration, DistanceOptions, Method
from vision.arrays import Box
from vision.depth_map import COLORMAPS, FORMATS, Colormap, FileForm, Format

T = TypeVar("T")
NameT = TypeVar("NameT", bound=str)


@dataclass(frozen=True)
class Received:
    """A request as received.

    content_type: with its parameters, "" if none was sent. query: the decoded query string; a repeated name has a
    list. encoding, accept: the headers Content-Encoding and Accept, "" if none was sent. trusted: see
    api.keys.is_trusted.
    """

    content_type: str
    body: bytes
    query: Mapping[str, str | Sequence[str]]
    encoding: str = ""
    accept: str = ""
    trusted: bool = True


@dataclass(frozen=True)
class ImageRequest:
    """A parsed request. image: the encoded file. box: pixels of the upright image, x2 > x1 and y2 > y1.

    depth_file: None = JSON.
    """

    image: bytes
    box: Box | None
    min_confidence: float | None
    min_keypoint_confidence: float | None = None
    distance: DistanceOptions | None = None
    render: Render | None = None
    depth_file: FileForm | None = None


def parse(
    received: Received, max_image_bytes: int, *, wants_distance: bool = False, wants_map: bool = False
) -> ImageRequest:
    """Parse a body (JSON, a form, or the raw image) and the options in the query string.

    wants_distance: require a box, and read the options of /object-distance, too. wants_map: read those of
    /depth-estimate, too.

    Raises ApiError: invalid_json, invalid_base64, invalid_encoding, invalid_image, invalid_request, payload_too_large
    or unsupported_media_type.
    """
    body = inflate(received.body, received.encoding, max_body_bytes(max_image_bytes))
    fields = read_fields(received.content_type, body)
    query = query_fields(received.query)
    image = image_of(fields, max_image_bytes)
    asked = ImageRequest(
        image,
        option("bbox", box.parse, fields, query),
        option("min_confidence", fraction, fields, query),
        option("min_keypoint_confidence", fraction, fields, query),
        render=option("render", partial(one_of, RENDERS), fields, query),
    )
    if wants_map:
        form: Format | None = option("format", partial(one_of, FORMATS), fields, query)
        colormap: Colormap | None = option("colormap", partial(one_of, tuple(COLORMAPS)), fields, query)
        return replace(asked, depth_file=depth_file(form, colormap, received.accept))
    if not wants_distance:
        return asked
    if asked.box is None:
        raise invalid_field("bbox", f"missing: it says where the object is; {box.ACCEPTED}")
    return replace(asked, distance=_distance(fields, query))


def _distance(fields: Mapping[str, Any], query: Mapping[str, Any]) -> DistanceOptions:
    method: Method = option("method", partial(one_of, METHODS), fields, query) or "center"
    near, far = (option(name, _metres, fields, query) for name in ("near_m", "far_m"))
    if (near is None) is not (far is None):
        raise invalid_field("far_m" if far is None else "near_m", "missing: near_m and far_m are sent together or not")
    if near is None or far is None:
        return DistanceOptions(method, None)
    if near >= far:
        raise invalid_field("far_m", f"must be greater than near_m; {far:g} and {near:g} were received")
    return DistanceOptions(method, Calibration(near, far))


def one_of(accepted: Sequence[NameT], field: str, value: Any) -> NameT | None:
    """Return one of the accepted names; None if nothing was sent. Raises ApiError invalid_request."""
    if value is None:
        return None
    found = next((name for name in accepted if name == value), None)
    if found is None:
        raise invalid_field(field, f"must be one of {', '.join(accepted)}; {describe(value)} was received")
    return found


def _metres(field: str, value: Any) -> float | None:
    if value is None:
        return None
    found = number(value)
    if found is None or found <= 0:
        raise invalid_field(field, f"must be a number of metres over 0; {describe(value)} was received")
    return found


def query_fields(query: Mapping[str, str | Sequence[str]], options: Sequence[str] = OPTIONS) -> dict[str, Any]:
    """Return the options of the query string by name. Raises ApiError invalid_request if it holds the image."""
    pairs = ((name, one) for name, sent in query.items() for one in ([sent] if isinstance(sent, str) else sent))
    fields = gather(pairs, options)
    for key in IMAGE_KEYS:
        if key in fields:
            raise invalid_field(key, "received in the query string; send the image in the body")
    return fields


def image_of(fields: Mapping[str, Any], max_image_bytes: int) -> bytes:
    """Return the encoded image of a body's fields. Raises ApiError as `parse`."""
    image = _sent_image(fields)
    if len(image) > max_image_bytes:
        raise ApiError("payload_too_large", f"the image has {len(image)} bytes; at most {max_image_bytes} are accepted")
    return image


def _sent_image(fields: Mapping[str, Any]) -> bytes:
    sent = [key for key in IMAGE_KEYS if key in fields]
    if not sent:
        raise invalid_field(
            "image_base64", "missing: send the image's base64 here or under `image`, or the image itself"
        )
    if len(sent) > 1:
        raise invalid_field("image_base64", "received beside `image`; send exactly one of the two")
    (key,) = sent
    value = fields[key]
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise invalid_field(key, f"must be a text of base64; {describe(value)} was received")
    return encoded.to_bytes(key, value)


def option(
    name: str, read: Callable[[str, Any], T | None], fields: Mapping[str, Any], query: Mapping[str, Any]
) -> T | None:
    """Return an option from the body or the query string. Raises ApiError if they contradict each other."""
    in_body, in_query = read(name, fields.get(name)), read(name, query.get(name))
    if in_body is None:
        return in_query
    if in_query not in (None, in_body):
        raise invalid_field(
            name, f"the body says {describe(in_body)}, the query string {describe(in_query)}; send one of them"
        )
    return in_body
