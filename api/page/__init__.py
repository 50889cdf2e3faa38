"""The page at /, on which a person asks all models about a picture, the API's page at /docs, and their files.

They replace BentoML's own page, which loads a third party's tag manager.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).with_name("static")
INDEX: Final = FILES / "index.html"
DOCS: Final = FILES / "docs.html"
