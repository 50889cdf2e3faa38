"""Does each parser of requests refuse in our words and at once, and accept only what is right?"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from api import comparison_request, enrich_request, request
from api.enrich_request import EnrichRequest
from api.errors import ApiError
from api.request import Received
from tests.fuzz.bodies import LIMIT
from tests.fuzz.findings import LEAK, Finding
from vision import image
from vision.errors import BoxOutside

REFUSED_S: Final = 0.25  # processor time
_LONGEST_REFUSAL: Final = 2_500  # bytes

PARSERS: Final[Mapping[str, Callable[[Received], Any]]] = {
    "image": lambda received: request.parse(received, LIMIT),
    "map": lambda received: request.parse(received, LIMIT, wants_map=True),
    "distance": lambda received: request.parse(received, LIMIT, wants_distance=True),
    "enrich": lambda received: enrich_request.parse(received, LIMIT),
    "compare": lambda received: comparison_request.parse_compare(received, LIMIT),
    "match": lambda received: comparison_request.parse_match(received, LIMIT),
}


def check(parser: str, sent: Received) -> str:
    """Parse a request and return the outcome. Raises Finding unless it is a right request or an ApiError."""
    began = time.process_time()
    try:
        parsed = PARSERS[parser](sent)
    except ApiError as error:
        outcome: str = error.code
        _check_refusal(error)
    except Exception as error:
        raise Finding(f"{parser}: {type(error).__name__} came out: {error}") from error
    else:
        outcome = "accepted"
        _check_parsed(parsed)
    if (took := time.process_time() - began) > REFUSED_S:
        raise Finding(f"{parser}: {outcome} took {took:.2f} s of processor time")
    return outcome


def _check_refusal(error: ApiError) -> None:
    answer = error.response("id")
    body = bytes(answer.body)
    if answer.status_code >= 500 or len(body) > _LONGEST_REFUSAL or "error" not in json.loads(body):
        raise Finding(f"a refusal with {answer.status_code} and {len(body)} bytes")
    if LEAK.search(error.message):
        raise Finding(f"the refusal is not in our words: {error.message}")


def _check_parsed(parsed: Any) -> None:
    """Numbers are finite, boxes are in order and can be cut out, and every text can be sent back."""
    for value in _leaves(parsed):
        if isinstance(value, float | np.ndarray) and not np.isfinite(value).all():
            raise Finding(f"{value} was accepted")
        if isinstance(value, ApiError):
            _check_refusal(value)
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise Finding(f"the text {value!r} was accepted, and no answer can hold it") from error
    boxes = [each.box for each in parsed.boxes] if isinstance(parsed, EnrichRequest) else [getattr(parsed, "box", None)]
    for box in boxes:
        if isinstance(box, tuple):
            _check_box(box)


def _check_box(box: tuple[float, float, float, float]) -> None:
    if not (len(box) == 4 and box[0] < box[2] and box[1] < box[3] and all(map(math.isfinite, box))):
        raise Finding(f"the box {box} was accepted")
    try:
        left, top, right, bottom = image.clamp(box, 640, 480)
    except BoxOutside:
        return
    if not (0 <= left < right <= 640 and 0 <= top < bottom <= 480):
        raise Finding(f"the box {box} became {(left, top, right, bottom)} of 640×480")


def _leaves(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value):
        for member in dataclasses.fields(value):
            yield from _leaves(getattr(value, member.name))
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _leaves(key)
            yield from _leaves(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _leaves(member)
    else:
        yield value
