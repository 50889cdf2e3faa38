"""The example answers of the OpenAPI document. tools/examples.py asks a live service for them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_suffix(".json")


@cache
def examples() -> dict[str, Any]:
    """Return a 200 answer of each operation, by its operationId: JSON, or a text."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
