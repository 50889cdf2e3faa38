"""The index page, on which a user tries a route with a picture.

It replaces BentoML's own page, which loads a third party's tag manager.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

INDEX: Final = Path(__file__).with_name("index.html")
