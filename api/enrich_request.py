"""Parses a call to /enrich: one image, the models to ask, boxes of the image, and options for each model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from api import box
from api.body import max_body_bytes, read_fields
from api.coding import inflate
from api.errors import ApiError, describe, invalid_field, printable
from api.numbers import fraction
from api.pictures import RENDERS, overlay
from api.request import Received, image_of, one_of, option, query_fields
from models.catalogue import CATALOGUE, NAMES, ModelName
from tasks import TASKS
from vision.arrays import Box
from vision.canvas import ImageFormat

MOST_BOXES: Final = 64
_LONGEST_ID: Final = 64  # characters
_LONGEST_TEXT: Final = 200_000  # characters of JSON in a text; 64 boxes in their longest forms take 130,000
_LONGEST_NAMES: Final = 1000  # characters of a text with models' names
_MOST_NAMES: Final = 100  # texts in a list
_BOX_KEYS: Final = ("id", "bbox", "models")
_OPTIONS: Final = ("models", "bbox", "boxes", "options", "min_confidence", "min_keypoint_confidence", "render")
_FLAGS: Final = MappingProxyType({"true": True, "false": False, "1": True, "0": False})

Options = Mapping[str, Any]  # an option's name → its value, for one model


@dataclass(frozen=True)
class AskedBox:
    """One box of a call. box: pixels of the upright image, or why it can't be used. models: None = the call's."""

    id: str
    box: Box | ApiError
    models: Sequence[ModelName] | None


@dataclass(frozen=True)
class EnrichRequest:
    """A parsed call. image: the encoded file. models: None = every one that can serve.

    picture: the format of the annotated picture, None = JSON.
    """

    image: bytes
    models: Sequence[ModelName] | None
    boxes: Sequence[AskedBox]
    options: Mapping[ModelName, Options]
    picture: ImageFormat | None = None


def parse(received: Received, max_image_bytes: int) -> EnrichRequest:
    """Parse a body (JSON, a form, or the raw image) and the options in the query string.

    A box that can't be used is that box's error. Raises ApiError as api.request.parse for anything else.
    """
    body = inflate(received.body, received.encoding, max_body_bytes(max_image_bytes))
    fields = read_fields(received.content_type, body, _OPTIONS)
    query = query_fields(received.query, _OPTIONS)
    image = image_of(fields, max_image_bytes)
    one, boxes = option("bbox", box.parse, fields, query), option("boxes", _boxes, fields, query)
    if one is not None and boxes is not None:
        raise invalid_field("bbox", "received beside `boxes`; send one of the two")
    for_all = {
        name: value
        for name in ("min_confidence", "min_keypoint_confidence")
        if (value := option(name, fraction, fields, query)) is not None
    }
    own = option("options", _options, fields, query) or {}
    return EnrichRequest(
        image,
        option("models", _models, fields, query),
        [AskedBox("0", one, None)] if one is not None else boxes or [],
        {
            name: {key: value for key, value in for_all.items() if key in task.option_names} | dict(own.get(name, {}))
            for name, task in TASKS.items()
        },
        overlay(option("render", partial(one_of, RENDERS), fields, query), received.accept),
    )


def _models(field: str, value: Any) -> Sequence[ModelName] | None:
    """Read a list of names, or a text with commas between them. Repeated names count once."""
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= _LONGEST_NAMES:
        value = _json(field, value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_NAMES or not all(map(_may_name, value)):
        raise invalid_field(field, f"must be a list of models' names; {describe(value)} was received; {_names()}")
    names = [name.strip() for each in value for name in each.split(",")]
    if not any(names):
        raise invalid_field(field, f"names no model; {_names()}")
    return tuple(dict.fromkeys(_model(field, name) for name in names if name))


def _may_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAMES


def _model(field: str, name: str) -> ModelName:
    if name not in NAMES:
        raise invalid_field(field, f"there is no model {printable(name)!r}; {_names()}")
    return NAMES[name]


def _names() -> str:
    return f"there are {', '.join(CATALOGUE)}"


def _boxes(field: str, value: Any) -> Sequence[AskedBox] | None:
    """Read a list of objects {id, bbox, models}, or of plain boxes. A box without an id gets its position as one."""
    if value is None:
        return None
    value = _json(field, value)
    if not isinstance(value, list):
        raise invalid_field(
            field, f'must be a list such as [{{"id": "a", "bbox": [x1, y1, x2, y2]}}]; {describe(value)} was received'
        )
    if len(value) > MOST_BOXES:
        raise invalid_field(field, f"{len(value)} boxes were received; at most {MOST_BOXES} are accepted")
    boxes = [_box(f"{field}[{number}]", number, entry) for number, entry in enumerate(value)]
    twice = next((each.id for each in boxes if sum(other.id == each.id for other in boxes) > 1), None)
    if twice is not None:
        raise invalid_field(field, f"the id {printable(twice)!r} is there twice; each box needs its own")
    return boxes


def _box(field: str, number: int, entry: Any) -> AskedBox:
    members: Mapping[str, Any] = {"bbox": entry}
    if isinstance(entry, dict):  # a box in any form, in `bbox` or beside the other keys
        beside = {key: entry[key] for key in entry if key in {"id", "models"}}
        members = entry if "bbox" in entry else beside | {"bbox": {k: entry[k] for k in entry if k not in beside}}
    _check_keys(field, members, _BOX_KEYS)
    return AskedBox(
        _id(f"{field}.id", members.get("id"), number),
        _corners(f"{field}.bbox", members["bbox"]),
        _models(f"{field}.models", members.get("models")),
    )


def _id(field: str, value: Any, number: int) -> str:
    if value is None:
        return str(number)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= _LONGEST_ID:
        raise invalid_field(
            field, f"must be a text of 1 to {_LONGEST_ID} characters or an integer; {describe(value)} was received"
        )
    if not _is_utf8(text := str(value)):
        raise invalid_field(field, "has half of a surrogate pair (\\ud800 to \\udfff), which no answer can repeat")
    return text


def _is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text. JSON can escape half of a surrogate pair, which it can't."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _corners(field: str, value: Any) -> Box | ApiError:
    try:
        found = box.parse(field, value)
    except ApiError as error:
        return error
    return invalid_field(field, f"missing; {box.ACCEPTED}") if found is None else found


def _options(field: str, value: Any) -> Mapping[ModelName, Options] | None:
    if value is None:
        return None
    value = _json(field, value)
    if not isinstance(value, dict):
        raise invalid_field(
            field, f'must be an object such as {{"pose": {{"min_confidence": 0.4}}}}; {describe(value)} was received'
        )
    found: dict[ModelName, Options] = {}
    for key, members in value.items():
        name, own = _model(field, key), f"{field}.{printable(key)}"
        if name in found:
            raise invalid_field(own, "two names of one model; send one of them")
        if members is None:  # generated clients write what is not set as null
            continue
        if not isinstance(members, dict):
            raise invalid_field(own, f"must be an object; {describe(members)} was received")
        _check_keys(own, members, TASKS[name].option_names)
        read = {each: _READERS[each](f"{own}.{each}", sent) for each, sent in members.items()}
        found[name] = {each: sent for each, sent in read.items() if sent is not None}
    return found


def _check_keys(field: str, members: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = next((key for key in members if key not in known), None)
    if unknown is not None:
        accepted = ", ".join(known) or "none"
        raise invalid_field(field, f"{printable(unknown)!r} is not accepted here; accepted: {accepted}")


def _on(field: str, value: Any) -> bool | None:
    """Read whether a model looks at the boxes instead of the frame."""
    if value not in (None, "frame", "boxes"):
        raise invalid_field(field, f'must be "frame" or "boxes"; {describe(value)} was received')
    return None if value is None else value == "boxes"


def _flag(field: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise invalid_field(field, f"must be true or false; {describe(value)} was received")


def _json(field: str, value: Any) -> Any:
    """Parse a text as JSON: a form and a query string hold lists and objects so. Return any other value as it is."""
    if not isinstance(value, str):
        return value
    if len(value) > _LONGEST_TEXT:  # json.loads holds the GIL, and its lists take 16 times the memory of their text
        raise invalid_field(
            field, f"must be JSON of at most {_LONGEST_TEXT} characters; {describe(value)} was received"
        )
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise invalid_field(field, "must be JSON; a text that is not JSON was received") from None


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {"min_confidence": fraction, "min_keypoint_confidence": fraction, "on": _on, "map": _flag}
)
