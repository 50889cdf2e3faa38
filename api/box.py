"""Parses the bbox option, in every form that callers send, into corners in pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.errors import describe, invalid_field
from api.numbers import number
from vision.arrays import Box

ACCEPTED: Final = (
    "send [x1, y1, x2, y2], {x1, y1, x2, y2}, {x, y, width, height}, {left, top, right, bottom},"
    " {left, top, width, height} or {x_min, y_min, x_max, y_max}, in numbers"
)
# Names of a box's start, end and length, first in x, then in y. Lower case, without `_` and `-`.
_NAMES: Final = (
    (("x", "x1", "left", "xmin"), ("x2", "right", "xmax"), ("width", "w")),
    (("y", "y1", "top", "ymin"), ("y2", "bottom", "ymax"), ("height", "h")),
)
_FROM_ZERO: Final = ((("x0",), ("x1",), ()), (("y0",), ("y1",), ()))
_KNOWN: Final = frozenset(name for axis in (*_NAMES, *_FROM_ZERO) for names in axis for name in names)
_LONGEST_TEXT: Final = 1000  # characters
_MOST_VALUES: Final = 50  # in a list or an object
_SAME: Final = 1e-3  # pixels; rounding may make two values of one edge differ by this much


def parse(field: str, value: Any) -> Box | None:
    """Return the corners x1, y1, x2, y2 in pixels from a list, an object or a text; None if nothing was sent.

    Raises ApiError invalid_request, which says what was received and what is accepted.
    """
    if isinstance(value, str):
        value = _from_text(value)
    if value is None:
        return None
    if isinstance(value, Mapping | list) and len(value) > _MOST_VALUES:
        raise invalid_field(field, f"{describe(value)} was received; {ACCEPTED}")
    if isinstance(value, Mapping):
        sent, corners = _from_object(field, value)
    else:
        sent = corners = _from_list(field, value)
    if _looks_normalised(sent, corners):
        raise invalid_field(
            field,
            f"looks normalised: {describe(sent)} was received; the unit is pixels of the upright image, so multiply"
            " by its width and height",
        )
    left, top, right, bottom = corners
    if right <= left or bottom <= top:
        raise invalid_field(
            field,
            f"must have x2 > x1 and y2 > y1 (a width and a height over 0); corners {describe(corners)} were received",
        )
    return left, top, right, bottom


def _from_text(text: str) -> Any:
    """Parse JSON, or numbers separated by commas, semicolons or spaces, with or without brackets.

    Return the text itself if it is neither; `parse` then refuses it.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST_TEXT:
        return text or None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        inner = text[1:-1] if text[0] + text[-1] in {"[]", "()"} else text
        values = re.split(r"\s*[,;]\s*|\s+", inner.strip())
        return values if len(values) > 1 else text
    return value if isinstance(value, list | dict) else text


def _from_list(field: str, value: Any) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise invalid_field(field, f"{describe(value)} was received; {ACCEPTED}")
    if any(isinstance(item, Sequence | Mapping) and not isinstance(item, str) for item in value):
        raise invalid_field(field, f"a list of lists or objects was received; send one box in a request: {ACCEPTED}")
    if value and all(isinstance(item, str) and _plain(item) in _KNOWN for item in value):
        raise invalid_field(
            field,
            "the names of coordinates were received without their values: BentoML's client makes this of a dict;"
            " send the list [x1, y1, x2, y2]",
        )
    numbers = [found for item in value if (found := number(item)) is not None]
    if len(value) != 4 or len(numbers) != 4:
        raise invalid_field(
            field, f"{describe(value)} with {len(numbers)} usable numbers was received; {ACCEPTED}, below 10⁹ each"
        )
    return numbers


def _from_object(field: str, box: Mapping[Any, Any]) -> tuple[list[float], list[float]]:
    """Return the four numbers as sent, and the corners."""
    values = {_plain(key): value for key, value in box.items() if value is not None}
    sides = [_side(field, values, *names) for names in (_FROM_ZERO if {"x0", "y0"} <= values.keys() else _NAMES)]
    (left, right, last_x), (top, bottom, last_y) = sides
    return [left, top, last_x, last_y], [left, top, right, bottom]


def _side(
    field: str, values: Mapping[str, Any], starts: Sequence[str], ends: Sequence[str], lengths: Sequence[str]
) -> tuple[float, float, float]:
    """Return a box's start and end along one axis, then the length if it was sent, else the end again."""
    start = [_coordinate(field, name, values[name]) for name in starts if name in values]
    end = [_coordinate(field, name, values[name]) for name in ends if name in values]
    length = [_coordinate(field, name, values[name]) for name in lengths if name in values]
    if not start or not (end or length):
        known = ", ".join(name for name in values if name in _KNOWN) or "none"
        raise invalid_field(field, f"an object with too few of the known keys was received ({known}); {ACCEPTED}")
    right = [*end, *(start[0] + value for value in length)]
    if max(start) - min(start) > _SAME or max(right) - min(right) > _SAME:
        raise invalid_field(field, f"an object whose keys contradict each other was received; {ACCEPTED}")
    return start[0], right[0], length[0] if length else right[0]


def _coordinate(field: str, name: str, value: Any) -> float:
    found = number(value)
    if found is None:
        raise invalid_field(field, f"{name} must be a number below 10⁹; {describe(value)} was received")
    return found


def _plain(key: Any) -> str:
    """`x_min`, `xMin`, `X-Min` → `xmin`."""
    return re.sub(r"[_-]", "", str(key)[:20]).lower()


def _looks_normalised(sent: Sequence[float], corners: Sequence[float]) -> bool:
    """Whether a box seems to be in fractions of the image.

    That is so if no number is over 1, or if one has a fraction and all corners are below 2. In pixels such a box
    would span one or two pixels at the image's corner, which no caller means.
    """
    fractional = any(value % 1 for value in sent)
    return 0 < max(map(abs, sent)) <= 1 or (fractional and max(map(abs, corners)) < 2)
