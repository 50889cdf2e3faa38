from __future__ import annotations

import pytest
from PIL import Image

from tests.conftest import PILLOW_OPEN


@pytest.fixture(autouse=True)
def pillow_as_in_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """No serving process imports ultralytics, which replaces Image.open; the parity tests' process does."""
    monkeypatch.setattr(Image, "open", PILLOW_OPEN)
