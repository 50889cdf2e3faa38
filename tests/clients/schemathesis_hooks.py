"""What schemathesis can't know of our document, for `schemathesis run`: real images, and what no schema can say."""

from __future__ import annotations

import base64
import re
import struct
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from api.body import is_unset
from api.numbers import number
from tests.fuzz.findings import LEAK
from tests.serving.pictures import encoded, plain

IMAGES = [encoded(plain((10, 200, 30), (320, 480))), encoded(plain((200, 100, 50), (400, 460)), "JPEG")]

EMBEDDINGS = [base64.b64encode(struct.pack("<512f", red, *[1.0] * 511)).decode() for red in (-9.0, 9.0)]
MODEL_ID = "osnet-x0-25@osnet_x0_25@0123456789ab"  # the fake store's

schemathesis.openapi.format("byte", strategies.sampled_from([base64.b64encode(image).decode() for image in IMAGES]))
schemathesis.openapi.format("binary", strategies.sampled_from(IMAGES))
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, strategies.sampled_from(IMAGES))


@schemathesis.hook
def before_load_schema(_: Any, raw_schema: dict[str, Any]) -> None:
    """Narrow embeddings to a few of one model: random texts and lists of numbers would all be refused."""
    for name in ("SideByEmbedding", "CandidateInput"):
        fields = raw_schema["components"]["schemas"][name]["properties"]
        fields |= {"embedding": {"enum": EMBEDDINGS}, "model_id": {"enum": [MODEL_ID]}}


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
    named = [error.split(":")[0]] if text else [detail["field"] for detail in error.get("details", [])]
    fields = {field.rpartition(".")[2] for field in named}  # of first.bbox: bbox
    may_differ = {"bbox", "boxes", "options", "near_m", "far_m", "model_id", *twice}
    assert response.headers["x-error-code"][0] in may_come or (fields and fields <= may_differ), response.text


@schemathesis.check
def invalid_data_is_refused(context: Any, response: Any, case: Any) -> None:
    """In place of `negative_data_rejection`, which takes each text in place of a number or of null for invalid.

    Forms have only texts, so a JSON body may have them, too: "0.5" is 0.5, and "" is not set.
    """
    if not _has_lenient_text(case.body):
        negative_data_rejection(context, response, case)


@schemathesis.check
def no_trace_and_no_path(_: Any, response: Any, __: Any) -> None:
    """Errors are in our words, and answers give nothing of the machine away."""
    if not response.headers.get("content-type", [""])[0].startswith("image/"):
        text = re.sub(rb"[A-Za-z0-9+/=]{200,}", b"", response.content).decode("utf-8", "replace")  # without base64
        assert LEAK.search(text) is None, text[:500]


def _has_lenient_text(value: Any) -> bool:
    match value:
        case str():
            return is_unset(value) or number(value) is not None
        case dict():
            return any(_has_lenient_text(part) for part in value.values())
        case list():
            return any(part is None or _has_lenient_text(part) for part in value)  # a form's repeated field
    return False
