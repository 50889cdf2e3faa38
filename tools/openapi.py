"""Writes docs/reference/openapi.json, the OpenAPI document as the service serves it.

usage: python -m tools.openapi
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

from starlette.testclient import TestClient

from api.pages import pages

SNAPSHOT: Final = Path(__file__).parents[1] / "docs" / "reference" / "openapi.json"


def main() -> None:
    """Write the file."""
    from service import SETTINGS, EnrichmentLight

    served = TestClient(pages(lambda: cast(Any, EnrichmentLight).apis, SETTINGS)).get("/openapi.json").json()
    SNAPSHOT.write_text(json.dumps(served, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{SNAPSHOT}: {len(served['paths'])} paths, {SNAPSHOT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
