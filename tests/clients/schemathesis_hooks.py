"""What schemathesis can't know of our document, for `schemathesis run`: real images, and what no schema can say."""

from __future__ import annotations

import base64
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis import GenerationMode

from tests.serving.pictures import encoded, plain

IMAGES = [encoded(plain((10, 200, 30), (320, 480))), encoded(plain((200, 100, 50), (400, 460)), "JPEG")]

schemathesis.openapi.format("byte", strategies.sampled_from([base64.b64encode(image).decode() for image in IMAGES]))
schemathesis.openapi.format("binary", strategies.sampled_from(IMAGES))
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, strategies.sampled_from(IMAGES))


@schemathesis.check
def valid_data_is_accepted(_: Any, response: Any, case: Any) -> None:
    """In place of `positive_data_acceptance`, which takes each refusal of what fits its schema for a fault.

    No schema says that bytes are an image, that a setting allows a route, that a box has its corners in order and lies
    in the image, that two boxes have two ids, that a text is JSON, or that near_m is less than far_m. An option must
    not have two values, in the body and in the query.
    """
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or response.status_code < 400:
        return
    error = response.json()["error"]
    may_come = {"invalid_image", "unsupported_media_type", "forbidden", "not_found"}
    twice = set(case.query or ())  # in the query, and perhaps in the body, too
    text = isinstance(error, str)  # DeepStack's shape, whose text begins with the field
    fields = {error.split(":")[0]} if text else {detail["field"] for detail in error.get("details", [])}
    may_differ = {"bbox", "boxes", "options", "near_m", "far_m", *twice}
    assert response.headers["x-error-code"][0] in may_come or (fields and fields <= may_differ), response.text
