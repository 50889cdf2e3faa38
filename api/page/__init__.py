"""The index page: try a route with a picture. BentoML's own loads a third party's tag manager."""

from __future__ import annotations

from pathlib import Path
from typing import Final

INDEX: Final = Path(__file__).with_name("index.html")
