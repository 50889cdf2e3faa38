"""Draws a running service's answers onto pictures, as JPEGs with persons and threats.

usage: python -m tools.draw_answers URL OUT_FOLDER PICTURE…
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from vision.decoding import OWN_FILES, open_image
from vision.draw import draw_persons, draw_threats

_LARGEST = 1280  # pixels on the longer side of a JPEG


def main(url: str, out: str, *pictures: str) -> None:
    """Send each picture to /pose-analyze and /threat-detect, and write OUT/<name>.jpg."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=url, timeout=60) as client:
        for picture in map(Path, pictures):
            drawn = open_image(picture.read_bytes(), OWN_FILES).decode()
            drawn = draw_persons(drawn, _ask(client, "/pose-analyze", picture)["persons"])
            drawn = draw_threats(drawn, _ask(client, "/threat-detect", picture)["threats_detected"])
            image = Image.fromarray(drawn)
            image.thumbnail((_LARGEST, _LARGEST))
            image.save(folder / f"{picture.stem}.jpg", quality=85)


def _ask(client: httpx.Client, route: str, picture: Path) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(route, files={"image": picture.read_bytes()}).raise_for_status().json()
    return answer


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
