"""Parses the numbers of a request, and the options that are fractions."""

from __future__ import annotations

import re
from typing import Any, Final

from api.errors import describe, invalid_field

LIMIT: Final = 1e9  # a larger coordinate is a mistake
_TEXT: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LONGEST_TEXT: Final = 40


def number(value: Any) -> float | None:
    """Return a number, or a text that holds one, as a float.

    Return None for anything else, for NaN, and for numbers of 10⁹ and more in size.
    """
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT and _TEXT.fullmatch(value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < LIMIT:
        return None
    return float(value)


def fraction(field: str, value: Any) -> float | None:
    """Return a confidence from 0 to 1; None if nothing was sent. Raises ApiError invalid_request."""
    if value is None:
        return None
    found = number(value)
    if found is None or not 0 <= found <= 1:
        received = describe(value if found is None else found)
        percent = f"; {found:g} percent are {found / 100:g}" if found is not None and 1 < found <= 100 else ""
        raise invalid_field(field, f"must be a number from 0 to 1; {received} was received{percent}")
    return found
