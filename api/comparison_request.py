"""Parses the requests of /person-reid/compare and /person-reid/match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic_core import from_json

from api import box, encoded, form
from api.body import IMAGE_KEYS, is_unset, max_body_bytes
from api.coding import inflate
from api.errors import ApiError, describe, invalid_field, printable
from api.media import FORM_TYPE, UNKNOWN_TYPES, URLENCODED_TYPE, is_json, looks_like_json, media_type
from api.numbers import fraction, number
from api.request import Received, option
from tasks.similarity import DIMENSION, Embedding, unit
from vision.arrays import F32, Box

MAX_CANDIDATES: Final = 1000
# Commas and brackets of JSON: for the largest list of candidates, and for two embeddings with boxes.
_MAX_MARKS: Final = MAX_CANDIDATES * (DIMENSION + 20) + 20_000
_MAX_MARKS_OF_TWO: Final = 20_000
# Brackets and quotes: a candidate has 12, beside its vector. Keys and lists take more time than numbers.
_MAX_PARTS: Final = MAX_CANDIDATES * 60
_FORM_FIELDS: Final = ("first", "second", "first_bbox", "second_bbox", "threshold", "top")
_FLOAT32: Final = np.dtype("<f4")
LONGEST_NAME: Final = 200  # characters of an id or a model_id
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SUBJECT: Final = 'send {"image_base64": "…"}, or an answer of /person-reid: {"embedding": […], "model_id": "…"}'


@dataclass(frozen=True)
class Image:
    """An image to be embedded. image: the encoded file. box: pixels of the upright image, None for all of it."""

    image: bytes
    box: Box | None


Subject = Image | Embedding


@dataclass(frozen=True)
class CompareRequest:
    """Two images or embeddings. threshold: the call's own, 0…1."""

    first: Subject
    second: Subject
    threshold: float | None


@dataclass(frozen=True)
class MatchRequest:
    """An image or embedding, and the candidates.

    candidates: (n, 512) float32, L2-normalised. model_id: of all candidates. top: the most matches to list.
    """

    query: Subject
    ids: Sequence[str]
    candidates: F32
    model_id: str
    threshold: float | None
    top: int | None


def parse_compare(received: Received, max_image_bytes: int) -> CompareRequest:
    """Parse JSON, or a form with the files `first` and `second`.

    Raises ApiError as api.request.parse does; its fields are paths like `first.embedding`.
    """
    body = inflate(received.body, received.encoding, max_body_bytes(max_image_bytes))
    if media_type(received.content_type) == FORM_TYPE:
        fields: Mapping[str, Any] = _form_fields(received.content_type, body)
    else:
        fields = _json_fields(received.content_type, body, _MAX_MARKS_OF_TWO)
    first, second = (_subject(name, fields.get(name), max_image_bytes) for name in ("first", "second"))
    if isinstance(first, Embedding) and isinstance(second, Embedding):
        check_model("second.model_id", second.model_id, first.model_id)
    return CompareRequest(first, second, option("threshold", fraction, fields, _query(received)))


def parse_match(received: Received, max_image_bytes: int) -> MatchRequest:
    """Parse JSON with a query and 1 to 1,000 candidates. Raises ApiError as `parse_compare` does."""
    body = inflate(received.body, received.encoding, max_body_bytes(max_image_bytes))
    fields, query = _json_fields(received.content_type, body, _MAX_MARKS), _query(received)
    subject = _subject("query", fields.get("query"), max_image_bytes)
    sent = fields.get("candidates")
    if not isinstance(sent, list) or not 0 < len(sent) <= MAX_CANDIDATES:
        raise invalid_field(
            "candidates", f"must be a list of 1 to {MAX_CANDIDATES} objects; {describe(sent)} was received"
        )
    candidates = [_candidate(f"candidates[{at}]", candidate) for at, candidate in enumerate(sent)]
    model_id = (subject if isinstance(subject, Embedding) else candidates[0][1]).model_id
    for at, (_, embedding) in enumerate(candidates):
        check_model(f"candidates[{at}].model_id", embedding.model_id, model_id)
    return MatchRequest(
        subject,
        [name for name, _ in candidates],
        np.stack([embedding.vector for _, embedding in candidates]),
        model_id,
        option("threshold", fraction, fields, query),
        option("top", _top, fields, query),
    )


def check_model(field: str, received: str, expected: str) -> None:
    """Raise ApiError invalid_request if two embeddings are not of one model."""
    if received != expected:
        raise invalid_field(
            field,
            f"{printable(received)} was received beside {printable(expected)}; only embeddings of one model can be"
            " compared, so embed the images again with one",
        )


# ── bodies ──


def _json_fields(content_type: str, body: bytes, max_marks: int) -> Mapping[str, Any]:
    """Return the members of a JSON object.

    For 1,000 lists of 512 numbers, pydantic's parser holds the GIL for 0.03 s, the standard library's for 0.14 s. If
    the embeddings are base64, pydantic's parser takes 1 ms (processor time, 2 cores, 2026-11).
    """
    kind = media_type(content_type)
    if not is_json(kind) and not (kind in UNKNOWN_TYPES | {URLENCODED_TYPE} and looks_like_json(body)):
        raise ApiError(
            "unsupported_media_type",
            f"the content type {printable(kind) or '(none)'} is not accepted here; send JSON;"
            f" /person-reid/compare also accepts {FORM_TYPE} with the files first and second",
        )
    if (marks := sum(body.count(mark) for mark in b",[{")) > max_marks:
        raise ApiError(
            "invalid_request",
            f"the JSON has {marks} commas and brackets; at most {max_marks} are accepted, which are"
            f" {MAX_CANDIDATES if max_marks == _MAX_MARKS else 2} embeddings and more",
        )
    if (marks := sum(body.count(mark) for mark in b'[{"')) > _MAX_PARTS:
        raise ApiError(
            "invalid_request", f"the JSON has {marks} brackets and quotes; at most {_MAX_PARTS} are accepted"
        )
    try:
        fields = from_json(body.removeprefix(_BYTE_ORDER_MARK))
    except ValueError as error:  # the parser's messages quote no part of the body, only a position
        raise ApiError("invalid_json", f"the body of {len(body)} bytes is not JSON in UTF-8 ({error})") from None
    if not isinstance(fields, dict):
        raise ApiError("invalid_request", f"the body must be a JSON object; {describe(fields)} was received")
    return fields


def _form_fields(content_type: str, body: bytes) -> Mapping[str, Any]:
    """Return a form's fields as JSON would have them: `first` and `first_bbox` become one object."""
    sent = _once(form.read(content_type, body))
    return sent | {name: _form_subject(sent.get(name), sent.get(f"{name}_bbox")) for name in ("first", "second")}


def _form_subject(value: bytes | str | None, bbox: Any) -> Mapping[str, Any] | None:
    """Return the object that JSON would have. A text is the JSON of such an object, or an image's base64."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return _json_fields("application/json", value.encode(), _MAX_MARKS_OF_TWO)
    return None if value is None else {"image": value, "bbox": bbox}


def _query(received: Received) -> dict[str, Any]:
    pairs = (
        (name, one) for name, sent in received.query.items() for one in ([sent] if isinstance(sent, str) else sent)
    )
    return _once(pairs)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the known fields by name. A box may be sent as repeated numbers; any other repeated field is refused."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        if name in _FORM_FIELDS and not is_unset(value):
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        if len(values) > 1 and not name.endswith("bbox"):
            raise invalid_field(name, f"received {len(values)} times; send exactly one")
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


# ── fields ──


def _subject(field: str, value: Any, max_image_bytes: int) -> Subject:
    if not isinstance(value, Mapping):
        raise invalid_field(field, f"missing: {_SUBJECT}" if value is None else f"must be an object: {_SUBJECT}")
    sent = [key for key in (*IMAGE_KEYS, "embedding") if not is_unset(value.get(key))]
    if len(sent) != 1:
        raise invalid_field(field, f"{' and '.join(sent) or 'no image'} was received; {_SUBJECT}")
    (key,) = sent
    if key == "embedding":
        return _embedding(field, value)
    image = value[key]
    if isinstance(image, str):
        image = encoded.to_bytes(f"{field}.{key}", image)
    if not isinstance(image, bytes):
        raise invalid_field(f"{field}.{key}", f"must be a text of base64; {describe(image)} was received")
    if len(image) > max_image_bytes:
        raise ApiError(
            "payload_too_large",
            f"{field}: the image has {len(image)} bytes; at most {max_image_bytes} are accepted",
        )
    return Image(image, box.parse(f"{field}.bbox", value.get("bbox")))


def _candidate(field: str, value: Any) -> tuple[str, Embedding]:
    if not isinstance(value, Mapping):
        raise invalid_field(field, f"must be an object with id, embedding and model_id; {describe(value)} was received")
    return _name(f"{field}.id", value.get("id")), _embedding(field, value)


def _embedding(field: str, value: Mapping[str, Any]) -> Embedding:
    return Embedding(
        _vector(f"{field}.embedding", value.get("embedding")), _name(f"{field}.model_id", value.get("model_id"))
    )


def _vector(field: str, value: Any) -> F32:
    """Return a unit vector from a list of numbers, or from the base64 of float32 in little-endian order."""
    if isinstance(value, str) and value:
        data = encoded.to_bytes(field, value)
        if len(data) != DIMENSION * _FLOAT32.itemsize:
            size = DIMENSION * _FLOAT32.itemsize
            raise invalid_field(
                field, f"base64 of {len(data)} bytes was received; {DIMENSION} float32 have {size} bytes"
            )
        numbers: Any = np.frombuffer(data, _FLOAT32)
    elif isinstance(value, list) and set(map(type, value)) <= {int, float}:
        numbers = value
    else:
        raise invalid_field(
            field,
            f"must be a list of {DIMENSION} numbers, or their base64 as little-endian float32;"
            f" {'nothing' if value is None else describe(value)} was received",
        )
    try:
        return unit(numbers)
    except OverflowError:  # an integer of over 308 digits
        raise invalid_field(field, "must have finite numbers; one is too large") from None
    except ValueError as error:
        raise invalid_field(field, str(error)) from None


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise invalid_field(
            field,
            f"must be a text of 1 to {LONGEST_NAME} characters;"
            f" {'nothing' if value is None else describe(value)} was received",
        )
    return value


def _top(field: str, value: Any) -> int | None:
    if value is None:
        return None
    found = number(value)
    if found is None or found < 1 or found % 1:
        raise invalid_field(field, f"must be a whole number from 1; {describe(value)} was received")
    return int(found)
